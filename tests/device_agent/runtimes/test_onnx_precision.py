"""The number format of models as real converters write them."""

from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import pytest
from agent_harness import conv_model
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from device_agent.benchmark import BenchmarkSpec, FailureReason, MeasurementMode, Precision
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.catalogue import RUNTIMES
from device_agent.runtimes.onnx_file import number_format, precision_of
from device_agent.runtimes.onnx_scan import GraphInput, OnnxContents, scan

CONVERTER_WARNINGS = pytest.mark.filterwarnings("ignore")


class Calibration:
    """Two random images for the quantizer."""

    def __init__(self) -> None:
        random = numpy.random.default_rng(0)
        self.images = [random.standard_normal((1, 3, 16, 16)).astype("float32") for _ in range(2)]

    def get_next(self) -> dict[str, numpy.ndarray] | None:
        return {"image": self.images.pop()} if self.images else None


def quantized(
    folder: Path, quantize: Callable[..., None], *arguments: object, **options: object
) -> OnnxContents:
    source, made = folder / "float.onnx", folder / "quantized.onnx"
    source.write_bytes(conv_model())
    quantize(source, made, *arguments, **options)
    return scan(made.read_bytes())


def contents(
    *, stored: dict[str, int], inputs: tuple[str | None, ...] = (), operators: tuple[str, ...] = ("Conv",)
) -> OnnxContents:
    return OnnxContents(
        ir_version=8,
        operators={"": frozenset(operators)},
        functions=frozenset(),
        external_tensors=(),
        stored_elements=stored,
        inputs=tuple(GraphInput(name="x", element_type=kind, dimensions=()) for kind in inputs),
    )


def linear_model(stored: int) -> bytes:
    """Return a product with a weight of some type, which need not run anywhere."""
    weight = helper.make_tensor("weight", stored, [8, 4], numpy.zeros(32, "float32"))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "weight"], ["output"])],
        "linear",
        [helper.make_tensor_value_info("image", stored, [1, 8])],
        [helper.make_tensor_value_info("output", stored, None)],
        [weight],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def spec(precision: Precision | None) -> BenchmarkSpec:
    return BenchmarkSpec(
        runtime="onnx",
        threads=1,
        input_shapes=(),
        seed=0,
        mode=MeasurementMode.SEARCH,
        precision=precision,
    )


def test_a_plain_model_is_float32():
    assert precision_of(scan(conv_model())) is Precision.FLOAT32


@CONVERTER_WARNINGS
@pytest.mark.parametrize("keep_io_types", [False, True])
def test_a_converted_model_is_float16_whatever_its_inputs_are(keep_io_types: bool):
    model = onnx.load_model_from_string(conv_model())
    halved = convert_float_to_float16(model, keep_io_types=keep_io_types)
    assert precision_of(scan(halved.SerializeToString())) is Precision.FLOAT16


@CONVERTER_WARNINGS
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_model_with_quantizing_pairs_is_int8_qdq(tmp_path: Path, per_channel: bool):
    found = quantized(
        tmp_path, quantize_static, Calibration(), quant_format=QuantFormat.QDQ, per_channel=per_channel
    )
    assert precision_of(found) is Precision.INT8_QDQ


@CONVERTER_WARNINGS
def test_integer_operators_are_no_precision_of_ours(tmp_path: Path):
    found = quantized(tmp_path, quantize_static, Calibration(), quant_format=QuantFormat.QOperator)
    assert "QLinearConv" in found.operators[""]
    assert precision_of(found) is None


