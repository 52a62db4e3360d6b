"""Which values of a block have the same number of channels whatever that number is."""

from collections.abc import Sequence

from controller.codegen.passes.structure import BlockUse, LayerForm, Source
from controller.core.network import Layer
from controller.core.primitives import Add, Conv2d, Linear, Scale, SelfAttention

Values = tuple[int, ...]
"""A number's value in each block of a class."""


def layer_in(use: BlockUse, name: str) -> Layer:
    """Return the block's layer of this local name."""
    return next(layer for layer in use.block.layers if layer.local_name == name)


def widths(uses: Sequence[BlockUse], source: Source) -> Values:
    """Return the channels, or features, of a value in each block."""
    return tuple(
        use.shapes[source][0] if isinstance(source, int) else layer_in(use, source).shape[0] for use in uses
    )


def shared_channels(uses: Sequence[BlockUse]) -> dict[Source, Source]:
    """Return for each value of the blocks the first value that shares its number of channels.

    Layers that keep their input's channels share them, and so do the operands of a sum, and an image and its
    factors.

    Args:
        uses: Blocks of one form.
    """
    form = uses[0].form
    parent: dict[Source, Source] = {index: index for index in range(len(form.input_ranks))}

    def root(source: Source) -> Source:
        while parent[source] != source:
            source = parent[source]
        return source

    for layer in form.layers:
        if layer.primitive in (Add, Scale):
            first, *others = sorted({root(source) for source in layer.inputs}, key=list(parent).index)
            parent.update(dict.fromkeys(others, first))
        parent[layer.name] = root(layer.inputs[0]) if _keeps_channels(layer, uses) else layer.name
    return {source: root(source) for source in parent}


def _keeps_channels(layer: LayerForm, uses: Sequence[BlockUse]) -> bool:
    if layer.primitive is Conv2d:
        return is_depthwise(layer, uses) and widths(uses, layer.name) == widths(uses, layer.inputs[0])
    return layer.primitive not in (Linear, SelfAttention)


def is_depthwise(layer: LayerForm, uses: Sequence[BlockUse]) -> bool:
    """Return whether a convolution has one group a channel in every block, and not just one in all."""
    groups = tuple(
        conv.groups for use in uses if isinstance(conv := layer_in(use, layer.name).primitive, Conv2d)
    )
    return set(groups) != {1} and groups == widths(uses, layer.inputs[0])
