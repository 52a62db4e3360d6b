"""Requests from the wire: everything is checked here, and trusted behind it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from edgenas.v1 import benchmark_pb2, device_pb2, model_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from device_agent.benchmark import BenchmarkRequest, BenchmarkSpec, InputData, InputShape, ModelFormat
from device_agent.board.description import Board
from device_agent.board.limits import cpu_list, usable_cpus
from device_agent.errors import InvalidRequestError
from device_agent.runtimes.catalogue import RUNTIMES, provider_name
from device_agent.serving.wire.tables import FORMATS, INPUT_DATA, MODES, PRECISIONS
from device_agent.text import shown

MODEL_NAME_LIMIT = 256
POWER_SOURCE_LIMIT = 128
BATCH_LIMIT = 1 << 16
CHUNK_LIMIT_BYTES = 1 << 20
DEFAULT_PAGE_SIZE = 50
PAGE_SIZE_LIMIT = 500
DEFAULT_INTERVAL_MS = 1000
MIN_INTERVAL_MS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadHeader:
    """What a client announces of a model."""

    sha256: str
    format: ModelFormat
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """Which finished benchmarks a caller wants; empty or None filters nothing."""

    size: int
    token: str
    model_sha256: str
    model_name: str
    runtime: str
    started_after: datetime | None
    started_before: datetime | None
    flagged: bool | None


def request_id_from_wire(text: str) -> str:
    """Return a valid request id.

    Raises:
        InvalidRequestError: If it is not 1 to 128 of the allowed characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text):
        raise InvalidRequestError(
            f"request_id is '{shown(text)}'; expected 1 to 128 characters of A-Z a-z 0-9 . _ : -"
        )
    return text


