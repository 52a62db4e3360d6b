"""Why the agent refuses an ONNX file, found without any runtime reading it.

A runtime opens the files that a model names, loads whatever library its session was given, and tells of a
broken model in words that change with its version. So the agent looks first.
"""

import mmap
from pathlib import Path

from device_agent.benchmark import FailureReason, Precision
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.onnx_scan import GraphInput, OnnxContents, scan
from device_agent.runtimes.protobuf_fields import not_onnx
from device_agent.text import shown

RUNTIME_DOMAINS = frozenset(
    {
        "",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.dml",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "org.pytorch.aten",
    }
)
"""Domains that some build of ONNX Runtime registers operators of by itself.

Source: onnxruntime 1.32, include/onnxruntime/core/graph/constants.h and core/session/environment.cc; the
domains of training are ONNX's own. That a build has them does not mean that it has a given operator.
"""

ELEMENTS_LIMIT = 1 << 56
"""No process can address an input of more: 64-bit systems give it at most 56 bits."""
SHOWN_OPERATORS = 5

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_OTHER_QUANTIZATION = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QMoE",
    }
)
_OTHER_QUANTIZATION_PREFIXES = ("QLinear", "QOrdered")
_OTHER_QUANTIZED_TYPES = frozenset(
    {"int16", "uint16", "int4", "uint4", "int2", "uint2", "float4e2m1", "float6e2m3", "float6e3m2"}
    | {"float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"}
)
_FLOATS = ("float32", "float16", "bfloat16", "float64")


def check(path: Path) -> OnnxContents:
    """Return what a model file holds, if a runtime may see it.

    Raises:
        BenchmarkFailedError: INVALID_MODEL where it is no ONNX file; EXTERNAL_DATA where it keeps weights in
            others; CUSTOM_OPERATOR where it needs a library of its own; INVALID_SHAPE where an input
            declares a size that no array can have.
    """
    contents = read(path)
    _refuse_external_data(contents)
    _refuse_custom_operators(contents)
    for entry in contents.inputs:
        _refuse_invalid_shape(entry)
    return contents


def read(path: Path) -> OnnxContents:
    """Return what a model file holds, whether or not the agent would run it.

    Raises:
        BenchmarkFailedError: INVALID_MODEL, where it is no ONNX file.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise not_onnx("it is empty")
        # Mapped for as long as it is looked at and no longer: mapped pages cannot be dropped from the page
        # cache, as a cold load needs it.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return scan(data)


def precision_of(contents: OnnxContents) -> Precision | None:
    """Return the number format of a model's weights and activations, or None where it is none of ours."""
    found = number_format(contents)
    return next((precision for precision in Precision if precision.value == found), None)


def number_format(contents: OnnxContents) -> str | None:
    """Return what a model's weights and activations are kept in, or None where nothing in it tells.

    - `int8_qdq`: it has both QuantizeLinear and DequantizeLinear, stores no integers of 2, 4 or 16 bits and no
      floats of 4, 6 or 8, and uses no operator that computes on integers itself.
    - E.g. `int4` or `integers (QLinearConv)`: it is quantized in any other way.
    - E.g. `float32`: the floating-point type that most of its stored numbers have or, where it stores none, that
      most of its inputs have.
    """
    operators = set().union(
        *(contents.operators.get(domain, frozenset()) for domain in ("", "com.microsoft"))
    )
    integers = sorted(
        name
        for name in operators
        if name in _OTHER_QUANTIZATION or name.startswith(_OTHER_QUANTIZATION_PREFIXES)
    )
    if integers:
        return f"integers ({shown(integers[0])})"
    pair = operators & {_QUANTIZE, _DEQUANTIZE}
    if pair:
        others = sorted(_OTHER_QUANTIZED_TYPES & contents.stored_elements.keys())
        return others[0] if others else "int8_qdq" if len(pair) == 2 else f"integers ({pair.pop()} alone)"
    counts = {name: contents.stored_elements.get(name, 0) for name in _FLOATS}
    if not any(counts.values()):
        types = [entry.element_type for entry in contents.inputs]
        counts = {name: types.count(name) for name in _FLOATS}
    most = max(_FLOATS, key=lambda name: counts[name])
    return most if counts[most] else None


def _refuse_external_data(contents: OnnxContents) -> None:
    if not contents.external_tensors:
        return
    first, *others = contents.external_tensors
    more = f" (and {len(others)} more like it)" if others else ""
    raise BenchmarkFailedError(
        FailureReason.EXTERNAL_DATA,
        f"tensor '{shown(first.name)}' keeps its values in the file '{shown(first.location)}'{more}, and this agent "
        "reads no file but the model; save it as one, "
        "e.g. onnx.save(onnx.load(path), new_path, save_as_external_data=False)",
    )


def _refuse_custom_operators(contents: OnnxContents) -> None:
    for domain, types in sorted(contents.operators.items()):
        foreign = sorted(name for name in types if (domain, name) not in contents.functions)
        if domain in RUNTIME_DOMAINS or not foreign:
            continue
        names = ", ".join(shown(name) for name in foreign[:SHOWN_OPERATORS])
        more = f" and {len(foreign) - SHOWN_OPERATORS} more" if len(foreign) > SHOWN_OPERATORS else ""
        raise BenchmarkFailedError(
            FailureReason.CUSTOM_OPERATOR,
            f"the model uses {names}{more} of the domain '{shown(domain)}', which ONNX Runtime does not have, and "
            "this agent loads no library of operators; export with standard operators, or as model-local functions",
        )


def _refuse_invalid_shape(entry: GraphInput) -> None:
    """Raise where an input's declared shape is none.

    Axes of -1 are open: that is what some exporters write for them and how ONNX Runtime reads every
    negative size. It reads 0 as a size of 0, which would time the runtime on nothing. Any other negative
    number is no exporter's; a NaN, turned into an integer, is -2**63.
    """
    sizes = entry.dimensions or ()
    elements = 1
    for axis, size in enumerate(sizes):
        if isinstance(size, int) and size != -1:
            elements *= size
            if not 1 <= size <= ELEMENTS_LIMIT or elements > ELEMENTS_LIMIT:
                shape = ", ".join("?" if size is None else shown(str(size)) for size in sizes[:8])
                raise BenchmarkFailedError(
                    FailureReason.INVALID_SHAPE,
                    f"input '{shown(entry.name)}' declares the shape [{shape}], and no array of values has such an axis "
                    f"{axis}; export the model with sizes of at least 1, and names for the axes it leaves open",
                )
