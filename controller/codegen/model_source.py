"""The source of a network's classes, ready for the template of model.py."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.codegen.layout import LINE_LENGTH, bracketed
from controller.codegen.passes.describe import summary
from controller.codegen.passes.forward import forward_body, network_body
from controller.codegen.passes.naming import class_names, input_names
from controller.codegen.passes.numbers import Numbers, class_numbers
from controller.codegen.passes.structure import BlockForm, BlockUse, LayerForm, block_uses
from controller.core.network import INPUT, Network
from controller.core.primitives import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Primitive,
    Resize,
    SelfAttention,
)

NETWORK_INPUT = "images"
_POSITIONAL = ("in_channels", "out_channels", "channels", "in_features", "out_features", "features")
_TENSOR = "torch.Tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSource:
    """One class of model.py, as text. Lines carry no margin of their own but where they are continued.

    Attributes:
        name: Its name.
        docstring: Lines of it, without quotes.
        init: The constructor's head; None where the class needs no constructor.
        submodules: The constructor's assignments.
        forward: The forward method's head.
        body: The forward method's statements.
    """

    name: str
    docstring: tuple[str, ...]
    init: str | None
    submodules: tuple[str, ...]
    forward: str
    body: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """All classes of model.py, as text.

    Attributes:
        attends: Whether a class uses `SelfAttention`, which torch.nn does not have without projections.
        classes: One a distinct structure, in the order in which the network uses them.
        class_of: Class name by block.
        submodules: Assignments of the network's constructor, one a block.
        body: The network's forward method's statements.
    """

    attends: bool
    classes: tuple[ClassSource, ...]
    class_of: Mapping[str, str]
    submodules: tuple[str, ...]
    body: tuple[str, ...]


def model_source(network: Network) -> ModelSource:
    """Return the source that makes a module whose state dict has the searched module's keys.

    Raises:
        NetworkError: If the network cannot be written as one method call a block.
    """
    uses = block_uses(network)
    groups: dict[BlockForm, list[BlockUse]] = {}
    for use in uses:
        groups.setdefault(use.form, []).append(use)
    classes = []
    class_of, instances = {}, {}
    for name, (form, group) in zip(class_names(list(groups)), groups.items(), strict=True):
        numbers = class_numbers(group, gives_logits=group == [uses[-1]])
        classes.append(_class(name, form, numbers))
        for index, use in enumerate(group):
            class_of[use.block.name] = name
            instances[use.block.name] = _instance(use.block.name, name, numbers, index)
    sources = {
        use.block.name: [None if source == INPUT else source.split(".")[0] for source in use.sources]
        for use in uses
    }
    return ModelSource(
        attends=any(isinstance(layer.primitive, SelfAttention) for layer in network.layers),
        classes=tuple(classes),
        class_of=class_of,
        submodules=tuple(instances[use.block.name] for use in uses),
        body=network_body(sources, NETWORK_INPUT),
    )


def _instance(block: str, class_name: str, numbers: Numbers, index: int) -> str:
    arguments = [
        str(parameter.values[index])
        if parameter.name in _POSITIONAL
        else f"{parameter.name}={parameter.values[index]}"
        for parameter in numbers.parameters
        if parameter.values[index] != parameter.default
    ]
    return bracketed(f"self.{block} = {class_name}(", arguments, ")", indent=8)


def _class(name: str, form: BlockForm, numbers: Numbers) -> ClassSource:
    parameters = [
        f"{parameter.name}: int" + ("" if parameter.default is None else f" = {parameter.default}")
        for parameter in numbers.parameters
    ]
    submodules = tuple(_submodule(layer, numbers) for layer in form.layers if layer.primitive in _MODULES)
    tensors = [f"{tensor}: {_TENSOR}" for tensor in input_names(form)]
    return ClassSource(
        name=name,
        docstring=_docstring(summary(form, numbers)),
        init=bracketed("def __init__(", ["self", *parameters], ") -> None:", indent=4)
        if submodules
        else None,
        submodules=submodules,
        forward=bracketed("def forward(", ["self", *tensors], f") -> {_TENSOR}:", indent=4),
        body=forward_body(form),
    )


def _docstring(sentence: str) -> tuple[str, ...]:
    room = LINE_LENGTH - len("    " + '"""' * 2)
    return (sentence,) if len(sentence) <= room else (*textwrap.wrap(sentence, room), "")


def _submodule(layer: LayerForm, numbers: Numbers) -> str:
    constructor, arguments = _MODULES[layer.primitive]
    fields = {field: value for (name, field), value in numbers.fields.items() if name == layer.name}
    return bracketed(f"self.{layer.name} = {constructor}(", arguments(fields), ")", indent=8)


Fields = Mapping[str, str]


def _convolution(fields: Fields) -> list[str]:
    return [
        fields["in_channels"],
        fields["out_channels"],
        fields["kernel_size"],
        *_unless("stride", fields["stride"], "1"),
        *_unless("padding", _padding(fields["kernel_size"], fields["dilation"]), "0"),
        *_unless("dilation", fields["dilation"], "1"),
        *_unless("groups", fields["groups"], "1"),
        "bias=False",
    ]


def _pool(fields: Fields) -> list[str]:
    # The stride is written even if 1: these modules take their kernel size for it otherwise.
    padding = _unless("padding", _padding(fields["kernel_size"], "1"), "0")
    return [fields["kernel_size"], f"stride={fields['stride']}", *padding]


def _unless(name: str, value: str, default: str) -> Sequence[str]:
    return () if value == default else (f"{name}={value}",)


def _padding(kernel_size: str, dilation: str) -> str:
    """Return the expression of the padding that keeps the size, reduced where it is known."""
    if not kernel_size.isdigit():
        return f"{kernel_size} // 2" if dilation == "1" else f"{dilation} * ({kernel_size} // 2)"
    border = int(kernel_size) // 2
    if dilation.isdigit():
        return str(border * int(dilation))
    return {0: "0", 1: dilation}.get(border, f"{border} * {dilation}")


_MODULES: Mapping[type[Primitive], tuple[str, Callable[[Fields], list[str]]]] = {
    Conv2d: ("nn.Conv2d", _convolution),
    BatchNorm2d: ("nn.BatchNorm2d", lambda fields: [fields["out_channels"]]),
    MaxPool2d: ("nn.MaxPool2d", _pool),
    AvgPool2d: ("nn.AvgPool2d", lambda fields: [*_pool(fields), "count_include_pad=False"]),
    GlobalAvgPool2d: ("nn.AdaptiveAvgPool2d", lambda _: ["1"]),
    Linear: ("nn.Linear", lambda fields: [fields["in_channels"], fields["out_channels"]]),
    SelfAttention: ("SelfAttention", lambda fields: [f"heads={fields['heads']}"]),
    Resize: ("nn.Upsample", lambda fields: [f"({fields['height']}, {fields['width']})", 'mode="bilinear"']),
}
"""Primitives that are a submodule, not just a line of the forward method: their class."""
