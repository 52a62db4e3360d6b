"""What the client asks of an agent, and what it makes of an agent that is older than the question."""

import itertools
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edgenas.v1 import benchmark_pb2, measurement_pb2
from fake_agent import FakeAgent, figures_of, serving
from google.protobuf.timestamp_pb2 import Timestamp

from controller.core.errors import DeviceError, DeviceUnreachableError
from controller.core.measurement import ExportedModel, MeasurementMode, ModelFormat
from controller.core.options import InputData, MeasurementOptions
from controller.devices import client as module
from controller.devices.client import DeviceClient

MODEL = ExportedModel(data=b"model", format=ModelFormat.ONNX, sha256="ab" * 32, precision="float32")
NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


@pytest.fixture
def agent() -> FakeAgent:
    return FakeAgent()


@pytest.fixture
def client(agent: FakeAgent) -> Iterator[DeviceClient]:
    with serving(agent) as address, DeviceClient("bench", address, patience_s=1) as connection:
        yield connection


def measure(client: DeviceClient, options: MeasurementOptions, events: list[str] | None = None):  # type: ignore[no-untyped-def]
    return client.measure(
        MODEL,
        request_id="one",
        model_name="net",
        mode=MeasurementMode.FULL,
        options=options,
        on_event=(events if events is not None else []).append,
    )


def old_figures(_: benchmark_pb2.RunBenchmarkRequest) -> measurement_pb2.Measurement:
    figures = figures_of(1.0)
    figures.ClearField("agent_version")
    return figures


def test_client_sends_its_options_and_tells_what_happens(agent: FakeAgent, client: DeviceClient) -> None:
    agent.progress = [
        benchmark_pb2.BenchmarkProgress(
            phase=benchmark_pb2.BENCHMARK_PHASE_GATE, detail="62 °C, waiting for 48 °C", attempt=2
        )
    ]
    events: list[str] = []

    measured = measure(client, MeasurementOptions(provider="XnnpackExecutionProvider", threads=2), events)

    assert agent.asked[0].spec.provider == "XnnpackExecutionProvider"
    assert agent.asked[0].spec.threads == 2
    assert events == ["gate: 62 °C, waiting for 48 °C, attempt 2"]
    assert measured.latency.median_ms == 1.0
    assert agent.uploaded_bytes == 5


def test_figures_of_an_agent_that_ignored_an_option_are_refused(
    agent: FakeAgent, client: DeviceClient
) -> None:
    agent.figures = old_figures

    with pytest.raises(
        DeviceError, match=r"'bench' measured 'net' without heeding input_data, profile: .*update edgenas"
    ):
        measure(client, MeasurementOptions(input_data=InputData.ZEROS, profile=True))


def test_old_agent_serves_what_it_always_knew_and_tells_why_it_has_no_energy(
    agent: FakeAgent, client: DeviceClient
) -> None:
    agent.figures = old_figures

    measured = measure(client, MeasurementOptions(threads=2, seed=5, input_shapes={"x": (1, 3)}, energy=True))

    assert (measured.energy_mj, measured.energy_absent_reason) == (None, "no power sensor")


def test_cancel_tells_the_agent_which_job(agent: FakeAgent, client: DeviceClient) -> None:
    assert client.cancel("bench-1")
    assert agent.cancelled == ["bench-1"]


def listed(name: str, hour: int, *flags: int) -> benchmark_pb2.BenchmarkRecord:
    return benchmark_pb2.BenchmarkRecord(
        request_id=f"{name}-{hour}",
        model_name=name,
        spec=benchmark_pb2.BenchmarkSpec(mode=benchmark_pb2.MEASUREMENT_MODE_FULL),
        started_at=Timestamp(seconds=int((NOON + timedelta(hours=hour)).timestamp())),
        measurement=measurement_pb2.Measurement(flags=flags),
    )


def test_filters_are_sent(agent: FakeAgent, client: DeviceClient) -> None:
    client.benchmarks(
        model_name="net", started_after=NOON, started_before=NOON + timedelta(hours=1), flagged=False
    )

    (asked,) = agent.listed
    assert asked.model_name == "net"
    assert asked.started_after.ToDatetime(tzinfo=UTC) == NOON
    assert asked.started_before.ToDatetime(tzinfo=UTC) == NOON + timedelta(hours=1)
    assert (asked.HasField("flagged"), asked.flagged) == (True, False)


def test_no_filter_asks_for_flagged_and_clean(agent: FakeAgent, client: DeviceClient) -> None:
    client.benchmarks()

    assert not agent.listed[0].HasField("flagged")


def test_filters_hold_where_an_older_agent_ignores_them(agent: FakeAgent, client: DeviceClient) -> None:
    noise = measurement_pb2.MEASUREMENT_FLAG_NOISE
    agent.records = [listed("net", 3, noise), listed("net", 2), listed("other", 1), listed("net", 0, noise)]

    def ids(**filters: object) -> list[str]:
        return [found.request_id for found in client.benchmarks(**filters)]  # type: ignore[arg-type]

    assert ids(model_name="other") == ["other-1"]
    assert ids(flagged=True) == ["net-3", "net-0"]
    assert ids(flagged=False) == ["net-2", "other-1"]
    assert ids(started_before=NOON + timedelta(hours=2)) == ["other-1", "net-0"]


def test_upload_that_is_held_back_time_and_again_has_all_the_time_it_needs(
    agent: FakeAgent, client: DeviceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UPLOAD_SILENCE_S", 1.5)
    model = ExportedModel(
        data=bytes(40_000_000), format=ModelFormat.ONNX, sha256="cd" * 32, precision="float32"
    )
    holds = itertools.count()
    # Parts that the connection itself takes in advance tell nothing: there are ten from one pause to the next.
    agent.hold = lambda: threading.Event().wait(0.8) if next(holds) % 10 == 5 else None
    started_s = time.monotonic()

    client.measure(model, request_id="held", model_name="held", mode=MeasurementMode.SEARCH)

    assert agent.uploaded_bytes == 40_000_000
    assert time.monotonic() - started_s > 2 * 1.5


def test_upload_of_which_nothing_more_is_taken_is_given_up(
    agent: FakeAgent, client: DeviceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UPLOAD_SILENCE_S", 0.5)
    ended = threading.Event()
    agent.hold = ended.wait

    try:
        with pytest.raises(
            DeviceUnreachableError,
            match=r"device 'bench' at .* took no more of a model of 0\.0 MB for 1 s; .*log",
        ):
            measure(client, MeasurementOptions())
    finally:
        ended.set()


def resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the high-water mark needs Linux")
def test_upload_of_a_large_model_holds_no_second_copy(agent: FakeAgent, client: DeviceClient) -> None:
    model = ExportedModel(
        data=bytes(200_000_000), format=ModelFormat.ONNX, sha256="cd" * 32, precision="float32"
    )
    client.describe()  # the connection itself takes memory
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmHWM")

    client.measure(model, request_id="large", model_name="large", mode=MeasurementMode.SEARCH)

    assert agent.uploaded_bytes == 200_000_000
    # Sender and receiver are this one process.
    assert resident_bytes("VmHWM") - before < 32_000_000
