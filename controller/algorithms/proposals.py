"""What algorithms share: random numbers that can be saved, and never proposing the same twice."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from controller.core.architecture import Architecture
from controller.core.protocols import Rng
from controller.core.trial import Trial

_ATTEMPTS = 1000

RngState = Mapping[str, Any]
"""State of a generator, ready for JSON."""


class Proposals:
    """Proposes what a caller draws, each architecture once.

    Args:
        seed: Of the generator that draws.
    """

    def __init__(self, seed: int) -> None:
        self.rng: Rng = np.random.default_rng(seed)
        self._proposed: set[str] = set()

    def __len__(self) -> int:
        return len(self._proposed)

    def __contains__(self, architecture: object) -> bool:
        return isinstance(architecture, Architecture) and architecture.id in self._proposed

    def add(self, architecture: Architecture) -> None:
        """Count architecture as proposed."""
        self._proposed.add(architecture.id)

    def add_told(self, trials: Sequence[Trial]) -> None:
        """Count what was evaluated as proposed, whoever asked for it."""
        self._proposed.update(trial.id for trial in trials)

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
                if architecture not in self:
                    self.add(architecture)
                    return architecture
        return None

    def state(self) -> RngState:
        """Return what `restore` needs besides what was told and is pending."""
        return self.rng.bit_generator.state

    def restore(self, state: RngState, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state, after those were proposed."""
        self.rng.bit_generator.state = dict(state)
        self._proposed = {trial.id for trial in told} | {found.id for found in pending}


class SavedState(BaseModel):
    """What an algorithm saves: the state of its generator, and what its own kind adds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rng: RngState

    def dump(self) -> bytes:
        """Return it as bytes, for `model_validate_json`."""
        return self.model_dump_json().encode()


def up_to(count: int, propose: Callable[[], Architecture | None]) -> list[Architecture]:
    """Return what so many calls propose, without those that found nothing."""
    proposed = (propose() for _ in range(count))
    return [architecture for architecture in proposed if architecture is not None]
