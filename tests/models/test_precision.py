"""Conversions to other number formats, run by the runtime that boards use."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from controller.core.errors import ConfigurationError, ExportError
from controller.core.network import INPUT, NetworkBuilder
from controller.core.options import Precision
from controller.core.primitives import Add, BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, ReLU
from controller.models.module import seeded_module
from controller.models.onnx import onnx_bytes
from controller.models.precision import converted


def network() -> bytes:
    builder = NetworkBuilder(input_shape=(3, 16, 16))
    with builder.block("stem", "stem"):
        conv = builder.add("conv", Conv2d(8, 3), INPUT)
        features = builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), conv))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(4), builder.add("pool", GlobalAvgPool2d(), features))
    built = builder.build()
    return onnx_bytes(built, seeded_module(built, 0).state_dict())


def open_network() -> bytes:
    """Return the network with an open batch."""
    model = onnx.load_model_from_string(network())
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "n"
    data: bytes = model.SerializeToString()
    return data


def logits(data: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {INPUT: images})[0], dtype=np.float32)


def images(batch: int = 1) -> np.ndarray:
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1)).numpy()


def operators(data: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_model_from_string(data).graph.node}


def test_float16_model_takes_and_gives_float16_and_computes_the_same():
    made = converted(network(), Precision.FLOAT16, {})

    model = onnx.load_model_from_string(made)
    kinds = {entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)}
    assert kinds == {TensorProto.FLOAT16}
    assert {weights.data_type for weights in model.graph.initializer} == {TensorProto.FLOAT16}
    assert logits(made, images().astype(np.float16)) == pytest.approx(logits(network(), images()), abs=0.01)


def test_int8_model_is_written_in_pairs_and_computes_nearly_the_same():
    made = converted(network(), Precision.INT8_QDQ, {})

    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= operators(made)
    assert logits(made, images()) == pytest.approx(logits(network(), images()), abs=0.1)


def residual_network() -> bytes:
    """Return a network in which a sum that may be negative and a rectified one meet convolutions."""
    builder = NetworkBuilder(input_shape=(3, 16, 16))
    with builder.block("stem", "stem"):
        stem = builder.add("relu", ReLU(), builder.add("conv", Conv2d(8, 3), INPUT))
    with builder.block("layer_1", "residual"):
        first = builder.add("relu", ReLU(), builder.add("conv_1", Conv2d(8, 3), stem))
        added = builder.add("add", Add(), builder.add("conv_2", Conv2d(8, 3), first), stem)
        last = builder.add("relu_2", ReLU(), builder.add("conv_3", Conv2d(8, 3), added))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(4), builder.add("pool", GlobalAvgPool2d(), last))
    built = builder.build()
    return onnx_bytes(built, seeded_module(built, 0).state_dict())


def test_int8_model_leaves_the_runtime_no_convolution_in_float32(tmp_path: Path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3

    onnxruntime.InferenceSession(
        converted(residual_network(), Precision.INT8_QDQ, {}), options, providers=["CPUExecutionProvider"]
    )

    kinds = operators((tmp_path / "optimized.onnx").read_bytes())
    assert {"QLinearConv", "QGemm"} <= kinds
    assert not {"Conv", "FusedConv", "Gemm"} & kinds


def test_open_batch_stays_open():
    made = converted(open_network(), Precision.INT8_QDQ, {}, batch_size=2)

    assert logits(made, images(5)).shape == (5, 4)


def test_float32_is_the_model_itself():
    assert converted(network(), Precision.FLOAT32, {}) == network()


def test_model_that_was_converted_already_is_refused():
    half = converted(network(), Precision.FLOAT16, {})

    with pytest.raises(ConfigurationError, match="the model is float16, and only float32 can be converted"):
        converted(half, Precision.INT8_QDQ, {})


def test_model_without_anything_to_quantize_is_refused_in_one_line():
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
    )
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()

    with pytest.raises(
        ExportError, match=r"cannot be converted to int8_qdq: .*; measure it in float32"
    ) as raised:
        converted(data, Precision.INT8_QDQ, {})
    assert len(str(raised.value).splitlines()) == 1


def test_model_that_the_runtime_cannot_read_is_refused_in_one_line():
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x", "w"], ["y"])],
        "unknown",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(np.ones((1, 4), np.float32), "w")],
    )
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()

    for precision in (Precision.FLOAT16, Precision.INT8_QDQ):
        with pytest.raises(ExportError, match=f"cannot be converted to {precision.value}: ") as raised:
            converted(data, precision, {})
        assert len(str(raised.value).splitlines()) == 1


def test_conversion_prints_nothing_and_leaves_logging_as_it_was(capfd: pytest.CaptureFixture[str]):
    converted(open_network(), Precision.INT8_QDQ, {})
    converted(open_network(), Precision.FLOAT16, {})

    assert capfd.readouterr() == ("", "")
    assert logging.root.isEnabledFor(logging.WARNING)
