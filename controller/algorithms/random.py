"""Random search: the control that every other algorithm has to beat."""

from collections.abc import Sequence

from controller.algorithms.proposals import Proposals, ProposalState
from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.protocols import SearchSpace
from controller.core.trial import Trial


class RandomSearch:
    """Samples the space, each architecture once.

    Args:
        space: What to sample.
        objectives: Not used; random search learns nothing.
        seed: Of all random draws.
    """

    def __init__(self, space: SearchSpace, objectives: Sequence[Objective], seed: int) -> None:
        self._space = space
        self._proposals = Proposals(seed)

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new random architectures."""
        drawn = (self._proposals.fresh(self._space.sample) for _ in range(count))
        return [architecture for architecture in drawn if architecture is not None]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn nothing."""

    def state(self) -> bytes:
        """Return the generator's state and what was proposed."""
        return self._proposals.state().model_dump_json().encode()

    def restore(self, state: bytes) -> None:
        """Continue from state."""
        self._proposals.restore(ProposalState.model_validate_json(state))
