"""Random search: the control that every other algorithm has to beat."""

from collections.abc import Sequence

from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture
from controller.core.protocols import Problem
from controller.core.trial import Trial


class RandomSearch:
    """Samples the space, each architecture once.

    Args:
        problem: Whose space to sample.
        seed: Of all random draws.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._space = problem.space
        self._proposals = Proposals(seed)

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new random architectures."""
        return up_to(count, lambda: self._proposals.fresh(self._space.sample))

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn nothing but what is known by now."""
        self._proposals.add_told(trials)

    def state(self) -> bytes:
        """Return the generator's state."""
        return SavedState(rng=self._proposals.state()).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        self._proposals.restore(SavedState.model_validate_json(state).rng, told, pending)
