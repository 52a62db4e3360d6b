"""The statements of a forward method: chains become one expression, variables are few and reused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from controller.codegen.layout import LINE_LENGTH, bracketed
from controller.codegen.passes.naming import RESERVED, fresh, input_names, subject
from controller.codegen.passes.structure import BlockForm, LayerForm, Source
from controller.core.primitives import (
    Add,
    AvgPool2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Primitive,
    ReLU,
    Scale,
    Sigmoid,
)

_DEEPEST = 4  # calls inside one another
_INDENT = 8  # of a method's body
_STARTS: frozenset[type[Primitive]] = frozenset({Conv2d, Linear, MaxPool2d, AvgPool2d, GlobalAvgPool2d})
"""Layers at which a reader expects a new line, unless what they read is short."""

_INFIX: frozenset[type[Primitive]] = frozenset({Add, Scale})
_FUNCTIONS: Mapping[type[Primitive], str] = {ReLU: "torch.relu", Sigmoid: "torch.sigmoid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statement:
    """One line: the layers merged into it, and what they read of the lines before."""

    target: LayerForm
    merged: frozenset[str]
    reads: frozenset[Source]


def forward_body(form: BlockForm) -> tuple[str, ...]:
    """Return the lines of the forward method of a block's class, the last one a return.

    Args:
        form: The block. The method's parameters are `input_names(form)`.
    """
    lines = _lines(form, _DEEPEST)
    fits = all(_INDENT + len(line) <= LINE_LENGTH for line in lines)
    return lines if fits else _lines(form, 1)


def _lines(form: BlockForm, deepest: int) -> tuple[str, ...]:
    statements = _statements(form, deepest)
    variables: dict[Source, str] = dict(enumerate(input_names(form)))
    main = {layer.name for layer in form.main_path()}
    lines = []
    for index, statement in enumerate(statements):
        expression = _expression(form, statement.target.name, statement.merged, variables)
        if statement.target is form.output:
            lines.append(f"return {expression}")
            break
        needed = {source for later in statements[index + 1 :] for source in later.reads}
        live = {name for source, name in variables.items() if source in needed}
        name = _variable(statement.target, live, variables, on_main_path=statement.target.name in main)
        variables[statement.target.name] = name
        lines.append(f"{name} = {expression}")
    return tuple(lines)


def _statements(form: BlockForm, deepest: int) -> list[_Statement]:
    """Return the lines in the order in which they run."""
    readers: dict[Source, list[LayerForm]] = {layer.name: [] for layer in form.layers}
    for layer in form.layers:
        for source in layer.inputs:
            readers.setdefault(source, []).append(layer)
    pending: dict[Source, tuple[int, frozenset[str], frozenset[Source]]] = {}
    statements = []
    for layer in form.layers:
        inputs = [pending.pop(source, (0, frozenset(), frozenset({source}))) for source in layer.inputs]
        depth = 1 + max(depth for depth, _, _ in inputs)
        merged = frozenset({layer.name}).union(*(names for _, names, _ in inputs))
        reads = frozenset[Source]().union(*(sources for _, _, sources in inputs))
        if _ends_line(layer, depth, readers[layer.name], deepest):
            statements.append(_Statement(target=layer, merged=merged, reads=reads))
        else:
            pending[layer.name] = (depth, merged, reads)
    return statements


def _ends_line(layer: LayerForm, depth: int, readers: Sequence[LayerForm], deepest: int) -> bool:
    if len(readers) != 1:
        return True
    if readers[0].primitive in _INFIX:
        # A sum inside a sum or a product would need brackets.
        return depth > 1 or layer.primitive in _INFIX
    return depth >= min(deepest, 2 if readers[0].primitive in _STARTS else deepest)


def _expression(
    form: BlockForm, source: Source, merged: frozenset[str], variables: Mapping[Source, str]
) -> str:
    if not isinstance(source, str) or source not in merged:
        return variables[source]
    layer = form.layer(source)
    operands = [_expression(form, operand, merged, variables) for operand in layer.inputs]
    if layer.primitive is Add:
        return " + ".join(operands)
    if layer.primitive is Scale:
        return f"{operands[0]} * {operands[1]}[:, :, None, None]"
    if layer.primitive in _FUNCTIONS:
        return f"{_FUNCTIONS[layer.primitive]}({operands[0]})"
    call = f"self.{layer.name}({operands[0]})"
    return f"{call}.flatten(1)" if layer.primitive is GlobalAvgPool2d else call


def _variable(
    target: LayerForm, live: set[str], variables: Mapping[Source, str], *, on_main_path: bool
) -> str:
    """Return the variable for a line's value: one that nothing reads later, or a new one."""
    if on_main_path:
        for name in ("out", "x") if "out" in variables.values() else ("x", "out"):
            if name not in live:
                return name
    return fresh(subject(target.name), {*live, *RESERVED})


def network_body(sources: Mapping[str, Sequence[str | None]], parameter: str) -> tuple[str, ...]:
    """Return the lines of the network's forward method, the last one a return.

    A value is called `x` where only the next block reads it, and by its block's name elsewhere.

    Args:
        sources: For each block in order, the blocks that it reads; None is the network's input.
        parameter: What the method calls the network's input.
    """
    readers: dict[str | None, list[str]] = {}
    for block, read in sources.items():
        for source in read:
            readers.setdefault(source, []).append(block)
    following = dict(pairwise(sources))
    variables: dict[str | None, str] = {None: parameter}
    lines = []
    for block, read in sources.items():
        arguments = [variables[source] for source in read]
        target = "return"
        if block in following:
            chained = readers[block] == [following[block]]
            taken = {"x", *RESERVED, *variables.values()}
            variables[block] = "x" if chained else fresh(block, taken)
            target = f"{variables[block]} ="
        lines.append(bracketed(f"{target} self.{block}(", arguments, ")", indent=_INDENT))
    return tuple(lines)
