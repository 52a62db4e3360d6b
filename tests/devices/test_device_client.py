"""The client and the agent on this machine, over real gRPC."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from edgenas.v1 import (
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

from controller.core.errors import BenchmarkFailedError, DeviceError, DeviceUnreachableError, NotFoundError
from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.core.network import INPUT, NetworkBuilder
from controller.core.options import MeasurementOptions
from controller.core.primitives import BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, ReLU
from controller.devices.client import DeviceClient
from controller.devices.connect import connected
from controller.devices.local import LocalAgent
from controller.models.artifact import export
from controller.models.module import seeded_module

SEARCH = MeasurementMode.SEARCH


@pytest.fixture(scope="module")
def model() -> ExportedModel:
    builder = NetworkBuilder(input_shape=(3, 16, 16))
    with builder.block("stem", "stem"):
        conv = builder.add("conv", Conv2d(8, 3), INPUT)
        features = builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), conv))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(4), builder.add("pool", GlobalAvgPool2d(), features))
    return export(seeded_module(builder.build(), 0), ModelFormat.ONNX)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


@pytest.fixture(scope="module", autouse=True)
def _hurried() -> Iterator[None]:
    """Let agents neither wait for a calm machine nor measure again on a busy one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGENAS_LOCAL_AGENT", "--gate-limit-s 0 --retries 0 --measure-limit-s 1")
        yield


@pytest.fixture(scope="module")
def agent(state_dir: Path) -> Iterator[LocalAgent]:
    with LocalAgent(state_dir) as running:
        yield running


@pytest.fixture
def client(agent: LocalAgent) -> Iterator[DeviceClient]:
    with DeviceClient("bench", agent.address, patience_s=30, revive=agent.ensure_running) as connection:
        yield connection


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_description_tells_what_runs_here(client: DeviceClient) -> None:
    found = client.describe()

    assert found.shares_processor
    assert "onnx" in [runtime.name for runtime in found.runtimes]
    assert found.logical_cores >= found.physical_cores >= 1


def test_measurement_arrives_whole_and_is_remembered(client: DeviceClient, model: ExportedModel) -> None:
    events: list[str] = []

    measured = client.measure(
        model, request_id="whole", model_name="net", mode=SEARCH, on_event=events.append
    )

    latency = measured.latency
    phases = [event for event in events if event in ("load", "warm up", "measure")]
    assert phases[:3] == ["load", "warm up", "measure"]
    assert latency.min_ms <= latency.median_ci_low_ms <= latency.median_ms <= latency.median_ci_high_ms
    assert latency.samples == len(measured.samples_ms) >= 64
    assert measured.model_sha256 == model.sha256
    assert measured.input_shapes == {"input": (1, 3, 16, 16)}
    assert measured.energy_mj is None
    assert measured.energy_absent_reason
    assert client.benchmark("whole") == measured
    listed = client.benchmarks(model_sha256=model.sha256, limit=1)
    assert [found.latency for found in listed] == [latency]


def test_same_request_id_returns_the_first_answer(client: DeviceClient, model: ExportedModel) -> None:
    first = client.measure(model, request_id="again", model_name="net", mode=SEARCH)

    assert client.measure(model, request_id="again", model_name="net", mode=SEARCH) == first


def test_listing_pages_until_the_limit(client: DeviceClient, model: ExportedModel) -> None:
    for index in range(3):
        client.measure(model, request_id=f"page-{index}", model_name="net", mode=SEARCH)

    newest = [found.request_id for found in client.benchmarks(limit=2)]

    assert newest == ["page-2", "page-1"]


def test_broken_model_is_a_failed_benchmark(client: DeviceClient) -> None:
    data = b"this is no model"
    broken = ExportedModel(
        data=data, format=ModelFormat.ONNX, sha256=hashlib.sha256(data).hexdigest(), precision="float32"
    )

    with pytest.raises(BenchmarkFailedError, match=r"device 'bench' could not measure 'junk'"):
        client.measure(broken, request_id="junk", model_name="junk", mode=SEARCH)


def test_unknown_benchmark_is_not_found(client: DeviceClient) -> None:
    with pytest.raises(NotFoundError, match="nobody-asked"):
        client.benchmark("nobody-asked")


def test_refusal_of_the_agent_is_passed_on(client: DeviceClient, model: ExportedModel) -> None:
    with pytest.raises(DeviceError, match=r"device 'bench' refused: .*threads"):
        client.measure(
            model,
            request_id="threads",
            model_name="net",
            mode=SEARCH,
            options=MeasurementOptions(threads=5000),
        )


def test_silence_beyond_patience_names_device_address_and_next_step() -> None:
    address = f"127.0.0.1:{free_port()}"

    with (
        DeviceClient("attic", address, patience_s=1) as client,
        pytest.raises(
            DeviceUnreachableError,
            match=rf"device 'attic' at {address} gave no answer for 1 s.*edgenas-agent serve",
        ),
    ):
        client.describe()


def test_killed_local_agent_comes_back_with_its_history(
    state_dir: Path, client: DeviceClient, model: ExportedModel
) -> None:
    before = client.measure(model, request_id="before", model_name="net", mode=SEARCH)
    process = next(child for child in psutil.Process().children() if str(state_dir) in child.cmdline())
    process.kill()
    process.wait(timeout=30)

    assert client.benchmark("before") == before


