"""Pooling over 3×3 windows."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """A maximum or a mean over 3×3 windows.

    Attributes:
        primitive: Which of them.
        keeps_channels: False to bring the result to the channels wanted, by a pointwise convolution where they differ.
    """

    primitive: type[MaxPool2d | AvgPool2d]
    keeps_channels: bool = True
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `pool`, and `conv` and `bn` where it projects."""
        pooled = builder.add("pool", self.primitive(3, stride=stride), source)
        if self.keeps_channels or builder.shape(source)[0] == out_channels:
            return pooled
        return builder.add("bn", BatchNorm2d(), builder.add("conv", Conv2d(out_channels, 1), pooled))
