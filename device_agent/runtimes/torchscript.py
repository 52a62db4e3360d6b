"""PyTorch, which reads archives of TorchScript."""

from pathlib import Path

from device_agent.benchmark import BenchmarkSpec, FailureReason, ModelFormat, Precision
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes import torchscript_file
from device_agent.runtimes.base import Runtime


def inspect(path: Path, spec: BenchmarkSpec) -> Precision | None:
    """Check a TorchScript archive before its runtime sees it; only the runtime can tell its precision.

    Raises:
        BenchmarkFailedError: If the agent refuses the file, or the spec asks for what only ONNX has.
    """
    torchscript_file.check(path)
    if spec.precision is Precision.INT8_QDQ:
        raise BenchmarkFailedError(
            FailureReason.INVALID_SPEC,
            f"the spec asks for {spec.precision.value}, pairs of QuantizeLinear and DequantizeLinear, which TorchScript "
            "does not have; leave the precision unspecified, or convert the model to ONNX",
        )
    return None


TORCHSCRIPT = Runtime(
    name="torchscript",
    format=ModelFormat.TORCHSCRIPT,
    package="torch",
    remedy="install edgenas[torchscript], or numpy and torch for it",
    inspect=inspect,
    providers={"cpu": "cpu", "cuda": "cuda"},
    gpu_providers=frozenset({"cuda"}),
    endings=(".pt", ".pth", ".ts"),
)
