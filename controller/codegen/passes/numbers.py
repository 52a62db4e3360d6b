"""Which numbers of a class are constructor parameters, and how each layer's numbers follow from them.

A stride is a parameter where any block has one, for it is what a reader of the network looks for. Any other
number is written out where all blocks of the class agree. Every expression equals the layer's number in
every block: that is how it was chosen.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.codegen.passes.channels import Values, is_depthwise, layer_in, shared_channels, widths
from controller.codegen.passes.naming import RESERVED, fresh, input_names, subject
from controller.codegen.passes.structure import BlockForm, BlockUse, LayerForm, Source
from controller.core.primitives import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool2d,
    Primitive,
    Resize,
    SelfAttention,
)

_CHANNELS: Mapping[type[Primitive], tuple[str, ...]] = {
    Conv2d: ("in_channels", "out_channels"),
    BatchNorm2d: ("out_channels",),
    Linear: ("in_channels", "out_channels"),
}
_FIELDS: Mapping[type[Primitive], tuple[str, ...]] = {
    Conv2d: ("kernel_size", "stride", "dilation", "groups"),
    MaxPool2d: ("kernel_size", "stride"),
    AvgPool2d: ("kernel_size", "stride"),
    SelfAttention: ("heads",),
    Resize: ("height", "width"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A constructor parameter of a class.

    Attributes:
        name: Its name.
        values: Its value in each block of the class.
        default: What it is when not given.
    """

    name: str
    values: Values
    default: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """All numbers of a class.

    Attributes:
        parameters: What its constructor takes: channels first, those with a default last.
        fields: Expression for a layer's number, by (local name, field).
    """

    parameters: tuple[Parameter, ...]
    fields: Mapping[tuple[str, str], str]


def class_numbers(uses: Sequence[BlockUse], *, gives_logits: bool) -> Numbers:
    """Return the numbers of the class that these blocks share.

    Args:
        uses: Blocks of one form.
        gives_logits: Whether the class's output is the network's.
    """
    form = uses[0].form
    parameters: dict[str, Parameter] = {}
    channels = _channels(uses, parameters, gives_logits=gives_logits)
    fields = {}
    for layer in form.layers:
        ends = {"in_channels": channels[layer.inputs[0]], "out_channels": channels[layer.name]}
        for name in _CHANNELS.get(layer.primitive, ()):
            fields[layer.name, name] = ends[name]
    for layer in form.layers:
        for name in _FIELDS.get(layer.primitive, ()):
            if name == "groups" and is_depthwise(layer, uses):
                fields[layer.name, name] = channels[layer.inputs[0]]
            else:
                fields[layer.name, name] = _number(layer, name, uses, parameters)
    used = set(re.findall(r"\w+", " ".join(fields.values())))
    kept = [parameter for parameter in parameters.values() if parameter.name in used]
    kept.sort(key=lambda parameter: parameter.default is not None)
    return Numbers(parameters=tuple(kept), fields=fields)


def _number(layer: LayerForm, field: str, uses: Sequence[BlockUse], parameters: dict[str, Parameter]) -> str:
    values = tuple(getattr(layer_in(use, layer.name).primitive, field) for use in uses)
    if len(set(values)) == 1 and (field != "stride" or values[0] == 1):
        return str(values[0])
    for same in parameters.values():
        if same.name.endswith(field) and same.values == values:
            return same.name
    on_main_path = layer in uses[0].form.main_path()
    name = field if on_main_path and field not in parameters else f"{subject(layer.name)}_{field}"
    return _add(parameters, name, values, default=1 if field == "stride" else None)


def _add(parameters: dict[str, Parameter], name: str, values: Values, default: int | None = None) -> str:
    name = fresh(name, {*parameters, *RESERVED})
    parameters[name] = Parameter(name=name, values=values, default=default)
    return name


def _channels(
    uses: Sequence[BlockUse], parameters: dict[str, Parameter], *, gives_logits: bool
) -> dict[Source, str]:
    """Return an expression for the channels of each value, and add what they need to parameters."""
    form = uses[0].form
    roots = shared_channels(uses)
    first, last = roots[0], roots[form.output.name]
    expressions: dict[Source, str] = {}
    for root in dict.fromkeys((first, last, *roots.values())):
        values = widths(uses, root)
        related = None
        if root not in (first, last) and isinstance(root, str):
            related = _related(values, uses, {source: expressions[source] for source in (last, first)})
        if related is None:
            name = _channels_name(root, form, first, last, gives_logits=gives_logits)
            related = _add(parameters, name, values)
        expressions[root] = related
    return {source: expressions[root] for source, root in roots.items()}


def _related(values: Values, uses: Sequence[BlockUse], ends: Mapping[Source, str]) -> str | None:
    """Return values as one of the block's ends, or as a multiple of one that holds across blocks."""
    for source, expression in ends.items():
        if widths(uses, source) == values:
            return expression
    for source, expression in ends.items():
        widest = widths(uses, source)
        factor = values[0] // widest[0]
        # In a single block, or in blocks that are all alike, any factor would be a coincidence.
        if len(set(widest)) > 1 and values == tuple(factor * width for width in widest):
            return f"{factor} * {expression}"
    return None


def _channels_name(root: Source, form: BlockForm, first: Source, last: Source, *, gives_logits: bool) -> str:
    if root == first == last:
        return "features" if form.input_ranks[0] == 1 else "channels"
    if root == first:
        return "in_features" if form.input_ranks[0] == 1 else "in_channels"
    if root == last:
        if gives_logits:
            return "num_classes"
        return "out_features" if form.output.rank == 1 else "out_channels"
    if isinstance(root, int):
        return f"{input_names(form)[root]}_channels"
    return f"{subject(root)}_channels"
