import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from controller.core.errors import ConfigurationError
from controller.models.inspection import onnx_input_names


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


@pytest.mark.parametrize("weights_are_inputs", [False, True])
def test_inputs_of_a_model_are_named_without_its_weights(weights_are_inputs: bool):
    assert onnx_input_names(model(weights_are_inputs=weights_are_inputs)) == ["left", "right"]


@pytest.mark.parametrize("data", [b"no model at all", model(weights_are_inputs=False)[:-5]])
def test_inputs_of_what_is_no_model_are_refused(data: bytes):
    with pytest.raises(
        ConfigurationError, match="the file is no ONNX model, or a part of one; export it again"
    ):
        onnx_input_names(data)
