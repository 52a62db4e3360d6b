"""The primitive layers: all that training, export, analysis and code generation know.

A shape is that of one example, without the batch axis: (channels, height, width) or (features,).
Spatial layers have odd kernels and pad to "same", so a stride of s turns n pixels into ceil(n / s).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from controller.core.errors import NetworkError

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Primitive:
    """A layer without its place in a network. By default it keeps its one input's shape and is free."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the output's shape.

        Raises:
            NetworkError: If the inputs' number or shapes do not fit this layer.
        """
        return _single(self, inputs)

    def macs(self, inputs: Sequence[Shape]) -> int:
        """Return multiply-accumulates for one example."""
        return 0

    def parameters(self, inputs: Sequence[Shape]) -> int:
        """Return the number of trainable parameters."""
        return 0

    def scratch_values(self, inputs: Sequence[Shape]) -> int:
        """Return how many values are held while the layer runs, besides its inputs and its output."""
        return 0


@dataclass(frozen=True, slots=True)
class Conv2d(Primitive):
    """A two-dimensional convolution with "same" padding and no bias (a batch norm follows)."""

    out_channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        _check_kernel(self.kernel_size)

    @property
    def padding(self) -> int:
        """Pixels added at each border."""
        return self.dilation * (self.kernel_size // 2)

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (out_channels, ceil(height / stride), ceil(width / stride))."""
        channels, height, width = _image(self, inputs)
        if channels % self.groups or self.out_channels % self.groups:
            raise NetworkError(
                f"convolution from {channels} to {self.out_channels} channels cannot have {self.groups} groups"
            )
        return (self.out_channels, -(-height // self.stride), -(-width // self.stride))

    def macs(self, inputs: Sequence[Shape]) -> int:
        """Return one multiply-accumulate per weight and output pixel."""
        return self.parameters(inputs) * prod(self.output_shape(inputs)[1:])

    def parameters(self, inputs: Sequence[Shape]) -> int:
        """Return the number of weights."""
        return self.kernel_size**2 * (inputs[0][0] // self.groups) * self.out_channels


@dataclass(frozen=True, slots=True)
class BatchNorm2d(Primitive):
    """Batch normalisation with scale and shift. Free: runtimes fold it into the convolution before it."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return _image(self, inputs)

    def parameters(self, inputs: Sequence[Shape]) -> int:
        """Return a scale and a shift per channel."""
        return 2 * _image(self, inputs)[0]


@dataclass(frozen=True, slots=True)
class ReLU(Primitive):
    """Rectified linear unit."""


@dataclass(frozen=True, slots=True)
class Sigmoid(Primitive):
    """Logistic function."""


@dataclass(frozen=True, slots=True)
class _Pool2d(Primitive):
    kernel_size: int
    stride: int = 1

    def __post_init__(self) -> None:
        _check_kernel(self.kernel_size)

    @property
    def padding(self) -> int:
        """Pixels added at each border."""
        return self.kernel_size // 2

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels, ceil(height / stride), ceil(width / stride))."""
        channels, height, width = _image(self, inputs)
        return (channels, -(-height // self.stride), -(-width // self.stride))


@dataclass(frozen=True, slots=True)
class MaxPool2d(_Pool2d):
    """Maximum over a window."""


@dataclass(frozen=True, slots=True)
class AvgPool2d(_Pool2d):
    """Mean over a window; padding does not count."""


@dataclass(frozen=True, slots=True)
class GlobalAvgPool2d(Primitive):
    """Mean over all pixels: (channels, height, width) becomes (channels,)."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels,)."""
        return _image(self, inputs)[:1]


@dataclass(frozen=True, slots=True)
class Resize(Primitive):
    """Bilinear interpolation to another size, pixel centres at half a pixel."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise NetworkError(f"resize to {self.height} x {self.width} pixels; expected at least 1 x 1")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels, height, width)."""
        return (_image(self, inputs)[0], self.height, self.width)


@dataclass(frozen=True, slots=True)
class SelfAttention(Primitive):
    """Scaled dot-product attention of every pixel to every other, in several heads.

    The input's channels are those of the queries, the keys and the values, one after the other, a third each; within
    a third each head has consecutive channels. The layer itself has no weights: projections are convolutions.

    Source: Vaswani et al. 2017, Attention Is All You Need, section 3.2.
    """

    heads: int

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (channels / 3, height, width)."""
        channels, height, width = _image(self, inputs)
        if self.heads < 1 or channels % (3 * self.heads):
            raise NetworkError(
                f"attention in {self.heads} heads has {channels} input channels; expected a multiple of {3 * self.heads}"
            )
        return (channels // 3, height, width)

    def macs(self, inputs: Sequence[Shape]) -> int:
        """Return those of two products of matrices: queries by keys, and weights by values."""
        channels, height, width = self.output_shape(inputs)
        return 2 * (height * width) ** 2 * channels

    def scratch_values(self, inputs: Sequence[Shape]) -> int:
        """Return the size of the attention weights."""
        _, height, width = inputs[0]
        return self.heads * (height * width) ** 2


@dataclass(frozen=True, slots=True)
class Scale(Primitive):
    """An image times one factor a channel: inputs (channels, height, width) and (channels,)."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the image's shape."""
        if len(inputs) != 2 or len(inputs[0]) != 3 or inputs[1] != inputs[0][:1]:
            raise NetworkError(
                f"scaling has input shapes {list(inputs)}; expected (channels, height, width) and (channels,)"
            )
        return inputs[0]


@dataclass(frozen=True, slots=True)
class Linear(Primitive):
    """A fully connected layer with bias."""

    out_features: int

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return (out_features,)."""
        shape = _single(self, inputs)
        if len(shape) != 1:
            raise NetworkError(f"linear layer has input shape {shape}; expected (features,)")
        return (self.out_features,)

    def macs(self, inputs: Sequence[Shape]) -> int:
        """Return one multiply-accumulate per weight."""
        return inputs[0][0] * self.out_features

    def parameters(self, inputs: Sequence[Shape]) -> int:
        """Return weights and biases."""
        return (inputs[0][0] + 1) * self.out_features


@dataclass(frozen=True, slots=True)
class Add(Primitive):
    """Sum of two or more tensors of one shape."""

    def output_shape(self, inputs: Sequence[Shape]) -> Shape:
        """Return the common shape."""
        if len(inputs) < 2 or len(set(inputs)) != 1:
            raise NetworkError(f"sum has input shapes {list(inputs)}; expected two or more equal ones")
        return inputs[0]


def _check_kernel(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise NetworkError(f"layer has kernel_size {kernel_size}; 'same' padding needs an odd one")


def _single(primitive: Primitive, inputs: Sequence[Shape]) -> Shape:
    if len(inputs) != 1:
        raise NetworkError(f"{type(primitive).__name__} has {len(inputs)} inputs; expected one")
    return inputs[0]


def _image(primitive: Primitive, inputs: Sequence[Shape]) -> Shape:
    shape = _single(primitive, inputs)
    if len(shape) != 3:
        raise NetworkError(
            f"{type(primitive).__name__} has input shape {shape}; expected (channels, height, width)"
        )
    return shape
