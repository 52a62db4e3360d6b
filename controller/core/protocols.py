"""What a search space and a search algorithm are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.network import Network
from controller.core.objective import Constraint, Objective
from controller.core.trial import Trial

Rng = np.random.Generator


@runtime_checkable
class SearchSpace(Protocol):
    """All architectures that a search may propose. Every method returns canonical architectures."""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The decisions that make an architecture."""
        ...

    def sample(self, rng: Rng) -> Architecture:
        """Return a random architecture of the space."""
        ...

    def mutate(self, architecture: Architecture, rng: Rng) -> Architecture:
        """Return a neighbour that differs from architecture in one respect."""
        ...

    def cross(self, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
        """Return a child that keeps contiguous parts of both parents together."""
        ...

    def compose(self, values: Mapping[str, ChoiceValue]) -> Architecture | None:
        """Return the architecture that these options make, one for each choice; None where they make none of the space."""
        ...

    def lower(self, architecture: Architecture) -> Network:
        """Return the network.

        Raises:
            SpaceError: If architecture is not of this space, or the space has no networks.
        """
        ...

    def figures(self, architecture: Architecture) -> Mapping[str, float]:
        """Return what is known before an architecture is evaluated, by metric: `macs_m`, `params_m`, `proxy.*`.

        Raises:
            SpaceError: If architecture is not of this space.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a search is about.

    Attributes:
        space: What may be proposed.
        objectives: What is optimised.
        constraints: What every candidate worth keeping meets.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()


@runtime_checkable
class Allocation(Protocol):
    """Decides while a candidate is trained how much training it is worth.

    A search algorithm that is one as well is asked about every candidate, once all else about it is known. What it answers
    depends on what it knew when it proposed the candidate: then nothing depends on which result came first.
    """

    def rungs(self, epochs: int) -> Sequence[int]:
        """Return after how many epochs, of so many in all, a candidate is looked at."""
        ...

    def worth_more(self, trial: Trial, epochs: int) -> bool:
        """Return whether a candidate is to be trained on.

        Args:
            trial: With all figures but the accuracy, and what it was after each rung by now, as `accuracy_after` names it.
            epochs: That it was trained for.
        """
        ...


@runtime_checkable
class SearchAlgorithm(Protocol):
    """Proposes architectures and learns from what became of them.

    `tell` receives finished trials in the order in which they were asked for, each once; an algorithm
    that was restored goes on exactly as if it had never stopped. What it was told is kept by whoever told it,
    and comes back with its state: the state itself stays small.
    """

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count architectures never returned before; fewer where the space is used up."""
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn the outcome of trials asked for earlier, complete, rejected or failed."""
        ...

    def state(self) -> bytes:
        """Return what `restore` needs besides what the algorithm was told."""
        ...

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from what `state` returned, on an algorithm built with the same arguments.

        Args:
            state: What `state` returned.
            told: The trials that it had been told of by then, in order.
            pending: Architectures that it had asked for and not been told of, in order.
        """
        ...
