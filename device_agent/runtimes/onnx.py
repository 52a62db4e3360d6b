"""ONNX Runtime, which reads ONNX."""

from pathlib import Path

from device_agent.benchmark import BenchmarkSpec, FailureReason, ModelFormat, Precision
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes import onnx_file
from device_agent.runtimes.base import Runtime
from device_agent.text import shown


def inspect(path: Path, spec: BenchmarkSpec) -> Precision | None:
    """Check an ONNX file before its runtime sees it and return its precision.

    Raises:
        BenchmarkFailedError: If the agent refuses the file, it is in another precision than the spec asks for, or
            nothing tells the shape of an input: ONNX Runtime shows a tensor of unknown rank as a scalar, so that
            no worker could tell them apart.
    """
    contents = onnx_file.check(path)
    shaped = {shape.name for shape in spec.input_shapes}
    for entry in contents.inputs:
        # What is no tensor (a sequence, say) the worker refuses by its type.
        if entry.element_type is not None and entry.dimensions is None and entry.name not in shaped:
            raise BenchmarkFailedError(
                FailureReason.OPEN_SHAPE,
                f"the model declares no shape for its input '{shown(entry.name)}'; give it in input_shapes, "
                f"e.g. {shown(entry.name)}=1,3,224,224",
            )
    found = onnx_file.number_format(contents)
    if spec.precision is not None and found is not None and found != spec.precision.value:
        raise BenchmarkFailedError(
            FailureReason.INVALID_SPEC,
            f"the model is in {found}, the spec asks for {spec.precision.value}; convert the model first",
        )
    return onnx_file.precision_of(contents)


ONNX = Runtime(
    name="onnx",
    format=ModelFormat.ONNX,
    package="onnxruntime",
    remedy="install numpy and onnxruntime for it",
    inspect=inspect,
    providers={
        "cpu": "CPUExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "nnapi": "NnapiExecutionProvider",
        "qnn": "QNNExecutionProvider",
    },
    gpu_providers=frozenset({"CUDAExecutionProvider", "TensorrtExecutionProvider"}),
    endings=(".onnx",),
)
