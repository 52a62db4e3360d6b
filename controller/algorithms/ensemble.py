"""An ensemble: several algorithms share what is known, and a bandit shares the budget out among them.

Each is told of every trial, whoever asked for it. Who asks next is drawn by how much hypervolume each has lately gained
per second of evaluation; the box in which it is counted is fixed once the first trials are known.

Source: Auer et al. 2002, The nonstochastic multiarmed bandit problem, for drawing in proportion with a floor; Garivier and
Moulines 2011, On upper-confidence bound policies for switching bandit problems, for forgetting.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from controller.algorithms.archive import Archive
from controller.algorithms.evolution import Evolution
from controller.algorithms.local import LocalSearch
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.algorithms.regularized_evolution import RegularizedEvolution
from controller.algorithms.reinforce import Reinforce
from controller.algorithms.surrogate import Surrogate
from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError
from controller.core.protocols import Problem, SearchAlgorithm
from controller.core.trial import Trial
from controller.pareto.front import Box

MEMBERS: Mapping[str, Callable[[Problem, int], SearchAlgorithm]] = {
    "surrogate": Surrogate,
    "regularized_evolution": RegularizedEvolution,
    "evolution": Evolution,
    "local": LocalSearch,
    "reinforce": Reinforce,
}
"""Who may take part, the most sample-efficient first."""

_REPEATED = 10
_LESS_TRUSTED = 10.0  # each member than the one named before it, while nothing is known
_TRUST_TRIALS = 3.0  # whose outcome that trust stands for


class _State(SavedState):
    states: Mapping[str, str]
    asked_by: Mapping[str, str]
    open: Mapping[str, tuple[str, ...]]
    gains: Mapping[str, float]
    costs_s: Mapping[str, float]
    trials: float


class Ensemble:
    """Draws who asks next by what each member has gained.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws; members get seeds of their own from it.
        members: Names in MEMBERS, the one to trust most first: it begins, and asks most often until more is known.
        initial: Trials until the box is fixed in which hypervolume is counted.
        floor: Share of asks that each member gets at least; at most an even share.
        memory: Share of a gain that is left after one more trial.

    Raises:
        ConfigurationError: If there are no members, one is not in MEMBERS, or floor is more than there is for each.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        members: Sequence[str] = ("surrogate", "regularized_evolution", "local"),
        initial: int = 10,
        floor: float = 0.05,
        memory: float = 0.95,
    ) -> None:
        unknown = [name for name in members if name not in MEMBERS]
        if unknown or not members:
            raise ConfigurationError(
                f"ensemble has the members {list(members)}; expected at least one of {', '.join(MEMBERS)}"
            )
        if not 0 <= floor * len(members) <= 1:
            raise ConfigurationError(
                f"ensemble has floor {floor:g} for each of {len(members)} members; expected 0 to {1 / len(members):.2g}"
            )
        self._space = problem.space
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._members = {
            name: MEMBERS[name](problem, int(np.random.default_rng([seed, place]).integers(2**31)))
            for place, name in enumerate(members)
        }
        self._initial = initial
        self._floor = floor
        self._memory = memory
        self._asked_by: dict[str, str] = {}
        # What each member asked for and was not told of yet. Several may have asked for one; the first of them is credited.
        self._open: dict[str, list[str]] = {name: [] for name in self._members}
        self._gains = dict.fromkeys(self._members, 0.0)
        self._costs_s = dict.fromkeys(self._members, 0.0)
        self._trials = 0.0  # that gains and costs are of, as far as they are remembered

    @property
    def points(self) -> Mapping[str, float]:
        """How likely each member is to ask next, as `share_NAME`."""
        return {f"share_{name}": share for name, share in self._shares().items()}

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures: what members ask for."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Tell every member, and credit the one that asked with the hypervolume gained and the seconds spent."""
        self._proposals.add_told(trials)
        for trial in trials:
            before = self._covered()
            self._archive.add([trial])
            for name, member in self._members.items():
                member.tell([trial])
                self._open[name] = [waiting for waiting in self._open[name] if waiting != trial.id]
            asked_by = self._asked_by.pop(trial.id, None)
            if asked_by is None or before is None:
                continue
            self._trials = self._memory * self._trials + 1
            for name in self._members:
                self._gains[name] *= self._memory
                self._costs_s[name] *= self._memory
            self._gains[asked_by] += max(0.0, (self._covered() or 0.0) - before)
            # A table answers at once: then every trial costs the same.
            self._costs_s[asked_by] += trial.training_s + trial.measuring_s or 1.0

    def state(self) -> bytes:
        """Return the generator's state, those of the members, and what each has gained."""
        return _State(
            rng=self._proposals.state(),
            states={name: member.state().decode() for name, member in self._members.items()},
            asked_by=self._asked_by,
            open={name: tuple(waiting) for name, waiting in self._open.items()},
            gains=self._gains,
            costs_s=self._costs_s,
            trials=self._trials,
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._archive.add(told)
        self._proposals.restore(restored.rng, told, pending)
        self._asked_by = dict(restored.asked_by)
        self._gains, self._costs_s = dict(restored.gains), dict(restored.costs_s)
        self._trials = restored.trials
        still = {architecture.id: architecture for architecture in pending}
        for name, member in self._members.items():
            self._open[name] = [waiting for waiting in restored.open[name] if waiting in still]
            own = [still[waiting] for waiting in self._open[name]]
            member.restore(restored.states[name].encode(), told, own)

    def _propose(self) -> Architecture | None:
        shares = self._shares()
        first = next(iter(shares))
        drawn = str(self._proposals.rng.choice(list(shares), p=list(shares.values())))
        found = self._asked_by_member(drawn if len(self._proposals) >= self._initial else first)
        return found or self._proposals.fresh(self._space.sample)

    def _asked_by_member(self, name: str) -> Architecture | None:
        """Return something new from a member; None where it has nothing new to say."""
        for _ in range(_REPEATED):
            asked = self._members[name].ask(1)
            if not asked:
                return None
            self._open[name].append(asked[0].id)
            if asked[0] not in self._proposals:
                self._proposals.add(asked[0])
                self._asked_by[asked[0].id] = name
                return asked[0]
        return None

    def _shares(self) -> dict[str, float]:
        """Return how likely each member is to ask next: in proportion to its gain per second, above a floor."""
        # As if each had had a few trials before that cost as much as usual, and gained more for those trusted more.
        weight = _TRUST_TRIALS / self._trials if self._trials else 1.0
        cost_s = weight * sum(self._costs_s.values()) or 1.0
        trust = {name: _LESS_TRUSTED**-place for place, name in enumerate(self._members)}
        gain = weight * max(sum(self._gains.values()), 1e-12) * len(trust) / sum(trust.values())
        rates = {
            name: (self._gains[name] + gain * trust[name]) / (self._costs_s[name] + cost_s)
            for name in self._members
        }
        free = 1.0 - self._floor * len(rates)
        return {name: self._floor + free * rate / sum(rates.values()) for name, rate in rates.items()}

    def _covered(self) -> float | None:
        """Return the hypervolume of the front, in the box that the first trials have fixed; None until they are known."""
        complete = self._archive.complete()
        if len(complete) < self._initial:
            return None
        box = Box.around(self._archive.points(complete[: self._initial]))
        return box.covered(self._archive.points(self._archive.front()))
