"""Convolutions that filter each channel on its own."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import BatchNorm2d, Conv2d, ReLU


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseConvolution:
    """A 3×3 filter for each channel, then batch norm."""

    keeps_channels: bool = True
    activated: bool = True

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `conv` and `bn`."""
        channels = builder.shape(source)[0]
        conv = Conv2d(channels, 3, stride=stride, groups=channels)
        return builder.add("bn", BatchNorm2d(), builder.add("conv", conv, source))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparableConvolution:
    """A depthwise convolution and a pointwise one, each with batch norm.

    Source: Howard et al. 2017, MobileNets, section 3.1.
    """

    kernel_size: int = 3
    keeps_channels: bool = False
    activated: bool = True

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `depthwise`, `depthwise_bn`, `depthwise_relu`, `pointwise` and `pointwise_bn`."""
        channels = builder.shape(source)[0]
        filters = Conv2d(channels, self.kernel_size, stride=stride, groups=channels)
        depthwise = builder.add("depthwise", filters, source)
        normalised = builder.add("depthwise_bn", BatchNorm2d(), depthwise)
        activated = builder.add("depthwise_relu", ReLU(), normalised)
        pointwise = builder.add("pointwise", Conv2d(out_channels, 1), activated)
        return builder.add("pointwise_bn", BatchNorm2d(), pointwise)
