"""Surrogate search: models of every objective tell which architecture is worth evaluating next.

Source: Jones et al. 1998, Efficient global optimization; Emmerich et al. 2011, Hypervolume-based expected improvement;
Ginsbourger et al. 2010, Kriging is well-suited to parallelize optimization, for believing in what is still out.
"""

from collections.abc import Mapping, Sequence

from controller.algorithms.archive import Archive
from controller.algorithms.candidates import Candidates
from controller.algorithms.outlook import Outlook
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture, ChoiceValue
from controller.core.protocols import Problem
from controller.core.trial import Trial

_RETUNED_AT = 1.15  # times the trials that models were tuned with
_TRIALS_PER_PROPOSAL = 50  # known for each architecture that one set of models proposes
_MOST_PROPOSALS = (
    20  # of one set of models: each takes time, and believes a little more in what is only predicted
)


class _State(SavedState):
    queue: tuple[Mapping[str, ChoiceValue], ...]
    tuned_with: int
    hyperparameters: Mapping[str, tuple[float, ...]]


class Surrogate:
    """Proposes what is expected to add most hypervolume to the front.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws.
        initial: Architectures to begin with, random ones that lie far apart.
    """

    def __init__(self, problem: Problem, seed: int, initial: int = 10) -> None:
        self._space = problem.space
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._outlook = Outlook(problem, seed)
        self._candidates = Candidates(problem.space, seed)
        self._initial = initial
        self._pending: dict[str, Architecture] = {}
        self._queue: list[Architecture] = []
        self._tuned_with = 0

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures: some that lie far apart first, then the most promising."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the trials; models learn when the next architecture is asked for."""
        self._archive.add(trials)
        self._proposals.add_told(trials)
        for trial in trials:
            self._pending.pop(trial.id, None)

    def state(self) -> bytes:
        """Return the generator's state, what is to be proposed next, and hyperparameters."""
        return _State(
            rng=self._proposals.state(),
            queue=tuple(architecture.values for architecture in self._queue),
            tuned_with=self._tuned_with,
            hyperparameters=self._outlook.hyperparameters,
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._archive.add(told)
        self._pending = {architecture.id: architecture for architecture in pending}
        self._queue = [Architecture.of(values) for values in restored.queue]
        self._proposals.restore(restored.rng, told, pending)
        self._tuned_with = restored.tuned_with
        self._outlook.hyperparameters = restored.hyperparameters

    def _propose(self) -> Architecture | None:
        found = self._promising() if self._knows_enough() else self._far_apart()
        found = found or self._proposals.fresh(self._space.sample)
        if found is not None:
            self._pending[found.id] = found
        return found

    def _knows_enough(self) -> bool:
        return len(self._proposals) >= self._initial and len(self._archive.complete()) >= 2

    def _far_apart(self) -> Architecture | None:
        spread = self._outlook.spread(self._initial)
        new = next((found for found in spread if found not in self._proposals), None)
        if new is not None:
            self._proposals.add(new)
        return new

    def _promising(self) -> Architecture | None:
        """Return the next architecture that models think most of; None where they are offered nothing new."""
        if not self._queue:
            self._refill()
        while self._queue:
            architecture = self._queue.pop(0)
            if architecture not in self._proposals:
                self._proposals.add(architecture)
                return architecture
        return None

    def _refill(self) -> None:
        offered = self._candidates.offered(self._archive, self._proposals)
        if not offered:
            return
        known = len(self._archive)
        tune = known >= _RETUNED_AT * self._tuned_with
        if tune:
            self._tuned_with = known
        self._outlook.learn(self._archive, tune=tune)
        count = min(max(1, known // _TRIALS_PER_PROPOSAL), _MOST_PROPOSALS)
        chosen = self._outlook.best(offered, self._archive, list(self._pending.values()), count)
        self._queue = [offered[place] for place in chosen]
