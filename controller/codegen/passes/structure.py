"""Which blocks are one class: those of one kind whose layers differ in numbers only."""

import keyword
from collections import Counter
from dataclasses import dataclass

from torch import nn

from controller.core.errors import NetworkError
from controller.core.network import INPUT, Block, Layer, Network
from controller.core.primitives import Primitive

Source = int | str
"""What a layer reads: the block's input of that index, or the layer of that local name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerForm:
    """A layer without its numbers.

    Attributes:
        name: Local name.
        primitive: What it does.
        inputs: What it reads.
        rank: Axes of its output, without the batch axis.
    """

    name: str
    primitive: type[Primitive]
    inputs: tuple[Source, ...]
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """A block without its numbers; equal for blocks that one class can stand for.

    Attributes:
        kind: What the block is, e.g. `sep_conv3x3`.
        input_ranks: Axes of each of its inputs, without the batch axis.
        layers: In the order in which they run; the last one is the block's output.
    """

    kind: str
    input_ranks: tuple[int, ...]
    layers: tuple[LayerForm, ...]

    @property
    def output(self) -> LayerForm:
        """The layer whose value the block returns."""
        return self.layers[-1]

    def layer(self, name: str) -> LayerForm:
        """Return the layer of this local name."""
        return next(layer for layer in self.layers if layer.name == name)

    def main_path(self) -> tuple[LayerForm, ...]:
        """Return the layers from the block's input to its output, following first inputs."""
        path = [self.output]
        while isinstance(source := path[-1].inputs[0], str):
            path.append(self.layer(source))
        return tuple(reversed(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockUse:
    """A block, its form, and the layers outside it that it reads.

    Attributes:
        block: The block.
        form: It without its numbers.
        sources: Full names of what it reads, or `INPUT`, each once; an int in the form is an index into them.
        shapes: Shape of each source.
    """

    block: Block
    form: BlockForm
    sources: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def block_uses(network: Network) -> tuple[BlockUse, ...]:
    """Return the network's blocks with their forms, in order.

    Raises:
        NetworkError: If the network cannot be written as one method call a block.
    """
    _check(network)
    return tuple(_use(block) for block in network.blocks)


def _use(block: Block) -> BlockUse:
    local = {layer.name: layer.local_name for layer in block.layers}
    shapes = {
        source: shape for source, shape in _reads(block.layers[0], *block.layers[1:]) if source not in local
    }
    index = {source: position for position, source in enumerate(shapes)}
    layers = tuple(
        LayerForm(
            name=layer.local_name,
            primitive=type(layer.primitive),
            inputs=tuple(local.get(source, index.get(source, 0)) for source in layer.inputs),
            rank=len(layer.shape),
        )
        for layer in block.layers
    )
    form = BlockForm(
        kind=block.kind, input_ranks=tuple(len(shape) for shape in shapes.values()), layers=layers
    )
    return BlockUse(block=block, form=form, sources=tuple(shapes), shapes=tuple(shapes.values()))


def _reads(*layers: Layer) -> list[tuple[str, tuple[int, ...]]]:
    return [pair for layer in layers for pair in zip(layer.inputs, layer.input_shapes, strict=True)]


def _check(network: Network) -> None:
    for repeated in (name for name, n in Counter(block.name for block in network.blocks).items() if n > 1):
        raise NetworkError(f"the layers of block '{repeated}' are not consecutive; build each block at once")
    outputs = {INPUT, *(block.layers[-1].name for block in network.blocks)}
    for layer in network.layers:
        for source in layer.inputs:
            if source not in outputs and source.split(".")[0] != layer.block:
                raise NetworkError(
                    f"layer '{layer.name}' reads '{source}' from inside another block; "
                    f"only a block's last layer can be read from outside"
                )
        for name in (layer.block, layer.local_name):
            if not name.isidentifier() or keyword.iskeyword(name) or hasattr(nn.Module(), name):
                raise NetworkError(
                    f"layer '{layer.name}' cannot be an attribute of a PyTorch module: rename {name!r}"
                )
    read = {source for layer in network.layers for source in layer.inputs} | {network.output.name}
    for unread in (layer.name for layer in network.layers if layer.name not in read):
        raise NetworkError(f"layer '{unread}' is read by no other layer and is not the output; leave it out")
