"""The operations that a space chooses from, each lowered to primitive layers; one file a family.

Third parties add theirs through the entry-point group `edgenas.operations`.
"""

from collections.abc import Mapping

from controller.spaces.operations.base import Operation
from controller.spaces.operations.convolution import Convolution
from controller.spaces.operations.identity import SkipConnect
from controller.spaces.operations.pooling import AvgPool, MaxPool
from controller.spaces.operations.separable import DepthwiseConvolution, SeparableConvolution

ZERO = "zero"
"""Prunes the layer: it is the absence of an operation, so nothing lowers it."""

OPERATIONS: Mapping[str, Operation] = {
    "conv3x3": Convolution(kernel_size=3),
    "conv5x5": Convolution(kernel_size=5),
    "depthwise_conv": DepthwiseConvolution(),
    "max_pool": MaxPool(),
    "avg_pool": AvgPool(),
    "skip_connect": SkipConnect(),
    "sep_conv3x3": SeparableConvolution(),
    "dil_conv3x3": Convolution(kernel_size=3, dilation=2),
    "conv1x1": Convolution(kernel_size=1),
}

__all__ = ["OPERATIONS", "ZERO", "Operation"]