@CONVERTER_WARNINGS
def test_activations_of_16_bit_are_no_precision_of_ours(tmp_path: Path):
    found = quantized(
        tmp_path,
        quantize_static,
        Calibration(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt16,
    )
    assert precision_of(found) is None


@CONVERTER_WARNINGS
def test_dynamic_quantization_is_no_precision_of_ours(tmp_path: Path):
    assert precision_of(quantized(tmp_path, quantize_dynamic)) is None


def test_weights_that_are_only_unpacked_are_no_precision_of_ours():
    weights_only = contents(stored={"int8": 900, "float32": 1}, operators=("DequantizeLinear", "Conv"))
    assert precision_of(weights_only) is None


@pytest.mark.parametrize(
    ("stored", "precision"),
    [
        ({"float32": 10, "float16": 9, "int64": 99}, Precision.FLOAT32),
        ({"float32": 4, "float16": 900}, Precision.FLOAT16),
        ({"float64": 10, "float32": 1}, None),
        ({"bfloat16": 10, "float32": 1}, None),
    ],
)
def test_most_of_the_stored_numbers_decide(stored: dict[str, int], precision: Precision | None):
    assert precision_of(contents(stored=stored, inputs=("float32",))) is precision


@pytest.mark.parametrize(
    ("inputs", "precision"),
    [
        (("float16", "int64"), Precision.FLOAT16),
        (("float32",), Precision.FLOAT32),
        (("int64", None), None),
        ((), None),
    ],
)
def test_inputs_decide_where_no_numbers_are_stored(
    inputs: tuple[str | None, ...], precision: Precision | None
):
    assert precision_of(contents(stored={"int64": 3}, inputs=inputs)) is precision


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (contents(stored={"float64": 10}), "float64"),
        (contents(stored={"bfloat16": 10}), "bfloat16"),
        (contents(stored={"int8": 9}, operators=("QLinearConv", "QuantizeLinear")), "integers (QLinearConv)"),
        (contents(stored={"int8": 9}, operators=("DequantizeLinear",)), "integers (DequantizeLinear alone)"),
        (contents(stored={"int4": 9}, operators=("QuantizeLinear", "DequantizeLinear")), "int4"),
        (
            contents(stored={"float8e4m3fn": 9}, operators=("QuantizeLinear", "DequantizeLinear")),
            "float8e4m3fn",
        ),
        (contents(stored={"int64": 3}, inputs=("int64",)), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_none_of_ours_has_a_name_all_the_same(found: OnnxContents, told: str | None):
    assert number_format(found) == told
    assert precision_of(found) is None


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("stored", ["float64", "bfloat16"])
def test_model_that_is_in_none_of_ours_is_refused_where_one_is_asked_for(
    tmp_path: Path, stored: str, precision: Precision
):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model({"float64": TensorProto.DOUBLE, "bfloat16": TensorProto.BFLOAT16}[stored]))
    with pytest.raises(BenchmarkFailedError) as caught:
        RUNTIMES["onnx"].inspect(path, spec(precision))
    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert (
        str(caught.value)
        == f"the model is in {stored}, the spec asks for {precision.value}; convert the model first"
    )
    assert RUNTIMES["onnx"].inspect(path, spec(None)) is None


@CONVERTER_WARNINGS
def test_quantized_model_that_has_no_pairs_is_refused_as_one_of_pairs(tmp_path: Path):
    quantized(tmp_path, quantize_static, Calibration(), quant_format=QuantFormat.QOperator)
    with pytest.raises(BenchmarkFailedError) as caught:
        RUNTIMES["onnx"].inspect(tmp_path / "quantized.onnx", spec(Precision.INT8_QDQ))
    assert caught.value.reason is FailureReason.INVALID_SPEC
    assert str(caught.value).startswith(
        "the model is in integers (QLinearConv), the spec asks for int8_qdq; "
    )


def test_model_in_which_nothing_tells_is_taken_at_its_word(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(linear_model(TensorProto.INT64))
    assert RUNTIMES["onnx"].inspect(path, spec(Precision.FLOAT32)) is None


def test_constants_count_as_stored_numbers():
    weight = numpy_helper.from_array(numpy.ones((2, 2), "float16"))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=weight)],
        "constant",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2, 2])],
    )
    assert precision_of(scan(helper.make_model(graph).SerializeToString())) is Precision.FLOAT16
