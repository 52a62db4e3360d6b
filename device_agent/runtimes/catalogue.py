"""The runtimes that the agent knows: what they read, what they are called, and which of them a Python has."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.benchmark import (
    BenchmarkSpec,
    FailureReason,
    ModelFormat,
    Precision,
    RuntimeDescription,
    UnavailableRuntime,
)
from device_agent.errors import BenchmarkFailedError, InvalidRequestError, RuntimeUnavailableError
from device_agent.runtimes import onnx_file, torchscript_file
from device_agent.runtimes.worker_process import REMEDIES, WorkerProcess, worker_environment
from device_agent.text import shown

LOOKUP_LIMIT_S = 60.0
# Asks a Python for a package without importing it: PyTorch alone takes seconds and 200 MB.
LOOKUP = """
import importlib.util, json, sys
found = importlib.util.find_spec(sys.argv[1]) is not None
try:
    from importlib.metadata import version
    known = version(sys.argv[1]) if found else ""
except Exception:
    known = ""
print(json.dumps([found, known]))
"""


def inspect_onnx(path: Path, spec: BenchmarkSpec) -> Precision | None:
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


def inspect_torchscript(path: Path, spec: BenchmarkSpec) -> Precision | None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime that the agent knows.

    Attributes:
        name: What a spec asks for.
        format: What it reads.
        package: What its Python must be able to import.
        inspect: Checks a file against a spec before the runtime sees it, and returns its precision where the file
            tells and it is one of ours.
        providers: Short names of the execution providers that EdgeNAS offers, with the runtime's own names.
    """

    name: str
    format: ModelFormat
    package: str
    inspect: Callable[[Path, BenchmarkSpec], Precision | None]
    providers: Mapping[str, str]


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            name="onnx",
            format=ModelFormat.ONNX,
            package="onnxruntime",
            inspect=inspect_onnx,
            providers={
                "cpu": "CPUExecutionProvider",
                "xnnpack": "XnnpackExecutionProvider",
                "cuda": "CUDAExecutionProvider",
                "tensorrt": "TensorrtExecutionProvider",
                "nnapi": "NnapiExecutionProvider",
                "qnn": "QNNExecutionProvider",
            },
        ),
        Runtime(
            name="torchscript",
            format=ModelFormat.TORCHSCRIPT,
            package="torch",
            inspect=inspect_torchscript,
            providers={"cpu": "cpu", "cuda": "cuda"},
        ),
    )
}


def provider_name(runtime: str, wanted: str) -> str:
    """Return a provider's name as its runtime has it, from that or the short name; empty stays empty.

    Raises:
        InvalidRequestError: If the runtime has no such provider in any build.
    """
    known = RUNTIMES[runtime].providers
    if not wanted or wanted in known.values():
        return wanted
    if wanted.lower() not in known:
        raise InvalidRequestError(
            f"spec.provider is '{shown(wanted)}'; runtime {runtime} knows {', '.join(known)}, leave it empty for the CPU"
        )
    return known[wanted.lower()]


def offered(description: RuntimeDescription) -> RuntimeDescription:
    """Return a description with those of the build's providers that EdgeNAS offers."""
    known = RUNTIMES[description.name].providers.values()
    return RuntimeDescription(
        name=description.name,
        library=description.library,
        version=description.version,
        providers=tuple(name for name in description.providers if name in known),
    )


def look_up(python: str, name: str) -> RuntimeDescription | UnavailableRuntime:
    """Return whether a Python has a runtime, without importing it: its providers are then not known yet."""
    runtime = RUNTIMES[name]
    try:
        done = subprocess.run(
            [python, "-c", LOOKUP, runtime.package],
            capture_output=True,
            text=True,
            timeout=LOOKUP_LIMIT_S,
            stdin=subprocess.DEVNULL,
            env=worker_environment(python),
        )
        # The last line: whatever else runs when this Python starts may print as well.
        found, version = json.loads((done.stdout.splitlines() or [""])[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return UnavailableRuntime(
            name=name, reason=f"'{python}' does not tell whether it has {runtime.package}: {error}"
        )
    if not found:
        return UnavailableRuntime(name=name, reason=f"'{python}' has no {runtime.package}; {REMEDIES[name]}")
    return RuntimeDescription(name=name, library=runtime.package, version=version, providers=())


def survey(python: str) -> tuple[tuple[RuntimeDescription, ...], tuple[UnavailableRuntime, ...]]:
    """Return the runtimes that a Python can import, by importing each, and those that it cannot."""
    found: list[RuntimeDescription] = []
    missing: list[UnavailableRuntime] = []
    for name in RUNTIMES:
        known = look_up(python, name)
        if isinstance(known, UnavailableRuntime):
            missing.append(known)
            continue
        try:
            worker = WorkerProcess(python, name)
            try:
                found.append(offered(worker.greet()))
            finally:
                worker.close()
        except RuntimeUnavailableError as error:
            missing.append(UnavailableRuntime(name=name, reason=str(error)))
    return tuple(found), tuple(missing)
