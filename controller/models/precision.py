"""An ONNX model in another number format, to learn what that costs on a board.

The int8 weights come from a calibration on random data: right for timing, meaningless for accuracy.
"""

import contextlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from controller.core.errors import ConfigurationError, ExportError
from controller.core.options import Precision
from controller.models.inspection import Shape, concrete_shapes, onnx_inputs, onnx_precision, parsed_onnx

_CALIBRATION_RUNS = 4

Feeds = dict[str, np.ndarray[Any, Any]]


def converted(data: bytes, precision: Precision, shapes: Mapping[str, Shape], batch_size: int = 0) -> bytes:
    """Return a float32 ONNX model in another precision, proven to load; in float32, as it is.

    Args:
        data: The model's file.
        precision: What is wanted; float16 inputs and outputs are float16 as well, int8 ones stay float32.
        shapes: Shapes for inputs whose axes the model leaves open.
        batch_size: Size of open first axes that shapes does not name; 0 for 1.

    Raises:
        ConfigurationError: If data is no float32 ONNX model, or has open axes without a given size.
        ExportError: If the model cannot be converted.
    """
    model = parsed_onnx(data)
    found = onnx_precision(model)
    if found is not Precision.FLOAT32:
        raise ConfigurationError(
            f"the model is {found.value if found else 'of mixed precision'}, and only float32 can be converted; "
            "measure it as it is, without --dtype"
        )
    if precision is Precision.FLOAT32:
        return data
    sizes = concrete_shapes(model, shapes, batch_size)
    try:
        with _quietly():
            made = _float16(model) if precision is Precision.FLOAT16 else _int8(model, sizes)
            _session(made)
    except Exception as error:  # the converters raise whatever they stumble over
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ExportError(
            f"the model cannot be converted to {precision.value}: {reason}; measure it in float32, "
            "or bring a file in that precision and leave --dtype out"
        ) from error
    return made


def _float16(model: Any) -> bytes:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return bytes(convert_float_to_float16(model, keep_io_types=False).SerializeToString())


def _int8(model: Any, shapes: Mapping[str, Shape]) -> bytes:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="edgenas-int8-") as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        # Symbolic inference needs another library, and every size that matters is known.
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        reader = _RandomCalibration(model, shapes)
        # With the default, signed activations, ONNX Runtime 1.32 leaves 24 of the 26 convolutions of
        # squeezenet1_1 in float32 on x86, and 11 of 20 of resnet18; with unsigned ones none.
        quantize_static(
            prepared,
            quantized,
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        data = quantized.read_bytes()
    if onnx_precision(parsed_onnx(data)) is not Precision.INT8_QDQ:
        raise ValueError("it has no operator that can be quantized")
    return data


class _RandomCalibration:
    """Feeds random inputs, as `onnxruntime.quantization.CalibrationDataReader` asks for them."""

    def __init__(self, model: Any, shapes: Mapping[str, Shape]) -> None:
        self._feeds = _random_feeds(model, shapes)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


def _random_feeds(model: Any, shapes: Mapping[str, Shape]) -> Iterator[Feeds]:
    rng = np.random.default_rng(0)
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.input}
    for _ in range(_CALIBRATION_RUNS):
        feeds: Feeds = {}
        for name in onnx_inputs(model):
            floating = kinds[name] == TensorProto.FLOAT
            values = rng.standard_normal(shapes[name]) if floating else rng.integers(0, 2, shapes[name])
            feeds[name] = values.astype(helper.tensor_dtype_to_np_dtype(kinds[name]))
        yield feeds


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the converters' advice, which is about accuracy, off the screen, and standard output for results."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
