"""A network with weights as an ONNX model.

Written with onnx's own helpers rather than traced by torch: nodes keep the layers' names, so a per-operator
profile speaks of the network, and an export takes milliseconds (docs/decisions/0003).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from controller.core.mixing import Mixture
from controller.core.network import INPUT, Layer, Network
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

OUTPUT = "logits"
_OPSET = 17  # read by every ONNX Runtime since 1.12
_IR_VERSION = 8  # the one that belongs to opset 17


def _pool(kind: str, **attributes: int) -> Callable[[Any], tuple[str, dict[str, Any]]]:
    def node(pool: MaxPool2d | AvgPool2d) -> tuple[str, dict[str, Any]]:
        return kind, {
            "kernel_shape": [pool.kernel_size] * 2,
            "strides": [pool.stride] * 2,
            "pads": [pool.padding] * 4,
            **attributes,
        }

    return node


def _conv(conv: Conv2d) -> tuple[str, dict[str, Any]]:
    return "Conv", {
        "kernel_shape": [conv.kernel_size] * 2,
        "strides": [conv.stride] * 2,
        "pads": [conv.padding] * 4,
        "dilations": [conv.dilation] * 2,
        "group": conv.groups,
    }


_NODES: Mapping[type[Primitive], Callable[[Any], tuple[str, dict[str, Any]]]] = {
    Conv2d: _conv,
    BatchNorm2d: lambda _: ("BatchNormalization", {"epsilon": 1e-5}),
    ReLU: lambda _: ("Relu", {}),
    MaxPool2d: _pool("MaxPool"),
    AvgPool2d: _pool("AveragePool", count_include_pad=0),
    Linear: lambda _: ("Gemm", {"transB": 1}),
    Add: lambda _: ("Sum", {}),
    Sigmoid: lambda _: ("Sigmoid", {}),
    # What a supernet is exported for is the time of its parts: without coefficients, as the module's at first.
    Mixture: lambda _: ("Sum", {}),
}
"""Operator and attributes for each primitive that is one node."""

_WEIGHTS: Mapping[type[Primitive], Sequence[str]] = {
    Conv2d: ("weight",),
    BatchNorm2d: ("weight", "bias", "running_mean", "running_var"),
    Linear: ("weight", "bias"),
}
"""Entries of the state dict that a node reads, in the operator's order."""


def onnx_bytes(network: Network, weights: Mapping[str, torch.Tensor]) -> bytes:
    """Return an ONNX model with batch size 1, input `input` and output `logits`, float32.

    Args:
        network: What to export.
        weights: State dict of its module.
    """
    nodes = [node for layer in network.layers for node in _layer_nodes(layer, network)]
    initializers = [
        numpy_helper.from_array(_array(weights[name]), name)
        for layer in network.layers
        for name in _weight_names(layer)
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, (1, *network.input_shape))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (1, *network.output.shape))],
        initializers,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, producer_name="edgenas", opset_imports=opset, ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _weight_names(layer: Layer) -> list[str]:
    return [f"{layer.name}.{entry}" for entry in _WEIGHTS.get(type(layer.primitive), ())]


def _array(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _layer_nodes(layer: Layer, network: Network) -> list[Any]:
    output = OUTPUT if layer is network.output else layer.name
    several = _SEVERAL_NODES.get(type(layer.primitive))
    if several:
        return several(layer, output)
    inputs = [*layer.inputs, *_weight_names(layer)]
    operator, attributes = _NODES[type(layer.primitive)](layer.primitive)
    return [helper.make_node(operator, inputs, [output], name=layer.name, **attributes)]


def _mean(layer: Layer, output: str) -> list[Any]:
    pooled = f"{layer.name}.pooled"
    return [
        helper.make_node("GlobalAveragePool", layer.inputs, [pooled], name=layer.name),
        helper.make_node("Flatten", [pooled], [output], name=f"{layer.name}.flatten"),
    ]


def _scaling(layer: Layer, output: str) -> list[Any]:
    image, factors = layer.inputs
    axes, spread = f"{layer.name}.axes", f"{layer.name}.spread"
    return [
        _constant(axes, [2, 3]),
        helper.make_node("Unsqueeze", [factors, axes], [spread], name=spread),
        helper.make_node("Mul", [image, spread], [output], name=layer.name),
    ]


def _resizing(layer: Layer, output: str) -> list[Any]:
    sizes = f"{layer.name}.sizes"
    return [
        _constant(sizes, [1, *layer.shape]),
        helper.make_node(
            "Resize",
            [layer.inputs[0], "", "", sizes],
            [output],
            name=layer.name,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
    ]


def _attention(layer: Layer, output: str) -> list[Any]:
    """Return the nodes of attention; per head, queries, keys and values have shape (head channels, pixels)."""
    channels, height, width = layer.shape
    heads = layer.primitive.heads  # type: ignore[attr-defined]
    prefix = f"{layer.name}."
    queries, keys, values = (prefix + part for part in ("queries", "keys", "values"))

    def node(operator: str, inputs: Sequence[str], part: str, **attributes: Any) -> Any:
        outputs = [prefix + part]
        return helper.make_node(operator, inputs, outputs, name=prefix + part, **attributes)

    def turned(source: str, part: str) -> Any:
        return node("Transpose", [source], part, perm=[0, 1, 3, 2])

    return [
        _constant(prefix + "by_head", [1, 3 * heads, channels // heads, height * width]),
        node("Reshape", [*layer.inputs, prefix + "by_head"], "tokens"),
        helper.make_node(
            "Split", [prefix + "tokens"], [queries, keys, values], name=prefix + "split", axis=1
        ),
        turned(queries, "rows"),
        node("MatMul", [prefix + "rows", keys], "products"),
        _constant(prefix + "factor", (channels // heads) ** -0.5),
        node("Mul", [prefix + "products", prefix + "factor"], "scores"),
        node("Softmax", [prefix + "scores"], "weights", axis=-1),
        turned(prefix + "weights", "columns"),
        node("MatMul", [values, prefix + "columns"], "mixed"),
        _constant(prefix + "image", [1, *layer.shape]),
        helper.make_node("Reshape", [prefix + "mixed", prefix + "image"], [output], name=layer.name),
    ]


_SEVERAL_NODES: Mapping[type[Primitive], Callable[[Layer, str], list[Any]]] = {
    GlobalAvgPool2d: _mean,
    Scale: _scaling,
    Resize: _resizing,
    SelfAttention: _attention,
}
"""The nodes of each primitive that is more than one, given its layer and the name of the output."""


def _constant(name: str, value: float | Sequence[int]) -> Any:
    array = np.array(value, dtype=np.float32 if isinstance(value, float) else np.int64)
    return helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(array, name))
