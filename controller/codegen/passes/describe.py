"""One sentence that says what a class computes."""

from collections.abc import Callable, Mapping

from controller.codegen.passes.numbers import Numbers
from controller.codegen.passes.structure import BlockForm, LayerForm, Source
from controller.core.primitives import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Primitive,
    ReLU,
    Resize,
    Scale,
    SelfAttention,
    Sigmoid,
)


def summary(form: BlockForm, numbers: Numbers) -> str:
    """Return what a block does along its main path, e.g. `3x3 convolution, batch norm, ReLU.`."""
    main = form.main_path()
    names = {layer.name for layer in main}
    words: list[str] = []
    for layer in main:
        if layer.primitive is Add:
            added = " and ".join(_operand(form, operand, names) for operand in layer.inputs[1:])
            words.append(f"plus {added}" if words else f"the input plus {added}")
        else:
            words.append(_WORDS[layer.primitive](layer, numbers))
    sentence = ", ".join(words)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _window(layer: LayerForm, numbers: Numbers) -> str:
    size = numbers.fields[layer.name, "kernel_size"]
    return f"{size}x{size} " if size.isdigit() else ""


def _convolution(layer: LayerForm, numbers: Numbers) -> str:
    groups, dilation = (numbers.fields[layer.name, field] for field in ("groups", "dilation"))
    words = [
        "dilated " if dilation != "1" else "",
        {"1": "", numbers.fields[layer.name, "in_channels"]: "depthwise "}.get(groups, "grouped "),
    ]
    return f"{_window(layer, numbers)}{''.join(words)}convolution"


_WORDS: Mapping[type[Primitive], Callable[[LayerForm, Numbers], str]] = {
    Conv2d: _convolution,
    BatchNorm2d: lambda _layer, _numbers: "batch norm",
    ReLU: lambda _layer, _numbers: "ReLU",
    MaxPool2d: lambda layer, numbers: f"{_window(layer, numbers)}max pooling",
    AvgPool2d: lambda layer, numbers: f"{_window(layer, numbers)}average pooling",
    GlobalAvgPool2d: lambda _layer, _numbers: "mean over all pixels",
    Linear: lambda _layer, _numbers: "linear layer",
    Sigmoid: lambda _layer, _numbers: "sigmoid",
    Scale: lambda _layer, _numbers: "each channel times its gate",
    SelfAttention: lambda _layer, _numbers: "self-attention between pixels",
    Resize: lambda _layer, _numbers: "bilinear resize",
}


def _operand(form: BlockForm, operand: Source, main: set[str]) -> str:
    """Return what a sum adds to the main path."""
    how = ""
    while isinstance(operand, str):
        if operand in main:
            return "an earlier value" if not how else "a branch of an earlier value"
        how = "projected "
        operand = form.layer(operand).inputs[0]
    return f"the {how}input" if operand == 0 else f"a {how}skip connection"
