"""Answers to the wire, and what the history keeps of them."""

from collections.abc import Sequence
from datetime import datetime, timezone

from edgenas.v1 import benchmark_pb2, device_pb2, measurement_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from device_agent import __version__
from device_agent.access.identity import Certificates
from device_agent.benchmark import (
    BenchmarkRecord,
    BenchmarkRequest,
    BenchmarkSpec,
    Event,
    Failed,
    Finished,
    InputData,
    InputShape,
    Progress,
    Queued,
    Started,
)
from device_agent.board.description import Board
from device_agent.board.telemetry import TelemetrySample
from device_agent.measuring.measurer import Runtimes
from device_agent.sandbox import LAYERS
from device_agent.sensors import modelled
from device_agent.sensors.base import PowerSource
from device_agent.sensors.modelled import EnergyModel
from device_agent.serving.storage.history import HistoryEntry, Page
from device_agent.serving.wire.figures import measurement_to_wire
from device_agent.serving.wire.tables import (
    FORMATS_TO_WIRE,
    INPUT_DATA,
    INPUT_DATA_TO_WIRE,
    MODES,
    MODES_TO_WIRE,
    PHASES_TO_WIRE,
    PRECISIONS,
    PRECISIONS_TO_WIRE,
    REASONS_TO_WIRE,
)
from device_agent.serving.wire.versions import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION

TABLE_COLUMNS = (
    "started (UTC)",
    "request id",
    "model",
    "threads",
    "median ms",
    "95 % interval",
    "peak MiB",
    "flags",
)


def device_to_wire(
    board: Board,
    runtimes: Runtimes,
    power_sources: Sequence[tuple[PowerSource, str | None]],
    energy_model: EnergyModel | None,
    model_limit_bytes: int,
    certificates: Certificates,
) -> device_pb2.DescribeDeviceResponse:
    """Return the board's description. The formula, where there is one, is its last source of power and covers nothing."""
    formula = () if energy_model is None else (device_pb2.PowerSourceDescription(name=modelled.NAME),)
    return device_pb2.DescribeDeviceResponse(
        protocol_version=PROTOCOL_VERSION,
        oldest_protocol_version=OLDEST_PROTOCOL_VERSION,
        certificate=certificates.current,
        next_certificate=certificates.following,
        agent_version=__version__,
        hostname=board.hostname,
        board_model=board.board_model,
        cpu_model=board.cpu_model,
        machine=board.machine,
        os_name=board.os_name,
        kernel_release=board.kernel_release,
        python_version=board.python_version,
        physical_cores=board.physical_cores,
        logical_cores=board.logical_cores,
        memory_bytes=board.memory_bytes,
        runtimes=[
            device_pb2.RuntimeDescription(
                name=runtime.name,
                library=runtime.library,
                version=runtime.version,
                providers=runtime.providers,
            )
            for runtime in runtimes.available
        ],
        unavailable_runtimes=[
            device_pb2.UnavailableRuntime(name=runtime.name, reason=runtime.reason)
            for runtime in runtimes.missing
        ],
        power_sources=[
            *(
                device_pb2.PowerSourceDescription(
                    name=source.name, scope=source.scope.value, absent_reason=reason or ""
                )
                for source, reason in power_sources
            ),
            *formula,
        ],
        sandbox=[
            device_pb2.SandboxLayer(name=layer, absent_reason=runtimes.unprotected.get(layer, ""))
            for layer in LAYERS
            if runtimes.unprotected is not None
        ],
        boot_id=board.boot_id,
        model_size_limit_bytes=model_limit_bytes,
    )


def telemetry_to_wire(sample: TelemetrySample) -> device_pb2.TelemetrySample:
    """Return one telemetry sample."""
    return device_pb2.TelemetrySample(
        time=_timestamp(sample.time),
        temperature_c=sample.conditions.temperature_c,
        clock_mhz=sample.conditions.clock_mhz,
        cpu_percent=sample.cpu_percent,
        load_average_1min=sample.conditions.load_average_1min,
        available_memory_bytes=sample.conditions.available_memory_bytes,
        queued_jobs=sample.queued_jobs,
        power_mw=sample.power_mw,
        throttling=sample.conditions.throttling,
    )


def event_to_wire(event: Event) -> benchmark_pb2.BenchmarkEvent:
    """Return one event of a job."""
    if isinstance(event, Queued):
        return benchmark_pb2.BenchmarkEvent(queued=benchmark_pb2.BenchmarkQueued(position=event.position))
    if isinstance(event, Started):
        return benchmark_pb2.BenchmarkEvent(started=benchmark_pb2.BenchmarkStarted())
    if isinstance(event, Progress):
        progress = benchmark_pb2.BenchmarkProgress(
            phase=PHASES_TO_WIRE[event.phase], detail=event.detail, attempt=event.attempt
        )
        return benchmark_pb2.BenchmarkEvent(progress=progress)
    if isinstance(event, Finished):
        return benchmark_pb2.BenchmarkEvent(result=record_to_wire(event.record))
    return benchmark_pb2.BenchmarkEvent(failure=_failure(event))


def _failure(event: Failed) -> benchmark_pb2.BenchmarkFailure:
    return benchmark_pb2.BenchmarkFailure(
        request_id=event.request_id, reason=REASONS_TO_WIRE[event.reason], message=event.message
    )


def record_to_wire(encoded: bytes) -> benchmark_pb2.BenchmarkRecord:
    """Return a record as the history keeps it."""
    return benchmark_pb2.BenchmarkRecord.FromString(encoded)


def labels_in(summary: bytes) -> tuple[str, bool]:
    """Return the model's name of an encoded record, and whether its measurement carries flags."""
    record = record_to_wire(summary)
    return record.model_name, bool(record.measurement.flags)


