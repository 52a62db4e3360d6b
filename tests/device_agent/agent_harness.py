"""A real agent in a process of its own, and real models to measure on it."""

import contextlib
import hashlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import numpy
import onnx
import psutil
from edgenas.v1 import (
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from onnx import TensorProto, helper, numpy_helper

CALL_LIMIT_S = 60
SEARCH = benchmark_pb2.MEASUREMENT_MODE_SEARCH
FULL = benchmark_pb2.MEASUREMENT_MODE_FULL


def conv_model(*, seed: int = 0, shape: Sequence[int | str] | None = ("batch", 3, 16, 16)) -> bytes:
    """Return a small convolution with a ReLU as ONNX bytes; another seed gives another sha256."""
    weight = numpy.random.default_rng(seed).standard_normal((8, 3, 3, 3)).astype("float32")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["features"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["features"], ["output"]),
        ],
        "conv",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return _serialized(graph)


def lookup_model() -> bytes:
    """Return a model that indexes a table of two rows, with an input of int64 and one of bool."""
    table = numpy.arange(8, dtype="float32").reshape(2, 4)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "index"], ["row"]),
            helper.make_node("Where", ["mask", "row", "row"], ["output"]),
        ],
        "lookup",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, [16]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [16, 4]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [16, 4])],
        [numpy_helper.from_array(table, "table")],
    )
    return _serialized(graph)


def padded_model(size_bytes: int) -> bytes:
    """Return a valid model that is at least this large, for uploads."""
    constant = numpy_helper.from_array(numpy.zeros(size_bytes // 4, dtype="float32"), "constant")
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["constant"], ["output"], keepdims=0)],
        "padded",
        [],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [])],
        [constant],
    )
    return _serialized(graph)


def _serialized(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spec(
    *,
    mode: benchmark_pb2.MeasurementMode = SEARCH,
    runtime: str = "onnx",
    threads: int = 1,
    seed: int = 0,
    **input_shapes: Sequence[int],
) -> benchmark_pb2.BenchmarkSpec:
    shapes = [benchmark_pb2.InputShape(name=name, dimensions=sizes) for name, sizes in input_shapes.items()]
    return benchmark_pb2.BenchmarkSpec(
        runtime=runtime, threads=threads, input_shapes=shapes, seed=seed, mode=mode
    )


def upload_parts(
    data: bytes, *, sha256: str | None = None, size: int | None = None, chunk: int = 1 << 20
) -> Iterator[model_pb2.UploadModelRequest]:
    yield model_pb2.UploadModelRequest(
        header=model_pb2.UploadModelHeader(
            sha256=sha256_of(data) if sha256 is None else sha256,
            format=model_pb2.MODEL_FORMAT_ONNX,
            size_bytes=len(data) if size is None else size,
        )
    )
    for start in range(0, len(data), chunk):
        yield model_pb2.UploadModelRequest(chunk=data[start : start + chunk])


class Agent:
    """A running agent and a client of it."""

    def __init__(
        self, process: subprocess.Popen[str], address: str, state_dir: Path, channel: grpc.Channel
    ) -> None:
        self.process = process
        self.address = address
        self.state_dir = state_dir
        self.channel = channel
        self.devices = device_pb2_grpc.DeviceServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.benchmarks = benchmark_pb2_grpc.BenchmarkServiceStub(self.channel)

    def describe(self) -> device_pb2.DescribeDeviceResponse:
        """Return the board's description once the agent knows its runtime."""
        deadline = time.monotonic() + CALL_LIMIT_S
        while True:
            try:
                return self.devices.DescribeDevice(device_pb2.DescribeDeviceRequest(), timeout=CALL_LIMIT_S)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise

    def upload(self, data: bytes) -> str:
        """Upload a model and return its sha256."""
        return self.models.UploadModel(upload_parts(data), timeout=CALL_LIMIT_S).sha256

    def watch(
        self,
        sha256: str,
        wanted: benchmark_pb2.BenchmarkSpec | None = None,
        *,
        request_id: str | None = None,
        name: str = "",
    ) -> Iterator[benchmark_pb2.BenchmarkEvent]:
        """Ask for a benchmark and return the stream of its events."""
        return self.benchmarks.RunBenchmark(
            benchmark_pb2.RunBenchmarkRequest(
                request_id=request_id or str(uuid.uuid4()),
                model_sha256=sha256,
                model_name=name,
                spec=wanted or spec(),
            ),
            timeout=CALL_LIMIT_S,
        )

    def measure(self, sha256: str, wanted: benchmark_pb2.BenchmarkSpec | None = None, **options: str):
        """Run a benchmark to its end and return the record."""
        *_, last = self.watch(sha256, wanted, **options)
        assert last.HasField("result"), last
        return last.result

    def fail(self, sha256: str, wanted: benchmark_pb2.BenchmarkSpec | None = None):
        """Run a benchmark to its end and return the failure."""
        *_, last = self.watch(sha256, wanted)
        assert last.HasField("failure"), last
        return last.failure

    def cancel(self, request_id: str) -> bool:
        request = benchmark_pb2.CancelBenchmarkRequest(request_id=request_id)
        return self.benchmarks.CancelBenchmark(request, timeout=CALL_LIMIT_S).cancelled

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def kill(self) -> None:
        """End the agent as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=CALL_LIMIT_S)


@contextlib.contextmanager
def running_agent(
    state_dir: Path,
    *options: str,
    address: str = "127.0.0.1:0",
    prefix: Sequence[str] = (),
    channel_to: Callable[[str], grpc.Channel] | None = None,
) -> Iterator[Agent]:
    """Run an agent, behind the words of `prefix`, until the context closes.

    It has TLS where `channel_to` tells how to reach its address, and none otherwise.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    command = [*prefix, sys.executable, "-m", "device_agent", "serve", "--address", address]
    if channel_to is None:
        command += ["--insecure"]
    # Tests of the gate, of retries and of how long is measured ask for them; the others need not wait for a quiet machine.
    command += ["--gate-limit-s", "0", "--retries", "0", "--measure-limit-s", "1"]
    command += ["--state-dir", str(state_dir), "--exit-on-stdin-eof", *options]
    with (
        (state_dir / "stderr.log").open("a") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            process.kill()
            raise RuntimeError((state_dir / "stderr.log").read_text())
        bound = line.removeprefix("listening on ").strip()
        agent = Agent(process, bound, state_dir, (channel_to or grpc.insecure_channel)(bound))
        try:
            yield agent
        finally:
            agent.channel.close()
            process.stdin.close()
            try:
                process.wait(timeout=CALL_LIMIT_S)
            finally:
                process.kill()


def until(events: Iterator[benchmark_pb2.BenchmarkEvent], kind: str) -> benchmark_pb2.BenchmarkEvent:
    """Read a stream up to its first event of a kind and return it."""
    for event in events:
        if event.WhichOneof("event") == kind:
            return event
    raise AssertionError(f"the stream ended without an event '{kind}'")


def until_measuring(events: Iterator[benchmark_pb2.BenchmarkEvent]) -> None:
    for event in events:
        if event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_MEASURE:
            return
    raise AssertionError("the stream ended before the model was measured")
