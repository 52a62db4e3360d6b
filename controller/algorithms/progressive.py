"""Progressive refinement: a coarse space first, then ever smaller surroundings of the front.

Each scale is searched as long as it pays: one that has not improved the front for a while hands over to the next
finer one, and the finest, once it is spent, back to a coarser one.

A candidate is trained as long as that is worth it: after a quarter and a half of its epochs it is compared with those that were
looked at by then, front by front, and only the better half goes on.

Source: Liu et al. 2018, Progressive neural architecture search, for going from coarse to fine; Mladenović and Hansen 1997,
Variable neighborhood search, for the order of the scales; Li et al. 2020, A system for massively parallel hyperparameter
tuning, for halving candidates without waiting for a whole rung of them. We rank by front, and compare with what was known
when a candidate was proposed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from controller.algorithms.archive import Archive
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.protocols import Problem, Rng
from controller.core.trial import Trial, accuracy_after
from controller.pareto.front import minimised, ranks

_COARSE_OPTIONS = 3  # of a choice whose options have an order: its ends and the middle
_CROSSED = 0.3
_ACCURACY = "accuracy"
_PARTS = (4, 2)  # of the epochs, after which candidates are compared
_FEWEST = 4  # others to compare with


class _State(SavedState):
    scale: int
    barren: int
    known: Mapping[str, int]


class Progressive:
    """Samples a coarse space, then changes ever fewer choices of the front's members.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws.
        initial: Architectures of the coarse space to begin with.
        patience: Evaluations without a better front after which a scale hands over.
        kept: Share of candidates whose training goes on, each time they are compared; 1 for all.
    """

    def __init__(
        self, problem: Problem, seed: int, initial: int = 12, patience: int = 8, kept: float = 0.5
    ) -> None:
        self._space = problem.space
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._initial = initial
        self._patience = patience
        self._objectives = problem.objectives
        self._kept = kept
        self._known: dict[str, int] = {}  # trials told of when an architecture was proposed
        self._coarse = {choice.name: _coarse(choice) for choice in problem.space.choices}
        self._scales = _scales(len(problem.space.choices))
        self._scale = 0
        self._barren = 0

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures."""
        return up_to(count, self._propose)

    def rungs(self, epochs: int) -> Sequence[int]:
        """Return a quarter and a half of so many epochs, rounded up."""
        judged = self._kept < 1 and any(objective.key == _ACCURACY for objective in self._objectives)
        return sorted({-(-epochs // part) for part in _PARTS} - {epochs}) if judged else ()

    def worth_more(self, trial: Trial, epochs: int) -> bool:
        """Return whether a candidate is among the better ones of those that were looked at, as it was proposed."""
        rung = accuracy_after(epochs)
        others = [
            past for past in self._archive.trials[: self._known.get(trial.id, 0)] if rung in past.values
        ]
        if len(others) < _FEWEST:
            return True
        looked_at = [
            replace(each, values={**each.values, _ACCURACY: each.values[rung]}) for each in (*others, trial)
        ]
        *theirs, own = ranks(minimised(self._objectives, looked_at))
        better = sum(rank < own for rank in theirs)
        return bool(own == 0 or better < self._kept * len(theirs))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Note whether the scale still pays."""
        self._proposals.add_told(trials)
        for trial in trials:
            self._known.pop(trial.id, None)
            before = self._archive.front().tolist()
            self._archive.add([trial])
            if len(self._archive) <= self._initial:
                continue
            self._barren = self._barren + 1 if self._archive.front().tolist() == before else 0
            if self._barren >= self._patience:
                self._scale, self._barren = (self._scale + 1) % len(self._scales), 0

    def state(self) -> bytes:
        """Return the generator's state, and the scale that is being searched."""
        return _State(
            rng=self._proposals.state(), scale=self._scale, barren=self._barren, known=self._known
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._archive.add(told)
        self._proposals.restore(restored.rng, told, pending)
        self._scale, self._barren = restored.scale, restored.barren
        self._known = dict(restored.known)

    def _propose(self) -> Architecture | None:
        refining = len(self._proposals) >= self._initial and len(self._archive)
        found = self._proposals.fresh(self._refined if refining else self._sampled, self._space.sample)
        if found is not None:
            self._known[found.id] = len(self._archive)
        return found

    def _sampled(self, rng: Rng) -> Architecture:
        """Return a random architecture of the coarse space; of the whole one where that has none such."""
        sampled = self._space.sample(rng)
        coarse = {name: _nearest(value, self._coarse[name]) for name, value in sampled.items}
        return self._space.compose(coarse) or sampled

    def _refined(self, rng: Rng) -> Architecture:
        """Return a member of the front with as many changes as the scale allows, drawn between one and all of them."""
        members = self._archive.centres(1)
        found = self._archive.architecture(int(rng.choice(members)))
        if rng.random() < _CROSSED:
            found = self._space.cross(found, self._archive.architecture(int(rng.choice(members))), rng)
        for _ in range(int(rng.integers(1, self._scales[self._scale] + 1))):
            found = self._space.mutate(found, rng)
        return found


def _scales(choices: int) -> list[int]:
    """Return how many changes each scale allows: half the choices, half of that, and so on down to one."""
    scales = [max(1, choices // 2)]
    while scales[-1] > 1:
        scales.append(scales[-1] // 2)
    return scales


def _coarse(choice: Choice) -> tuple[ChoiceValue, ...]:
    """Return the options that a coarse space keeps: all where they have no order."""
    options = choice.options
    if len(options) <= _COARSE_OPTIONS or not all(isinstance(option, int) for option in options):
        return options
    return options[0], options[len(options) // 2], options[-1]


def _nearest(value: ChoiceValue, options: Sequence[ChoiceValue]) -> ChoiceValue:
    if value in options:
        return value
    assert isinstance(value, int)
    return min(
        (option for option in options if isinstance(option, int)), key=lambda option: abs(option - value)
    )
