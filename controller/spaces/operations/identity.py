"""Passing the input on."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import BatchNorm2d, Conv2d


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipConnect:
    """The input itself; where it has to shrink, a strided pointwise projection of it."""

    keeps_channels: bool = True
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add nothing at stride 1, else `conv` and `bn`."""
        if stride == 1:
            return source
        conv = Conv2d(builder.shape(source)[0], 1, stride=stride)
        return builder.add("bn", BatchNorm2d(), builder.add("conv", conv, source))
