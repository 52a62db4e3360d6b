"""Blocks that are wide inside and narrow at their ends."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import (
    Add,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    ReLU,
    Scale,
    Sigmoid,
)

_SQUEEZE = 4  # how many times fewer features the gates are computed from


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertedResidual:
    """A pointwise expansion, a depthwise convolution, and a linear projection; plus the input where shapes agree.

    Attributes:
        kernel_size: Of the depthwise convolution.
        expansion: How many times more channels there are inside; 1 leaves the first convolution out.
        squeeze_excite: Whether each channel inside is scaled by a gate computed from the means of all.

    Source: Sandler et al. 2018, MobileNetV2, section 3.3; the gates from Hu et al. 2018, Squeeze-and-Excitation.
    We differ in the activation: ReLU rather than ReLU6, which guards fixed-point arithmetic that we do not use.
    """

    kernel_size: int = 3
    expansion: int = 6
    squeeze_excite: bool = False
    keeps_channels: bool = False
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `expand`, `depthwise` and `project` with their norms, the gates, and `residual`."""
        in_channels = builder.shape(source)[0]
        inner = in_channels * self.expansion
        value = source
        if self.expansion > 1:
            value = builder.add("expand", Conv2d(inner, 1), value)
            value = builder.add("expand_relu", ReLU(), builder.add("expand_bn", BatchNorm2d(), value))
        value = builder.add("depthwise", Conv2d(inner, self.kernel_size, stride=stride, groups=inner), value)
        value = builder.add("depthwise_relu", ReLU(), builder.add("depthwise_bn", BatchNorm2d(), value))
        if self.squeeze_excite:
            value = _gated(builder, value)
        value = builder.add(
            "project_bn", BatchNorm2d(), builder.add("project", Conv2d(out_channels, 1), value)
        )
        if builder.shape(value) != builder.shape(source):
            return value
        return builder.add("residual", Add(), value, source)


def _gated(builder: NetworkBuilder, source: str) -> str:
    channels = builder.shape(source)[0]
    means = builder.add("squeeze", GlobalAvgPool2d(), source)
    reduced = builder.add("reduce", Linear(max(1, channels // _SQUEEZE)), means)
    excited = builder.add("excite", Linear(channels), builder.add("reduce_relu", ReLU(), reduced))
    return builder.add("scale", Scale(), source, builder.add("gate", Sigmoid(), excited))
