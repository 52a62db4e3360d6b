"""The one intermediate form: a graph of primitive layers with inferred shapes.

Layers are grouped into blocks. A block is what a person would name when reading the network: the stem,
one layer of the search space, the head. Its name becomes an attribute of the generated model, so that
`layer_2.conv` is at once a layer's name here, a submodule there and a key of the state dict.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from math import prod

from controller.core.errors import NetworkError
from controller.core.primitives import Add, BatchNorm2d, Primitive, ReLU, Scale, Shape, Sigmoid

INPUT = "input"
"""The name by which layers refer to the network's input."""

_BYTES_PER_VALUE = 4
_IN_PLACE = (BatchNorm2d, ReLU, Sigmoid, Scale, Add)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One primitive at its place in a network.

    Attributes:
        name: `BLOCK.LOCAL_NAME`, unique in the network.
        block_kind: What the block is, e.g. `sep_conv3x3`; equal for blocks that do the same.
        primitive: What the layer does.
        inputs: Names of the layers it reads, or `INPUT`.
        input_shapes: Their shapes, without the batch axis.
        shape: The output's shape, without the batch axis.
    """

    name: str
    block_kind: str
    primitive: Primitive
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    shape: Shape

    @property
    def block(self) -> str:
        """Name of the block the layer belongs to."""
        return self.name.split(".")[0]

    @property
    def local_name(self) -> str:
        """Name within the block."""
        return self.name.split(".")[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example."""
        return self.primitive.macs(self.input_shapes)

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return self.primitive.parameters(self.input_shapes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Consecutive layers that a person would name as one."""

    name: str
    kind: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Primitive layers in topological order; the last one gives the logits.

    Attributes:
        input_shape: (channels, height, width).
        layers: In the order in which they run; each block's layers are consecutive.
    """

    input_shape: Shape
    layers: tuple[Layer, ...]

    @property
    def output(self) -> Layer:
        """The layer that gives the logits."""
        return self.layers[-1]

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The layers by block, in order."""
        groups = groupby(self.layers, key=lambda layer: layer.block)
        return tuple(
            Block(name=name, kind=layers[0].block_kind, layers=layers)
            for name, layers in ((name, tuple(group)) for name, group in groups)
        )

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions, linear layers and attention, for one example."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def peak_activation_bytes(self) -> int:
        """Largest sum of the float32 tensors alive at one time, for one example.

        A tensor lives from the layer that makes it to the last one that reads it. What works value by value does
        so in place, on an input that nothing reads later, as runtimes do.
        """
        last_use = {name: index for index, layer in enumerate(self.layers) for name in layer.inputs}
        alive = {INPUT: prod(self.input_shape)}
        peak = total = alive[INPUT]
        for index, layer in enumerate(self.layers):
            dying = {name for name in layer.inputs if last_use[name] == index}
            in_place = isinstance(layer.primitive, _IN_PLACE) and bool(dying)
            size = prod(layer.shape)
            scratch = layer.primitive.scratch_values(layer.input_shapes)
            peak = max(peak, total + (0 if in_place else size) + scratch)
            total += size - sum(alive.pop(name) for name in dying)
            alive[layer.name] = size
        return peak * _BYTES_PER_VALUE


@dataclass(kw_only=True)
class NetworkBuilder:
    """Builds a network layer by layer, inferring shapes.

    Args:
        input_shape: (channels, height, width).

    Raises:
        NetworkError: If input_shape is not three positive sizes.
    """

    input_shape: Shape
    _layers: dict[str, Layer] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)
    _block: tuple[str, str] | None = None
    _prefix: str = ""

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise NetworkError(
                f"input shape {self.input_shape} is not (channels, height, width), each at least 1"
            )

    @contextmanager
    def block(self, name: str, kind: str) -> Iterator[None]:
        """Put the layers added inside into the block `name`; names are Python identifiers.

        Raises:
            NetworkError: If name is no identifier or was used before, or if blocks are nested.
        """
        if not name.isidentifier() or self._block or name in self._used:
            raise NetworkError(f"block name {name!r} is not a new Python identifier outside any other block")
        self._block = (name, kind)
        self._used.add(name)
        yield
        self._block = None

    @contextmanager
    def prefix(self, name: str) -> Iterator[None]:
        """Put `name_` before the local names of the layers added inside, so that a block can hold equal parts."""
        before, self._prefix = self._prefix, f"{self._prefix}{name}_"
        yield
        self._prefix = before

    def free(self, name: str) -> str:
        """Return name, or it with a number behind it where the current block has a layer of that name."""
        block = self._block[0] if self._block else ""
        tries = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        return next(found for found in tries if f"{block}.{self._prefix}{found}" not in self._layers)

    def add(self, name: str, primitive: Primitive, *inputs: str) -> str:
        """Add a layer to the current block and return its full name.

        Args:
            name: Local name, unique within the block.
            primitive: What the layer does.
            inputs: Full names of the layers it reads, or `INPUT`.

        Raises:
            NetworkError: If the shapes do not fit or the name is taken.
        """
        if self._block is None:
            raise NetworkError(f"layer {name!r} is outside any block")
        block, kind = self._block
        full_name = f"{block}.{self._prefix}{name}"
        if full_name in self._layers:
            raise NetworkError(f"layer {full_name!r} exists already")
        input_shapes = tuple(self.shape(source) for source in inputs)
        self._layers[full_name] = Layer(
            name=full_name,
            block_kind=kind,
            primitive=primitive,
            inputs=inputs,
            input_shapes=input_shapes,
            shape=primitive.output_shape(input_shapes),
        )
        return full_name

    def shape(self, name: str) -> Shape:
        """Return the shape of a layer's output, or of `INPUT`."""
        return self.input_shape if name == INPUT else self._layers[name].shape

    def build(self) -> Network:
        """Return the network.

        Raises:
            NetworkError: If it has no layers.
        """
        if not self._layers:
            raise NetworkError("the network has no layers")
        return Network(input_shape=self.input_shape, layers=tuple(self._layers.values()))


LAYER_FIGURES: Mapping[str, Callable[[Layer], float]] = {
    "params_m": lambda layer: layer.parameters / 1e6,
    "macs_m": lambda layer: layer.macs / 1e6,
}
"""What a network's layers add up to, by metric name."""


def analyse(network: Network) -> dict[str, float]:
    """Return the figures that a network's graph tells, by metric name."""
    return {
        "params_m": network.parameters / 1e6,
        "macs_m": network.macs / 1e6,
        "peak_activation_mb": network.peak_activation_bytes / 1e6,
    }
