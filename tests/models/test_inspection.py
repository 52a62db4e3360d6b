import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper
from random_networks import networks

from controller.core.errors import ConfigurationError
from controller.core.network import Network
from controller.core.options import Precision
from controller.models.inspection import (
    concrete_shapes,
    count_macs,
    onnx_inputs,
    onnx_precision,
    parsed_onnx,
    torchscript_input_names,
)
from controller.models.module import seeded_module
from controller.models.onnx import onnx_bytes


def model(*, weights_are_inputs: bool) -> bytes:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("left", "right")]
    weights = helper.make_tensor_value_info("weights", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(
        [helper.make_node("Sum", ["left", "right", "weights"], ["total"])],
        "sum",
        [weights, *inputs] if weights_are_inputs else inputs,
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.ones((1, 2), np.float32), "weights")],
    )
    built: onnx.ModelProto = helper.make_model(graph)
    return built.SerializeToString()


def graph_of(
    nodes: list[onnx.NodeProto],
    image: tuple[int | str, ...],
    weights: dict[str, tuple[int, ...]],
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", dtype, image)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.zeros(shape, kind), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("weights_are_inputs", [False, True])
def test_inputs_of_a_model_are_named_without_its_weights(weights_are_inputs: bool):
    found = onnx_inputs(parsed_onnx(model(weights_are_inputs=weights_are_inputs)))

    assert found == {"left": (1, 2), "right": (1, 2)}


@pytest.mark.parametrize("data", [b"", b"no model at all", model(weights_are_inputs=False)[:-5]])
def test_what_is_no_model_is_refused(data: bytes):
    with pytest.raises(ConfigurationError, match=r"the file is no ONNX model, or .*; export it again"):
        parsed_onnx(data)


def test_open_batch_is_filled_in_and_given_shapes_go_first():
    open_batch = graph_of([helper.make_node("Relu", ["x"], ["y"])], ("n", 3, 8, 8), {})

    assert concrete_shapes(open_batch, {}, 0) == {"x": (1, 3, 8, 8)}
    assert concrete_shapes(open_batch, {}, 4) == {"x": (4, 3, 8, 8)}
    assert concrete_shapes(open_batch, {"x": (2, 3, 6, 6)}, 4) == {"x": (2, 3, 6, 6)}


def test_other_open_axes_need_a_size():
    open_size = graph_of([helper.make_node("Relu", ["x"], ["y"])], (1, 3, "height", "width"), {})

    with pytest.raises(
        ConfigurationError, match=r"'x' leaves axes open \(1,3,\?,\?\); give their sizes with"
    ):
        concrete_shapes(open_size, {}, 0)


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        (TensorProto.FLOAT, Precision.FLOAT32),
        (TensorProto.FLOAT16, Precision.FLOAT16),
        (TensorProto.DOUBLE, None),
    ],
)
def test_precision_is_that_of_weights_and_inputs(dtype: int, precision: Precision | None):
    product = graph_of([helper.make_node("MatMul", ["x", "w"], ["y"])], (1, 4), {"w": (4, 2)}, dtype)

    assert onnx_precision(product) is precision


def test_quantized_model_is_int8():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]

    assert onnx_precision(graph_of(nodes, (1, 4), {"scale": ()})) is Precision.INT8_QDQ


# The layer's textbook count, written out: batch × outputs × products for each output.
COUNTS = {
    "convolution": (
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])],
        ("n", 6, 8, 8),
        {"w": (10, 6, 3, 3)},
        2 * (10 * 4 * 4) * (6 * 3 * 3),
    ),
    "depthwise convolution": (
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3], group=6)],
        ("n", 6, 8, 8),
        {"w": (6, 1, 3, 3)},
        2 * (6 * 6 * 6) * (1 * 3 * 3),
    ),
    "transposed convolution": (
        [helper.make_node("ConvTranspose", ["x", "w"], ["y"], kernel_shape=[2, 2], strides=[2, 2])],
        ("n", 6, 8, 8),
        {"w": (6, 5, 2, 2)},
        2 * (6 * 8 * 8) * (5 * 2 * 2),
    ),
    "linear layer": (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        ("n", 6),
        {"w": (10, 6), "b": (10,)},
        2 * 10 * 6,
    ),
    "batched product": (
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        ("n", 3, 7, 6),
        {"w": (6, 10)},
        2 * 3 * (7 * 10) * 6,
    ),
    "two layers and what lies between": (
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        ("n", 6),
        {"w": (6, 10), "v": (10, 4)},
        2 * (6 * 10 + 10 * 4),
    ),
}


@pytest.mark.parametrize("layer", COUNTS)
def test_macs_are_counted_for_a_batch(layer: str):
    nodes, image, weights, expected = COUNTS[layer]
    built = graph_of(nodes, image, weights)

    assert count_macs(built, concrete_shapes(built, {}, 2)) == expected


@settings(max_examples=25)
@given(drawn=networks())
def test_macs_of_an_exported_network_are_the_networks_own(drawn: Network):
    built = parsed_onnx(onnx_bytes(drawn, seeded_module(drawn, 0).state_dict()))

    assert count_macs(built, concrete_shapes(built, {}, 0)) == drawn.macs


def test_macs_of_loops_are_not_guessed():
    recurrent = graph_of(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
        (5, 1, 3),
        {"w": (1, 16, 3), "r": (1, 16, 4)},
    )

    with pytest.raises(ConfigurationError, match="the MACs of LSTM cannot be counted"):
        count_macs(recurrent, {"x": (5, 1, 3)})


def test_macs_of_unknown_shapes_are_not_guessed():
    nodes = [
        helper.make_node("NonZero", ["x"], ["found"]),
        helper.make_node("Cast", ["found"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "numbers"], ["y"], name="product"),
    ]

    with pytest.raises(
        ConfigurationError, match="MatMul 'product' cannot be counted: the shape of 'numbers'"
    ):
        count_macs(graph_of(nodes, (1, 4), {"w": (3, 2)}), {"x": (1, 4)})


def test_inputs_of_a_torchscript_file_are_those_of_its_forward(tmp_path: Path):
    class Sum(torch.nn.Module):
        def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return image + mask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls the format deprecated
        torch.jit.trace(Sum(), (torch.zeros(1, 2), torch.zeros(1, 2))).save(str(tmp_path / "sum.pt"))

    assert torchscript_input_names(tmp_path / "sum.pt") == ["image", "mask"]


def test_what_is_no_torchscript_file_is_refused(tmp_path: Path):
    (tmp_path / "net.pt").write_bytes(b"no archive")

    with pytest.raises(ConfigurationError, match=r"net.pt is no TorchScript file"):
        torchscript_input_names(tmp_path / "net.pt")
