"""An agent in this process, over real gRPC, that answers what a test wants."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from edgenas.v1 import (
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    measurement_pb2,
    model_pb2,
    model_pb2_grpc,
)

Figures = Callable[[benchmark_pb2.RunBenchmarkRequest], measurement_pb2.Measurement]


def figures_of(median_ms: float, **more: object) -> measurement_pb2.Measurement:
    """Return figures of an agent that knows every field, with little in them."""
    return measurement_pb2.Measurement(
        latency=measurement_pb2.LatencyStatistics(
            median_ms=median_ms,
            median_ci_low_ms=0.99 * median_ms,
            median_ci_high_ms=1.01 * median_ms,
            p90_ms=1.2 * median_ms,
            samples=100,
        ),
        load_ms=12.0,
        first_inference_ms=8.0,
        memory=measurement_pb2.MemoryUsage(peak_bytes=20_000_000, method="VmHWM"),
        energy_absent_reason="no power sensor",
        runtime_version="onnxruntime 1.23.0",
        provider="CPUExecutionProvider",
        agent_version="0.1.0",
        kernel_release="6.12.0",
        **more,  # type: ignore[arg-type]
    )


@dataclass
class FakeAgent(
    benchmark_pb2_grpc.BenchmarkServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
    device_pb2_grpc.DeviceServiceServicer,
):
    """Keeps no bytes of what is uploaded, only how many there were.

    Attributes:
        figures: What a request is answered with; a text instead is the message of a failure.
        progress: Sent before each result.
        description: What the device says of itself.
        records: What it lists, newest first.
        asked: Every request for a benchmark, in order.
        listed: Every request for a list.
        cancelled: Request ids that were cancelled.
        uploaded_bytes: Size of all models sent.
        hold: Called before each part of a model is taken.
    """

    figures: Callable[[benchmark_pb2.RunBenchmarkRequest], measurement_pb2.Measurement | str] = lambda _: (
        figures_of(1.0)
    )
    progress: list[benchmark_pb2.BenchmarkProgress] = field(default_factory=list)
    description: device_pb2.DescribeDeviceResponse = field(
        default_factory=lambda: device_pb2.DescribeDeviceResponse(protocol_version=1, agent_version="0.1.0")
    )
    records: list[benchmark_pb2.BenchmarkRecord] = field(default_factory=list)
    asked: list[benchmark_pb2.RunBenchmarkRequest] = field(default_factory=list)
    listed: list[benchmark_pb2.ListBenchmarksRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    uploaded_bytes: int = 0
    hold: Callable[[], object] = lambda: None

    def DescribeDevice(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        return self.description

    def HasModel(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        return model_pb2.HasModelResponse(present=False)

    def UploadModel(self, request_iterator, context):  # type: ignore[no-untyped-def] # noqa: N802
        for part in request_iterator:
            self.hold()
            self.uploaded_bytes += len(part.chunk)
        return model_pb2.UploadModelResponse(size_bytes=self.uploaded_bytes)

    def RunBenchmark(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        self.asked.append(request)
        for progress in self.progress:
            yield benchmark_pb2.BenchmarkEvent(progress=progress)
        answer = self.figures(request)
        if isinstance(answer, str):
            failure = benchmark_pb2.BenchmarkFailure(request_id=request.request_id, message=answer)
            yield benchmark_pb2.BenchmarkEvent(failure=failure)
            return
        record = benchmark_pb2.BenchmarkRecord(
            request_id=request.request_id,
            model_sha256=request.model_sha256,
            model_name=request.model_name,
            spec=request.spec,
            measurement=answer,
        )
        yield benchmark_pb2.BenchmarkEvent(result=record)

    def CancelBenchmark(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        self.cancelled.append(request.request_id)
        return benchmark_pb2.CancelBenchmarkResponse(cancelled=True)

    def ListBenchmarks(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        self.listed.append(request)
        return benchmark_pb2.ListBenchmarksResponse(benchmarks=self.records)

    def GetBenchmark(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        return next(record for record in self.records if record.request_id == request.request_id)


@contextlib.contextmanager
def serving(agent: FakeAgent) -> Iterator[str]:
    """Yield the address that an agent listens on."""
    server = grpc.server(ThreadPoolExecutor(2))
    benchmark_pb2_grpc.add_BenchmarkServiceServicer_to_server(agent, server)
    model_pb2_grpc.add_ModelServiceServicer_to_server(agent, server)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(agent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stopped: threading.Event = server.stop(None)
        stopped.wait()
