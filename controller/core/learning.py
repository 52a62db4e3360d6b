"""What an algorithm that trains something of its own may use, and how an algorithm tells what it learns.

One that trains learns before it asks for anything, step by step, so that each step is saved as soon as it is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from controller.core.architecture import ChoiceValue
from controller.core.network import Network
from controller.core.protocols import SearchAlgorithm, SearchSpace

FloatVector = npt.NDArray[np.float64]
Coefficients = Mapping[str, FloatVector]
"""A coefficient for each term of each mixture, by the mixture's name."""


@runtime_checkable
class MixableSpace(SearchSpace, Protocol):
    """A space that has a supernet."""

    def mixed(self, part: int = 1) -> Network:
        """Return a network with every option of the choices that its mixtures are named after.

        Args:
            part: One in so many channels goes through the operations, where that divides them.
        """
        ...

    def mixed_sizes(self) -> Mapping[str, ChoiceValue]:
        """Return the options that the supernet has of choices that it does not mix."""
        ...

    def bounds(self) -> Mapping[str, float]:
        """Return what no network of the space has more of, by the metric that analysis tells."""
        ...


class Supernet(Protocol):
    """A network with mixtures, in training."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of weights, and of mixtures, that go once through the images."""
        ...

    def begin_epoch(self) -> None:
        """Go through the images anew."""
        ...

    def train_weights(self, coefficients: Coefficients, progress: float) -> float:
        """Take one step on the weights, and return the loss before it.

        Args:
            coefficients: Of each mixture.
            progress: How much of all training is done, from 0 to 1: the learning rate comes down with it.
        """
        ...

    def gradient(self, coefficients: Coefficients, *, unrolled: bool) -> Coefficients:
        """Return the gradient of the loss on other images by the coefficients; unrolled: one step of weights ahead."""
        ...

    def losses(self, samples: Sequence[Coefficients]) -> list[float]:
        """Return the loss with each of several coefficients, all on the same batch of other images."""
        ...

    def loss(self, coefficients: Coefficients) -> tuple[float, float]:
        """Return loss and accuracy on images that weights do not learn from, always the same."""
        ...

    def state(self) -> bytes:
        """Return what `restore` needs, between epochs."""
        ...

    def restore(self, state: bytes) -> None:
        """Continue from what `state` returned."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of a network goes on a device, at the device's usual speed as far as it can tell.

    Attributes:
        latency_ms: Median of the whole network.
        layers_ms: Time of each layer that the device tells of, by the network's name of it; what the runtime merged
            stands under the last of the layers merged.
    """

    latency_ms: float
    layers_ms: Mapping[str, float]


class Laboratory(Protocol):
    """Trains and measures for an algorithm."""

    def supernet(self, network: Network) -> Supernet:
        """Return an untrained supernet."""
        ...

    def profile(self, network: Network, device: str) -> Profile:
        """Return what a device measures of a network with random weights.

        Raises:
            DeviceError: If it cannot.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningStep:
    """What came of one step of an algorithm's own learning.

    Attributes:
        activity: What was done, in a few words.
        number: Of the step, from 1.
        curves: What is worth a curve, by name, e.g. `alpha_entropy`.
    """

    activity: str
    number: int
    curves: Mapping[str, float]


@runtime_checkable
class LearningAlgorithm(SearchAlgorithm, Protocol):
    """A search algorithm that learns before it asks."""

    def learn(self, laboratory: Laboratory, spent: float) -> LearningStep | None:
        """Take one step of learning; None where there is none left.

        Args:
            laboratory: What it may use.
            spent: Share of the search's time that is spent, 0 where the budget is no time.
        """
        ...


@runtime_checkable
class CurvedAlgorithm(SearchAlgorithm, Protocol):
    """A search algorithm that shows how its learning goes while it is told."""

    @property
    def points(self) -> Mapping[str, float]:
        """What the last trial told adds to the run's curves, by curve, e.g. `reward`."""
        ...
