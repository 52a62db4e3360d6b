"""Puts the agent together: state directory, queue, services, and the gRPC server that carries them."""

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from edgenas.v1 import (
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from device_agent.board.description import describe_board
from device_agent.errors import StartupError
from device_agent.measuring.baselines import BASELINES_FILE, Baselines
from device_agent.measuring.measurer import Measurer, MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow
from device_agent.serving.footprint import share_arenas
from device_agent.serving.history import HISTORY_FILE, History
from device_agent.serving.lock import holding
from device_agent.serving.models import ModelStore
from device_agent.serving.queue import BenchmarkQueue
from device_agent.serving.services import BenchmarkService, DeviceService, ModelService, StreamSlots
from device_agent.serving.wire import answers

logger = logging.getLogger(__name__)

MODEL_LIMIT_BYTES = 2 << 30
# A stream holds a thread for as long as it lives; those beyond the limit answer short calls.
THREADS = 64
STREAM_LIMIT = 48
SHUTDOWN_GRACE_S = 2.0
OPTIONS = [
    # By default Linux lets a second server share the port, and clients would reach either.
    ("grpc.so_reuseport", 0),
    # A record with every raw sample passes the default of 4 MiB for very small models.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 4 << 20),
    # An upload is buffered up to the window that the connection grows to: keep to about one chunk.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # A stream may be silent for minutes while a model is timed: notice dead callers, accept their pings.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """How an agent runs.

    Attributes:
        address: HOST:PORT; port 0 takes a free one.
        history_limit_bytes: Size from which on the oldest benchmarks are removed; None removes nothing.
    """

    address: str
    state_dir: Path
    measuring: MeasuringConfig
    cache_limit_bytes: int
    history_limit_bytes: int | None
    allow_insecure_network: bool


@contextlib.contextmanager
def serving(config: AgentConfig) -> Iterator[str]:
    """Run an agent while the context is open, and yield the address it listens on.

    Raises:
        StartupError: If the address or the state directory cannot be used.
    """
    host, port = parse_address(config.address)
    if not _is_loopback(host):
        if not config.allow_insecure_network:
            raise StartupError(
                f"address '{config.address}' is reachable from the network and callers are not yet checked; "
                "use 127.0.0.1, or --allow-insecure-network where everyone on the network may run models"
            )
        logger.warning("anyone who reaches %s can run models on this board", config.address)
    share_arenas()
    with contextlib.ExitStack() as stack:
        stack.enter_context(holding(config.state_dir))
        models = _open_models(config)
        history = stack.enter_context(
            contextlib.closing(
                History(
                    config.state_dir / HISTORY_FILE,
                    answers.labels_in,
                    limit_bytes=config.history_limit_bytes,
                )
            )
        )
        window = TimedWindow()
        measurer = Measurer(config.measuring, Baselines(config.state_dir / BASELINES_FILE), window)
        queue = BenchmarkQueue(measurer=measurer, models=models, history=history)
        server, health_service = _build_server(
            measurer, models, history, queue, window, reflected=not config.allow_insecure_network
        )
        bound_port = _bind(server, host, port)
        queue.start()
        server.start()
        try:
            yield f"{_bracketed(host)}:{bound_port}"
        finally:
            health_service.enter_graceful_shutdown()
            # These first: they end the streams that would otherwise hold the server for its grace.
            window.stop()
            queue.stop()
            server.stop(SHUTDOWN_GRACE_S).wait()


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        StartupError: If the text is no such address.
    """
    host, separator, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise StartupError(f"address '{address}' is not HOST:PORT, e.g. 127.0.0.1:50151")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _open_models(config: AgentConfig) -> ModelStore:
    try:
        return ModelStore(
            config.state_dir / "models",
            cache_limit_bytes=config.cache_limit_bytes,
            model_limit_bytes=MODEL_LIMIT_BYTES,
        )
    except OSError as error:
        raise StartupError(
            f"cannot write the state directory '{config.state_dir}': {error.strerror}; choose another --state-dir"
        ) from error


def _build_server(
    measurer: Measurer,
    models: ModelStore,
    history: History,
    queue: BenchmarkQueue,
    window: TimedWindow,
    *,
    reflected: bool,
) -> tuple[grpc.Server, health.HealthServicer]:
    board = describe_board(measurer.config.root)
    slots = StreamSlots(STREAM_LIMIT)
    server = grpc.server(ThreadPoolExecutor(THREADS, thread_name_prefix="call"), options=OPTIONS)
    device_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(board=board, measurer=measurer, models=models, queue=queue, slots=slots), server
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(models=models, slots=slots, window=window), server
    )
    benchmark_pb2_grpc.add_BenchmarkServiceServicer_to_server(
        BenchmarkService(board=board, queue=queue, history=history, slots=slots), server
    )
    names = [
        file.DESCRIPTOR.services_by_name[name].full_name
        for file, name in (
            (device_pb2, "DeviceService"),
            (model_pb2, "ModelService"),
            (benchmark_pb2, "BenchmarkService"),
        )
    ]
    health_service = health.HealthServicer()
    for name in ["", *names]:
        health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    # Who nobody checks is not told what can be asked.
    if reflected:
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server, health_service


def _bind(server: grpc.Server, host: str, port: int) -> int:
    """Bind the server and return its port."""
    try:
        # gRPC hides the cause of a failed bind; a plain socket tells it.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        return server.add_insecure_port(f"{_bracketed(host)}:{port}")
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartupError(
            f"cannot listen on {_bracketed(host)}:{port}: {reason}; choose another --address"
        ) from error
