"""Operations that look at the whole image at once."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import Add, BatchNorm2d, Conv2d, ReLU, SelfAttention

_HEAD_CHANNELS = 16  # of a head, as near as the channels divide
_MLP_EXPANSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Self-attention between pixels, added to its input; a 3×3 convolution first where the shape has to change.

    Where pixels are is left to the convolutions around it, whose padding tells.

    Source: Vaswani et al. 2017, section 3.2; batch norm in place of layer norm, which runtimes fold into the
    convolution beside it, from Graham et al. 2021, LeViT, section 4; the convolution from Wu et al. 2021, CvT.
    """

    keeps_channels: bool = False
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `embed` where needed, then `norm`, `qkv`, `attention`, `projection` and `attended`."""
        value = source
        if stride > 1 or builder.shape(source)[0] != out_channels:
            embedded = builder.add("embed", Conv2d(out_channels, 3, stride=stride), source)
            value = builder.add("embed_bn", BatchNorm2d(), embedded)
        qkv = builder.add("qkv", Conv2d(3 * out_channels, 1), builder.add("norm", BatchNorm2d(), value))
        mixed = builder.add("attention", SelfAttention(_heads(out_channels)), qkv)
        projected = builder.add("projection", Conv2d(out_channels, 1), mixed)
        return builder.add("attended", Add(), builder.add("projection_bn", BatchNorm2d(), projected), value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformer:
    """Self-attention, then two pointwise convolutions, each added to its input.

    Source: Vaswani et al. 2017, section 3; the width of the convolutions from Graham et al. 2021, LeViT, section 4.
    """

    keeps_channels: bool = False
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add what attention adds, then `widen`, `narrow` and `residual`."""
        value = Attention().lower(builder, source, out_channels, stride)
        wide = builder.add("widen", Conv2d(_MLP_EXPANSION * out_channels, 1), value)
        wide = builder.add("widen_relu", ReLU(), builder.add("widen_bn", BatchNorm2d(), wide))
        narrow = builder.add("narrow", Conv2d(out_channels, 1), wide)
        return builder.add("residual", Add(), builder.add("narrow_bn", BatchNorm2d(), narrow), value)


def _heads(channels: int) -> int:
    """Return how many heads share the channels equally, each of about `_HEAD_CHANNELS`."""
    wanted = max(1, channels // _HEAD_CHANNELS)
    return next(heads for heads in range(wanted, 0, -1) if channels % heads == 0)