def test_second_host_process_shares_the_local_agent(agent: LocalAgent, state_dir: Path) -> None:
    second = LocalAgent(state_dir)

    with second:
        assert second.address == agent.address

    with DeviceClient("bench", agent.address, patience_s=1) as client:
        assert client.describe().runtimes


def test_local_agent_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "local-agent").write_text("a file where the folder should be")

    with (
        pytest.raises(DeviceError, match="the agent on this machine did not start"),
        connected("local", tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "reason"),
    [("--no-such-option", "No such option"), ("'unbalanced", "EDGENAS_LOCAL_AGENT=.* is not understood")],
)
def test_options_of_the_local_agent_that_are_wrong_are_told(
    options: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGENAS_LOCAL_AGENT", options)

    with (
        pytest.raises(DeviceError, match=f"the agent on this machine did not start: .*{reason}"),
        connected("local", tmp_path),
    ):
        pass


class FlakyBenchmarks(benchmark_pb2_grpc.BenchmarkServiceServicer):
    """Keeps the first caller in the queue for longer than its patience, then drops the link."""

    def __init__(self, record: benchmark_pb2.BenchmarkRecord) -> None:
        self._record = record
        self.calls = 0

    def RunBenchmark(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        self.calls += 1
        if self.calls == 1:
            for position in range(15):
                yield benchmark_pb2.BenchmarkEvent(queued=benchmark_pb2.BenchmarkQueued(position=position))
                threading.Event().wait(0.1)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the link is gone")
        yield benchmark_pb2.BenchmarkEvent(result=self._record)


class EveryModel(model_pb2_grpc.ModelServiceServicer):
    def HasModel(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        return model_pb2.HasModelResponse(present=True)


@contextlib.contextmanager
def serving(*services: tuple[Callable[..., object], object]) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    for add, service in services:
        add(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_patience_runs_from_the_last_sign_of_life(model: ExportedModel) -> None:
    spec = benchmark_pb2.BenchmarkSpec(mode=benchmark_pb2.MEASUREMENT_MODE_SEARCH)
    benchmarks = FlakyBenchmarks(benchmark_pb2.BenchmarkRecord(request_id="late", spec=spec))

    with (
        serving(
            (benchmark_pb2_grpc.add_BenchmarkServiceServicer_to_server, benchmarks),
            (model_pb2_grpc.add_ModelServiceServicer_to_server, EveryModel()),
        ) as address,
        DeviceClient("slow", address, patience_s=1) as client,
    ):
        measured = client.measure(model, request_id="late", model_name="net", mode=SEARCH)

    assert measured.request_id == "late"
    assert benchmarks.calls == 2


def test_agent_of_another_wire_version_is_refused_with_both_versions() -> None:
    class Newer(device_pb2_grpc.DeviceServiceServicer):
        def DescribeDevice(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
            return device_pb2.DescribeDeviceResponse(protocol_version=99, agent_version="9.9")

    with (
        serving((device_pb2_grpc.add_DeviceServiceServicer_to_server, Newer())) as address,
        DeviceClient("new", address) as client,
        pytest.raises(DeviceError, match=r"version 99 .*agent 9\.9.*version 1"),
    ):
        client.describe()


def lost_event() -> benchmark_pb2.BenchmarkEvent:
    failure = benchmark_pb2.BenchmarkFailure(
        request_id="again", reason=benchmark_pb2.FAILURE_REASON_LOST, message="the agent ended; ask again"
    )
    return benchmark_pb2.BenchmarkEvent(failure=failure)


class RestartingBenchmarks(benchmark_pb2_grpc.BenchmarkServiceServicer):
    """Loses a job as often as it is told to, each time with the link: the agent ended, and came back."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.calls: list[str] = []
        self._away = False

    def RunBenchmark(self, request, context):  # type: ignore[no-untyped-def] # noqa: N802
        self.calls.append(request.request_id)
        if self._away:
            self._away = False
            yield lost_event()
        elif self.losses:
            self.losses -= 1
            self._away = True
            yield benchmark_pb2.BenchmarkEvent(started=benchmark_pb2.BenchmarkStarted())
            context.abort(grpc.StatusCode.UNAVAILABLE, "the agent ended")
        else:
            spec = benchmark_pb2.BenchmarkSpec(mode=benchmark_pb2.MEASUREMENT_MODE_SEARCH)
            record = benchmark_pb2.BenchmarkRecord(request_id=request.request_id, spec=spec)
            yield benchmark_pb2.BenchmarkEvent(result=record)


@pytest.mark.parametrize(("losses", "measured"), [(1, True), (2, True), (3, False)])
def test_lost_job_is_asked_for_again_but_not_for_ever(
    model: ExportedModel, losses: int, measured: bool
) -> None:
    benchmarks = RestartingBenchmarks(losses)
    with (
        serving(
            (benchmark_pb2_grpc.add_BenchmarkServiceServicer_to_server, benchmarks),
            (model_pb2_grpc.add_ModelServiceServicer_to_server, EveryModel()),
        ) as address,
        DeviceClient("bench", address, patience_s=30) as client,
    ):
        if measured:
            found = client.measure(model, request_id="again", model_name="net", mode=SEARCH)
            assert found.request_id == "again"
        else:
            with pytest.raises(BenchmarkFailedError, match="the agent ended"):
                client.measure(model, request_id="again", model_name="net", mode=SEARCH)
    assert set(benchmarks.calls) == {"again"}
