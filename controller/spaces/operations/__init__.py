"""The operations that a space chooses from, each lowered to primitive layers; one file a family.

Third parties add theirs through the entry-point group `edgenas.operations`.
"""

from collections.abc import Mapping

from controller.core.primitives import AvgPool2d, MaxPool2d
from controller.spaces.operations.attention import Attention, Transformer
from controller.spaces.operations.base import Operation
from controller.spaces.operations.convolution import Convolution
from controller.spaces.operations.identity import SkipConnect
from controller.spaces.operations.inverted_residual import InvertedResidual
from controller.spaces.operations.pooling import Pooling
from controller.spaces.operations.separable import DepthwiseConvolution, SeparableConvolution

ZERO = "zero"
"""Prunes the layer: it is the absence of an operation, so nothing lowers it."""

OPERATIONS: Mapping[str, Operation] = {
    "conv3x3": Convolution(kernel_size=3),
    "conv5x5": Convolution(kernel_size=5),
    "depthwise_conv": DepthwiseConvolution(),
    "max_pool": Pooling(primitive=MaxPool2d),
    "avg_pool": Pooling(primitive=AvgPool2d),
    "skip_connect": SkipConnect(),
    "sep_conv3x3": SeparableConvolution(),
    "dil_conv3x3": Convolution(kernel_size=3, dilation=2),
    "conv1x1": Convolution(kernel_size=1),
    "sep_conv5x5": SeparableConvolution(kernel_size=5),
    "max_pool_3x3": Pooling(primitive=MaxPool2d, keeps_channels=False),
    "avg_pool_3x3": Pooling(primitive=AvgPool2d, keeps_channels=False),
    "inverted_residual": InvertedResidual(),
    "attention": Attention(),
    "transformer": Transformer(),
    # What NAS-Bench-201 calls them.
    "nor_conv_1x1": Convolution(kernel_size=1),
    "nor_conv_3x3": Convolution(kernel_size=3),
}

__all__ = ["OPERATIONS", "ZERO", "Operation"]
