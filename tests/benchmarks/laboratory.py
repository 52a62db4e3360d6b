"""What the measuring programs share: real models, a real agent, and a bare loop to compare with.

Every program here prints its figures with how they were made. They are no tests: what they find depends on
the machine, and `docs/benchmarks.md` holds what they found on one.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "device_agent"))

from agent_harness import FULL, SEARCH, Agent, spec
from edgenas.v1 import benchmark_pb2, measurement_pb2
from paired_agents import paired_agent

from device_agent.benchmark import CONTAMINATING
from device_agent.measuring.flags import (
    SEVERE_SHARE,
    SPAN_MS,
    SPREAD_SHARE,
    relative_spread,
    severe_share,
    span_means,
)
from device_agent.worker import median

BIG_MODELS = ("mobilenet_v2", "squeezenet1_1", "resnet18")
SMALL_MODEL = "small"
# What the agent does unless it is told otherwise; those that tests run are told.
THOROUGH = ("--gate-limit-s", "120", "--measure-limit-s", "60")

# The loop that anybody would write to time a model by hand.
BARE_LOOP = """
import json, sys, time
import numpy, onnxruntime
path, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
binding = session.io_binding()
for entry in session.get_inputs():
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    binding.bind_cpu_input(entry.name, numpy.random.RandomState(0).standard_normal(shape).astype("float32"))
for entry in session.get_outputs():
    binding.bind_output(entry.name)
end = time.perf_counter() + 1.0
while time.perf_counter() < end:
    session.run_with_iobinding(binding)
samples = []
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    start = time.perf_counter_ns()
    session.run_with_iobinding(binding)
    samples.append(time.perf_counter_ns() - start)
print(json.dumps([sample / 1e6 for sample in samples]))
"""


@dataclass(frozen=True)
class Model:
    name: str
    path: Path
    data: bytes


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every program takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="*", help="ONNX files of your own instead of the usual four")
    parser.add_argument(
        "--log", type=Path, help="append every single figure to this file, a JSON object a line"
    )
    return parser


def machine() -> str:
    """Return this machine in a few words."""
    import onnxruntime

    cpu = "unknown processor"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, onnxruntime {onnxruntime.__version__}"


@contextlib.contextmanager
def models(paths: list[str] | None) -> Iterator[list[Model]]:
    """Yield the models to measure: torchvision's, with random weights, or files of the user's own."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(path) for path in paths] if paths else _export(Path(folder))
        yield [Model(path.stem, path, path.read_bytes()) for path in files]


def _export(folder: Path) -> list[Path]:
    import torch
    import torchvision

    networks = {name: (getattr(torchvision.models, name)(weights=None), 224) for name in BIG_MODELS}
    networks[SMALL_MODEL] = (
        torchvision.models.mobilenet_v2(weights=None, num_classes=10, width_mult=0.25),
        32,
    )
    paths = []
    for name, (network, size) in networks.items():
        path = folder / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = torch.zeros(1, 3, size, size)
            torch.onnx.export(network.eval(), (image,), path, dynamo=True, external_data=False, verbose=False)
        paths.append(path)
    return paths


@dataclass(frozen=True)
class BareLoop:
    """What a bare loop found; its scatter as the agent's `UNSTABLE` sees it."""

    median_ms: float
    severe_share: float
    spread: float

    @property
    def unstable(self) -> bool:
        return self.severe_share > SEVERE_SHARE or self.spread >= SPREAD_SHARE


def bare_loop(model: Model, threads: int, seconds: float) -> BareLoop:
    """Run a bare loop of the runtime in a process of its own."""
    # As in the agent's workers: reporting to the maker would be a disturbance of its own.
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", BARE_LOOP, str(model.path), str(threads), str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    samples_ms = json.loads(done.stdout)
    # Interrupts are outliers among inferences of less than a millisecond: means over about one are looked at.
    units = span_means(samples_ms, 1.0)
    return BareLoop(
        median_ms=median(samples_ms),
        severe_share=severe_share(units),
        spread=relative_spread(span_means(units, SPAN_MS)),
    )


@contextlib.contextmanager
def agent(*options: str) -> Iterator[Agent]:
    """Yield a real agent with an empty state, which serves and announces itself as on a board."""
    with (
        tempfile.TemporaryDirectory() as folder,
        paired_agent(Path(folder), "--announce", *THOROUGH, *options) as (running, _),
    ):
        running.describe()
        yield running


def ask(
    running: Agent, sha256: str, threads: int, *, mode: int = FULL, name: str = "", limit_s: float = 900
) -> Iterator[benchmark_pb2.BenchmarkEvent]:
    """Ask for a benchmark and return the stream of its events."""
    request = benchmark_pb2.RunBenchmarkRequest(
        request_id=str(uuid.uuid4()),
        model_sha256=sha256,
        model_name=name,
        spec=spec(mode=mode, threads=threads),
    )
    return running.benchmarks.RunBenchmark(request, timeout=limit_s)


def measure(running: Agent, sha256: str, threads: int, **options) -> measurement_pb2.Measurement:
    """Run a benchmark to its end."""
    *_, last = ask(running, sha256, threads, **options)
    if not last.HasField("result"):
        raise SystemExit(f"the agent could not measure: {last.failure.message}")
    return last.result.measurement


def flags(measurement: measurement_pb2.Measurement) -> list[str]:
    """Return the names of a measurement's flags."""
    return [
        measurement_pb2.MeasurementFlag.Name(flag).removeprefix("MEASUREMENT_FLAG_")
        for flag in measurement.flags
    ]


def contaminating(measurement: measurement_pb2.Measurement) -> list[str]:
    """Return the names of those flags that say that something disturbed the figures."""
    names = {flag.name for flag in CONTAMINATING}
    return [flag for flag in flags(measurement) if flag in names]


def log(path: Path | None, **figures: object) -> None:
    """Append one object to the log, if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"time": time.time(), **figures}) + "\n")


__all__ = ["FULL", "SEARCH", "Agent", "Model"]
