"""Random search: the control that every other algorithm has to beat."""

from collections.abc import Sequence

from controller.algorithms.proposals import Proposals
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
        drawn = (self._proposals.fresh(self._space.sample) for _ in range(count))
        return [architecture for architecture in drawn if architecture is not None]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn nothing but what is known by now."""
        self._proposals.add_told(trials)

    def state(self) -> bytes:
        """Return the generator's state."""
        return self._proposals.dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        self._proposals.load(state, [*(trial.architecture for trial in told), *pending])