def record_to_json(encoded: bytes) -> dict[str, object]:
    """Return a record as JSON values under the names of its protobuf fields."""
    # Takes 2.5 MB once it is imported, which the server has no use for.
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(record_to_wire(encoded), preserving_proto_field_name=True)


def record_to_cells(encoded: bytes) -> tuple[str, ...]:
    """Return a record as one row of text under `TABLE_COLUMNS`."""
    record = record_to_wire(encoded)
    latency = record.measurement.latency
    flags = map(measurement_pb2.MeasurementFlag.Name, record.measurement.flags)
    return (
        f"{record.started_at.ToDatetime():%Y-%m-%d %H:%M:%S}",
        record.request_id,
        record.model_name or record.model_sha256[:12],
        str(record.spec.threads),
        f"{latency.median_ms:.3f}",
        f"{latency.median_ci_low_ms:.3f}-{latency.median_ci_high_ms:.3f}",
        f"{record.measurement.memory.peak_bytes / (1 << 20):.1f}",
        ", ".join(flag.removeprefix("MEASUREMENT_FLAG_") for flag in flags) or "-",
    )


def page_to_wire(page: Page) -> benchmark_pb2.ListBenchmarksResponse:
    """Return one page of the history."""
    return benchmark_pb2.ListBenchmarksResponse(
        benchmarks=[record_to_wire(summary) for summary in page.summaries],
        next_page_token=page.next_token,
    )


def history_entry(request: BenchmarkRequest, record: BenchmarkRecord) -> HistoryEntry:
    """Return what the history keeps of a finished benchmark."""
    message = _record(record)
    encoded = message.SerializeToString()
    for raw in ("samples_ms", "warmup_ms", "groups_ms", "canary_turns"):
        message.measurement.ClearField(raw)
    return HistoryEntry(
        request_id=record.request_id,
        model_sha256=record.model_sha256,
        model_name=record.model_name,
        runtime=record.spec.runtime,
        flagged=bool(record.measurement.flags),
        started_at=record.started_at,
        request=encode_request(request),
        summary=message.SerializeToString(),
        record=encoded,
    )


def encode_request(request: BenchmarkRequest) -> bytes:
    """Return what was asked as bytes; `decode_request` is its inverse."""
    return benchmark_pb2.RunBenchmarkRequest(
        request_id=request.request_id,
        model_sha256=request.model_sha256,
        model_name=request.model_name,
        spec=_spec(request.spec),
    ).SerializeToString()


def decode_request(encoded: bytes) -> BenchmarkRequest:
    """Return what was asked from the bytes that `encode_request` made.

    Raises:
        ValueError: If it did not make them.
    """
    try:
        message = benchmark_pb2.RunBenchmarkRequest.FromString(encoded)
    except DecodeError as error:
        raise ValueError(f"these bytes are no request: {error}") from error
    if message.spec.mode not in MODES:
        raise ValueError(f"measurement mode {message.spec.mode} is unknown")
    spec = message.spec
    return BenchmarkRequest(
        request_id=message.request_id,
        model_sha256=message.model_sha256,
        model_name=message.model_name,
        spec=BenchmarkSpec(
            runtime=spec.runtime,
            threads=spec.threads,
            input_shapes=tuple(
                InputShape(name=shape.name, dimensions=tuple(shape.dimensions)) for shape in spec.input_shapes
            ),
            seed=spec.seed,
            mode=MODES[spec.mode],
            provider=spec.provider,
            # A request of an agent that did not know these fields yet has none of them.
            batch_size=spec.batch_size or 1,
            precision=PRECISIONS.get(spec.precision),
            input_data=INPUT_DATA.get(spec.input_data, InputData.RANDOM),
            cpu_affinity=tuple(spec.cpu_affinity),
            time_limit_s=spec.time_limit_s or None,
            most_attempts=spec.most_attempts or None,
            profile=spec.profile,
            energy=spec.energy,
            power_source=spec.power_source,
            macs=spec.macs or None,
        ),
    )


def _record(record: BenchmarkRecord) -> benchmark_pb2.BenchmarkRecord:
    return benchmark_pb2.BenchmarkRecord(
        request_id=record.request_id,
        model_sha256=record.model_sha256,
        model_name=record.model_name,
        model_format=FORMATS_TO_WIRE[record.model_format],
        spec=_spec(record.spec),
        started_at=_timestamp(record.started_at),
        finished_at=_timestamp(record.finished_at),
        measurement=measurement_to_wire(record.measurement),
    )


def _spec(spec: BenchmarkSpec) -> benchmark_pb2.BenchmarkSpec:
    return benchmark_pb2.BenchmarkSpec(
        runtime=spec.runtime,
        threads=spec.threads,
        input_shapes=[
            benchmark_pb2.InputShape(name=shape.name, dimensions=shape.dimensions)
            for shape in spec.input_shapes
        ],
        seed=spec.seed,
        mode=MODES_TO_WIRE[spec.mode],
        provider=spec.provider,
        batch_size=spec.batch_size,
        precision=PRECISIONS_TO_WIRE[spec.precision]
        if spec.precision
        else benchmark_pb2.PRECISION_UNSPECIFIED,
        input_data=INPUT_DATA_TO_WIRE[spec.input_data],
        cpu_affinity=spec.cpu_affinity,
        time_limit_s=spec.time_limit_s or 0.0,
        most_attempts=spec.most_attempts or 0,
        profile=spec.profile,
        energy=spec.energy,
        power_source=spec.power_source,
        macs=spec.macs or 0,
    )


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time.astimezone(timezone.utc))
    return message
