"""The primitives that only a supernet has: a network that holds every option of its choices at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.core.errors import NetworkError
from controller.core.network import Network
from controller.core.primitives import Primitive, Shape

AUXILIARY = "auxiliary"
"""What the additional input of a mixture is called, which is no option of its choice."""


@dataclass(frozen=True, slots=True)
class Mixture(Primitive):
    """A weighted sum of tensors of one shape; the coefficients come from outside.

    Attributes:
        name: By which the coefficients are given; layers of one name share them.
        terms: What each input is: an option of the choice `name`, or a mixture further in.
    """

    name: str
    terms: tuple[str, ...]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the common shape."""
        if len(inputs) != len(self.terms) or len(set(inputs)) != 1:
            raise NetworkError(
                f"mixture {self.name} of {len(self.terms)} terms has input shapes {list(inputs)}; expected as many equal ones"
            )
        return inputs[0]


@dataclass(frozen=True, slots=True)
class ChannelSlice(Primitive):
    """The channels from start up to stop."""

    start: int
    stop: int

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (stop - start, height, width)."""
        ((channels, height, width),) = inputs
        if not 0 <= self.start < self.stop <= channels:
            raise NetworkError(
                f"channels {self.start} to {self.stop} are not within the {channels} of the input"
            )
        return (self.stop - self.start, height, width)


@dataclass(frozen=True, slots=True)
class ShuffledConcat(Primitive):
    """Images one after the other along the channels, which then are dealt out to as many parts in turn.

    Source: Zhang et al. 2018, ShuffleNet, section 3.1.
    """

    parts: int

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (sum of channels, height, width)."""
        channels = sum(shape[0] for shape in inputs)
        if len({shape[1:] for shape in inputs}) != 1 or channels % self.parts:
            raise NetworkError(
                f"images {list(inputs)} cannot be joined in {self.parts} parts; expected one size, and channels that divide"
            )
        return (channels, *inputs[0][1:])


def mixtures(network: Network) -> Mapping[str, tuple[str, ...]]:
    """Return the terms of each mixture of a network by its name."""
    return {
        layer.primitive.name: layer.primitive.terms
        for layer in network.layers
        if isinstance(layer.primitive, Mixture)
    }
