"""What algorithms share: random numbers that can be saved, and never proposing the same twice."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from controller.core.architecture import Architecture
from controller.core.protocols import Rng

_ATTEMPTS = 200


class ProposalState(BaseModel):
    """A generator and the ids proposed so far, as they are saved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rng: Mapping[str, Any]
    proposed: tuple[str, ...]


class Proposals:
    """Proposes what a caller draws, each architecture once.

    Args:
        seed: Of the generator that draws.
    """

    def __init__(self, seed: int) -> None:
        self.rng: Rng = np.random.default_rng(seed)
        self._proposed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._proposed)

    def fresh(self, *draws: Callable[[Rng], Architecture]) -> Architecture | None:
        """Return an architecture never returned before.

        Args:
            draws: Ways to draw one; a later way is tried where an earlier one only repeats itself.

        Returns:
            None where none of the ways found anything new: the space is used up, or nearly so.
        """
        for draw in draws:
            for _ in range(_ATTEMPTS):
                architecture = draw(self.rng)
                if architecture.id not in self._proposed:
                    self._proposed[architecture.id] = None
                    return architecture
        return None

    def state(self) -> ProposalState:
        """Return what `restore` needs."""
        return ProposalState(rng=self.rng.bit_generator.state, proposed=tuple(self._proposed))

    def restore(self, state: ProposalState) -> None:
        """Continue from state."""
        self.rng.bit_generator.state = dict(state.rng)
        self._proposed = dict.fromkeys(state.proposed)
