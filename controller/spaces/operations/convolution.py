"""Dense convolutions: plain, pointwise and dilated."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import BatchNorm2d, Conv2d


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A convolution over all channels, then batch norm."""

    kernel_size: int
    dilation: int = 1
    keeps_channels: bool = False
    activated: bool = True

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `conv` and `bn`."""
        conv = Conv2d(out_channels, self.kernel_size, stride=stride, dilation=self.dilation)
        return builder.add("bn", BatchNorm2d(), builder.add("conv", conv, source))
