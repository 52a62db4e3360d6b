"""What a model file says of itself."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, inliner, shape_inference

from controller.core.errors import ConfigurationError
from controller.core.options import Precision

Shape = tuple[int, ...]

_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_UNCOUNTED = {"Attention", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan"}


def parsed_onnx(data: bytes) -> Any:
    """Return an ONNX model's protobuf.

    Raises:
        ConfigurationError: If data is no ONNX model.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ConfigurationError("the file is no ONNX model, or a part of one; export it again") from error
    if not model.graph.node:
        raise ConfigurationError("the file is no ONNX model, or an empty one; export it again")
    return model


def onnx_inputs(model: Any) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of a model's inputs by name, in order, without its weights; None for an open axis."""
    weights = {initializer.name for initializer in model.graph.initializer}
    return {
        entry.name: tuple(axis.dim_value or None for axis in entry.type.tensor_type.shape.dim)
        for entry in model.graph.input
        if entry.name not in weights
    }


def torchscript_input_names(path: Path) -> list[str]:
    """Return the names of the inputs of a TorchScript file's `forward`, in order.

    Raises:
        ConfigurationError: If it is no TorchScript file.
    """
    import torch  # takes seconds, and only this function needs it

    jit: Any = torch.jit
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit", category=Warning)
            arguments = jit.load(str(path), map_location="cpu").forward.schema.arguments
    except (RuntimeError, AttributeError) as error:
        raise ConfigurationError(
            f"model {path} is no TorchScript file; write one with torch.jit.trace(…).save(…)"
        ) from error
    return [argument.name for argument in arguments[1:]]


def concrete_shapes(model: Any, given: Mapping[str, Shape], batch_size: int) -> dict[str, Shape]:
    """Return the shapes that a model's inputs have when it runs.

    Args:
        model: Protobuf of an ONNX model.
        given: Shapes by input name.
        batch_size: Size of open first axes that given does not name; 0 for 1.

    Raises:
        ConfigurationError: If the size of another open axis is not given.
    """
    shapes = {}
    for name, declared in onnx_inputs(model).items():
        sizes = (declared[0] or batch_size or 1, *declared[1:]) if declared else ()
        known = [size for size in sizes if size is not None]
        if name not in given and len(known) < len(sizes):
            shown = ",".join("?" if size is None else str(size) for size in sizes)
            raise ConfigurationError(
                f"input {name!r} leaves axes open ({shown}); give their sizes with --input-shape {name}={shown}"
            )
        shapes[name] = given.get(name, tuple(known))
    return shapes


def onnx_precision(model: Any) -> Precision | None:
    """Return the number format of a model's weights and activations; None for a mixture or another one."""
    if any(node.op_type in _QUANTIZERS for node in model.graph.node):
        return Precision.INT8_QDQ
    kinds = {weights.data_type for weights in model.graph.initializer}
    kinds |= {entry.type.tensor_type.elem_type for entry in model.graph.input}
    formats = {TensorProto.FLOAT: Precision.FLOAT32, TensorProto.FLOAT16: Precision.FLOAT16}
    found = [precision for kind, precision in formats.items() if kind in kinds]
    return found[0] if len(found) == 1 else None


def count_macs(model: Any, shapes: Mapping[str, Shape]) -> int:
    """Return the multiply-accumulates of one inference: those of convolutions and matrix products.

    Args:
        model: Protobuf of an ONNX model; left as it is.
        shapes: The shape of every input.

    Raises:
        ConfigurationError: If the model has operators whose work is not known.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    uncounted = sorted({node.op_type for node in model.graph.node} & _UNCOUNTED)
    if uncounted:
        raise ConfigurationError(
            f"the MACs of {', '.join(uncounted)} cannot be counted, so energy cannot be modelled; "
            "measure without --power-source modelled"
        )
    sizes = _inferred_shapes(model, shapes)
    return sum(_node_macs(node, sizes) for node in model.graph.node if node.op_type in _MACS)


def _inferred_shapes(model: Any, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shape of every tensor that can be told from those of the inputs."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    # What the exporter noted with open axes would stand in the way of what is inferred.
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    for entry in fixed.graph.input:
        for axis, size in zip(entry.type.tensor_type.shape.dim, shapes.get(entry.name, ()), strict=False):
            axis.dim_value = size
    graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = {weights.name: tuple(weights.dims) for weights in graph.initializer}
    for entry in (*graph.input, *graph.value_info, *graph.output):
        tensor = entry.type.tensor_type
        sizes = tuple(axis.dim_value for axis in tensor.shape.dim)
        if tensor.HasField("shape") and all(sizes):
            known.setdefault(entry.name, sizes)
    return known


def _node_macs(node: Any, sizes: Mapping[str, Shape]) -> int:
    first, second, count = _MACS[node.op_type]
    names = (node.input[first], node.input[second], node.output[0])
    unknown = [name for name in names if name not in sizes]
    if unknown:
        raise ConfigurationError(
            f"the MACs of {node.op_type} {node.name!r} cannot be counted: the shape of {unknown[0]!r} is unknown; "
            "give every input's shape with --input-shape, or measure without --power-source modelled"
        )
    left, right, output = (sizes[name] for name in names)
    return count(left, right, output, node.attribute)


def _conv(_: Shape, weight: Shape, output: Shape, __: Sequence[Any]) -> int:
    return math.prod(output) * math.prod(weight[1:])


def _conv_transpose(image: Shape, weight: Shape, _: Shape, __: Sequence[Any]) -> int:
    return math.prod(image) * math.prod(weight[1:])


def _gemm(left: Shape, _: Shape, output: Shape, attributes: Sequence[Any]) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in attributes)
    return math.prod(output) * left[0 if transposed else 1]


def _matmul(left: Shape, _: Shape, output: Shape, __: Sequence[Any]) -> int:
    return math.prod(output) * left[-1]


_MACS: Mapping[str, tuple[int, int, Callable[[Shape, Shape, Shape, Sequence[Any]], int]]] = {
    "Conv": (0, 1, _conv),
    "ConvInteger": (0, 1, _conv),
    "QLinearConv": (0, 3, _conv),
    "ConvTranspose": (0, 1, _conv_transpose),
    "Gemm": (0, 1, _gemm),
    "MatMul": (0, 1, _matmul),
    "MatMulInteger": (0, 1, _matmul),
    "QLinearMatMul": (0, 3, _matmul),
}
"""Operators that multiply and accumulate: the positions of their two operands, and how to count."""
