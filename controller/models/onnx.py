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
    inputs = [*layer.inputs, *_weight_names(layer)]
    if isinstance(layer.primitive, GlobalAvgPool2d):
        pooled = f"{layer.name}.pooled"
        return [
            helper.make_node("GlobalAveragePool", inputs, [pooled], name=layer.name),
            helper.make_node("Flatten", [pooled], [output], name=f"{layer.name}.flatten"),
        ]
    operator, attributes = _NODES[type(layer.primitive)](layer.primitive)
    return [helper.make_node(operator, inputs, [output], name=layer.name, **attributes)]
