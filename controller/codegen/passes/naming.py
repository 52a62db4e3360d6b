"""Names that a person would choose: of classes, of their parameters, of variables."""

import re
from collections.abc import Collection, Sequence

from controller.codegen.passes.structure import BlockForm, Source
from controller.core.primitives import Add, Conv2d

NETWORK_CLASS = "Net"
RESERVED = frozenset({"self", "torch", "nn", "super"})
"""Names that generated methods read and must not assign."""

_TAKEN = frozenset({NETWORK_CLASS, "SelfAttention", "Path", "None", "True", "False"})
"""Names in model.py that a class must not have."""

_ROLE = re.compile(r"(?<=.)_(conv|bn|relu|pool)\Z")
_COUNTED = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}


def fresh(name: str, taken: Collection[str]) -> str:
    """Return name, or where it is taken, name with the first free number from 2."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def subject(local_name: str) -> str:
    """Return what a layer is about: `skip_1` for `skip_1_conv`, `conv` for `conv`."""
    return _ROLE.sub("", local_name)


def input_names(form: BlockForm) -> tuple[str, ...]:
    """Return the parameters of the class's forward method.

    The first is `x`. Another one is named after the convolution that reads it, and is a `skip` where none does.
    """
    names = ["x"]
    count = len(form.input_ranks)
    for index in range(1, count):
        reader = next(layer for layer in form.layers if index in layer.inputs)
        if reader.primitive is Conv2d and subject(reader.name) != reader.name:
            name = subject(reader.name)
        else:
            name = "skip" if count == 2 else f"skip_{index}"
        names.append(fresh(name, {*names, *RESERVED}))
    return tuple(names)


def class_names(forms: Sequence[BlockForm]) -> tuple[str, ...]:
    """Return one class name a form: its kind and what is added to it, e.g. `SepConv3x3ProjectedSkip`."""
    names: list[str] = []
    for form in forms:
        name = _camel_case(form.kind)
        for sort in (added for added in _added(form) if not name.endswith(added)):
            name += sort
        number, candidate = 1, name
        while candidate in names or candidate in _TAKEN:
            number += 1
            # Conv3x3 and a second one would read as Conv3x32.
            candidate = f"{name}Variant{number}" if name[-1].isdigit() else f"{name}{number}"
        names.append(candidate)
    return tuple(names)


def _camel_case(kind: str) -> str:
    words = [word for word in re.split(r"[^0-9A-Za-z]+", kind) if word]
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name and not name[0].isdigit() else f"Block{name}"


def _added(form: BlockForm) -> list[str]:
    """Return what the sums on the main path add, e.g. `Residual`, `TwoProjectedSkips`."""
    main = form.main_path()
    sorts = [
        sort
        for layer in main
        if layer.primitive is Add
        for operand in layer.inputs[1:]
        if (sort := _sort(form, operand, {layer.name for layer in main}))
    ]
    return [
        f"{_COUNTED.get(sorts.count(sort), 'Many')}{sort}s" if sorts.count(sort) > 1 else sort
        for sort in dict.fromkeys(sorts)
    ]


def _sort(form: BlockForm, operand: Source, main: Collection[str]) -> str:
    projected = False
    while isinstance(operand, str):
        if operand in main:
            return "InnerResidual"
        projected = True
        operand = form.layer(operand).inputs[0]
    return ("Projected" if projected else "") + ("Skip" if operand else "Residual")