def sha256_from_wire(text: str) -> str:
    """Return a valid sha256.

    Raises:
        InvalidRequestError: If it is not 64 lower-case hexadecimal digits.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise InvalidRequestError(
            f"sha256 is '{shown(text)}'; expected 64 lower-case hexadecimal digits, as sha256sum prints them"
        )
    return text


def request_from_wire(message: benchmark_pb2.RunBenchmarkRequest, board: Board) -> BenchmarkRequest:
    """Return a valid request with its number of threads filled in.

    Raises:
        InvalidRequestError: If a field is not acceptable on this board.
    """
    if len(message.model_name) > MODEL_NAME_LIMIT:
        raise InvalidRequestError(
            f"model_name has {len(message.model_name)} characters; keep it to {MODEL_NAME_LIMIT}"
        )
    if not message.model_name.isprintable():
        raise InvalidRequestError(
            f"model_name is '{shown(message.model_name)}'; leave out what cannot be printed, such as line breaks"
        )
    return BenchmarkRequest(
        request_id=request_id_from_wire(message.request_id),
        model_sha256=sha256_from_wire(message.model_sha256),
        model_name=message.model_name,
        spec=_spec_from_wire(message.spec, board),
    )


def _spec_from_wire(spec: benchmark_pb2.BenchmarkSpec, board: Board) -> BenchmarkSpec:
    if spec.runtime not in RUNTIMES:
        raise InvalidRequestError(
            f"spec.runtime is '{shown(spec.runtime)}'; this agent has {', '.join(RUNTIMES)}"
        )
    if spec.mode not in MODES:
        raise InvalidRequestError(
            f"spec.mode is {spec.mode}; expected MEASUREMENT_MODE_SEARCH or MEASUREMENT_MODE_FULL"
        )
    if spec.precision and spec.precision not in PRECISIONS:
        raise InvalidRequestError(
            f"spec.precision is {spec.precision}; expected PRECISION_FLOAT32, _FLOAT16, _INT8_QDQ or nothing"
        )
    if spec.input_data and spec.input_data not in INPUT_DATA:
        raise InvalidRequestError(
            f"spec.input_data is {spec.input_data}; expected INPUT_DATA_RANDOM, INPUT_DATA_ZEROS or nothing"
        )
    if spec.batch_size > BATCH_LIMIT:
        raise InvalidRequestError(f"spec.batch_size is {spec.batch_size}; keep it to {BATCH_LIMIT}")
    # Written so that a time that is not a number is refused as well.
    if not 0 <= spec.time_limit_s < math.inf:
        raise InvalidRequestError(
            f"spec.time_limit_s is {spec.time_limit_s}; expected seconds, or 0 for the agent's own limit"
        )
    if len(spec.power_source) > POWER_SOURCE_LIMIT or not spec.power_source.isprintable():
        raise InvalidRequestError(
            f"spec.power_source is '{shown(spec.power_source)}'; expected a name that DescribeDevice lists, or nothing"
        )
    threads, cpus = _threads_from_wire(spec, board)
    return BenchmarkSpec(
        runtime=spec.runtime,
        threads=threads,
        input_shapes=_shapes_from_wire(spec.input_shapes),
        seed=spec.seed,
        mode=MODES[spec.mode],
        provider=provider_name(spec.runtime, spec.provider),
        batch_size=spec.batch_size or 1,
        precision=PRECISIONS.get(spec.precision),
        input_data=INPUT_DATA.get(spec.input_data, InputData.RANDOM),
        cpu_affinity=cpus,
        time_limit_s=spec.time_limit_s or None,
        most_attempts=spec.most_attempts or None,
        profile=spec.profile,
        energy=spec.energy,
        power_source=spec.power_source,
        macs=spec.macs or None,
    )


def _threads_from_wire(spec: benchmark_pb2.BenchmarkSpec, board: Board) -> tuple[int, tuple[int, ...]]:
    """Return the number of threads and the processors that they are bound to, one each or none."""
    usable = usable_cpus()
    by_default = min(board.physical_cores, len(usable))
    if spec.threads > len(usable):
        raise InvalidRequestError(
            f"spec.threads is {spec.threads}, this board has {len(usable)} processors that the agent may use "
            f"({cpu_list(usable)}); ask for 1 to {len(usable)}, or 0 for {by_default}"
        )
    cpus = tuple(spec.cpu_affinity)
    if not usable.issuperset(cpus) or len(set(cpus)) != len(cpus):
        raise InvalidRequestError(
            f"spec.cpu_affinity is {list(cpus)}; name each processor once, out of those that the agent may use: "
            f"{cpu_list(usable)}"
        )
    threads = spec.threads or len(cpus) or by_default
    if cpus and len(cpus) != threads:
        raise InvalidRequestError(
            f"spec.cpu_affinity names {len(cpus)} processors for {threads} threads; name one for each"
        )
    return threads, cpus


def _shapes_from_wire(messages: Sequence[benchmark_pb2.InputShape]) -> tuple[InputShape, ...]:
    shapes: dict[str, InputShape] = {}
    for message in messages:
        if not message.name or message.name in shapes:
            raise InvalidRequestError(
                f"spec.input_shapes names the input '{shown(message.name)}' twice or not at all; name each once"
            )
        if not all(message.dimensions):
            raise InvalidRequestError(
                f"spec.input_shapes gives '{shown(message.name)}' the sizes {list(message.dimensions)}; "
                "expected each to be at least 1"
            )
        shapes[message.name] = InputShape(name=message.name, dimensions=tuple(message.dimensions))
    return tuple(shapes[name] for name in sorted(shapes))


def header_from_wire(message: model_pb2.UploadModelHeader) -> UploadHeader:
    """Return a valid header.

    Raises:
        InvalidRequestError: If a field is not acceptable.
    """
    if message.format not in FORMATS:
        raise InvalidRequestError(
            f"header.format is {message.format}; this agent loads MODEL_FORMAT_ONNX and MODEL_FORMAT_TORCHSCRIPT"
        )
    if not message.size_bytes:
        raise InvalidRequestError("header.size_bytes is 0; expected the size of the whole file")
    return UploadHeader(
        sha256=sha256_from_wire(message.sha256),
        format=FORMATS[message.format],
        size_bytes=message.size_bytes,
    )


def chunk_from_wire(message: model_pb2.UploadModelRequest) -> bytes:
    """Return the piece of the file that a message carries.

    Raises:
        InvalidRequestError: If it carries none or one that is too large.
    """
    if message.WhichOneof("part") != "chunk":
        raise InvalidRequestError(
            "a message after the header carries no chunk; send the header once, then chunks"
        )
    if len(message.chunk) > CHUNK_LIMIT_BYTES:
        raise InvalidRequestError(
            f"a chunk has {len(message.chunk)} bytes; send at most {CHUNK_LIMIT_BYTES} in each"
        )
    return message.chunk


def page_query_from_wire(message: benchmark_pb2.ListBenchmarksRequest) -> PageQuery:
    """Return a valid query with its page size filled in.

    Raises:
        InvalidRequestError: If a field is not acceptable.
    """
    if message.page_size > PAGE_SIZE_LIMIT:
        raise InvalidRequestError(
            f"page_size is {message.page_size}; ask for at most {PAGE_SIZE_LIMIT} and follow next_page_token"
        )
    return PageQuery(
        size=message.page_size or DEFAULT_PAGE_SIZE,
        token=message.page_token,
        model_sha256=sha256_from_wire(message.model_sha256) if message.model_sha256 else "",
        model_name=message.model_name,
        runtime=message.runtime,
        started_after=_time_from_wire(message, "started_after"),
        started_before=_time_from_wire(message, "started_before"),
        flagged=message.flagged if message.HasField("flagged") else None,
    )


def _time_from_wire(
    message: benchmark_pb2.ListBenchmarksRequest, field: Literal["started_after", "started_before"]
) -> datetime | None:
    if not message.HasField(field):
        return None
    time: Timestamp = getattr(message, field)
    try:
        return time.ToDatetime(tzinfo=timezone.utc)
    except ValueError as error:
        raise InvalidRequestError(f"{field} is no time: {error}") from error


def interval_s_from_wire(message: device_pb2.WatchTelemetryRequest) -> float:
    """Return the time between telemetry samples in seconds.

    Raises:
        InvalidRequestError: If it is too short.
    """
    if 0 < message.interval_ms < MIN_INTERVAL_MS:
        raise InvalidRequestError(
            f"interval_ms is {message.interval_ms}; ask for at least {MIN_INTERVAL_MS}, or 0 for {DEFAULT_INTERVAL_MS}"
        )
    return (message.interval_ms or DEFAULT_INTERVAL_MS) / 1000
