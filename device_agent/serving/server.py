"""Puts the agent together: state directory, queue, services, and the gRPC server that carries them."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from edgenas.v1 import (
    access_pb2,
    access_pb2_grpc,
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from device_agent.board.description import Board, describe_board
from device_agent.errors import StartupError
from device_agent.measuring.baselines import BASELINES_FILE, Baselines
from device_agent.measuring.measurer import Measurer, MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow
from device_agent.serving.admission.guard import Guard, StreamSlots
from device_agent.serving.admission.service import AccessService
from device_agent.serving.admission.transport import Admission, anybody, paired_clients
from device_agent.serving.footprint import share_arenas
from device_agent.serving.listening import (
    CONNECTION_OPTIONS,
    bind,
    full_address,
    is_loopback,
    parse_address,
    write_address,
)
from device_agent.serving.queue import BenchmarkQueue
from device_agent.serving.services import BenchmarkService, DeviceService, ModelService
from device_agent.serving.storage.history import HISTORY_FILE, History
from device_agent.serving.storage.journal import JOURNAL_FILE, Journal
from device_agent.serving.storage.lock import holding
from device_agent.serving.storage.models import ModelStore
from device_agent.serving.wire import answers

logger = logging.getLogger(__name__)

MODEL_LIMIT_BYTES = 2 << 30
# A stream holds a thread for as long as it lives; those beyond the limit answer short calls.
THREADS = 64
STREAM_LIMIT = 48
CALLER_STREAM_LIMIT = 32
SHUTDOWN_GRACE_S = 2.0
OPTIONS = [
    *CONNECTION_OPTIONS,
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
        insecure: Serve without TLS and to whoever calls; on loopback alone.
        announce: Whether to announce the agent on the local network; None does where it can be reached from there.
    """

    address: str
    state_dir: Path
    measuring: MeasuringConfig
    cache_limit_bytes: int
    history_limit_bytes: int | None
    insecure: bool = False
    announce: bool | None = None

    def announces(self, host: str) -> bool:
        """Tell whether to announce an agent that listens at a host."""
        return not is_loopback(host) if self.announce is None else self.announce


@contextlib.contextmanager
def serving(config: AgentConfig) -> Iterator[str]:
    """Run an agent while the context is open, and yield the address it listens on.

    Raises:
        StartupError: If the address or the state directory cannot be used.
    """
    host, port = parse_address(config.address)
    if config.insecure and not is_loopback(host):
        raise StartupError(
            f"address '{config.address}' is reachable from the network, and --insecure serves whoever calls; use "
            "127.0.0.1, or leave --insecure out and pair those who are to call with `edgenas-agent pair`"
        )
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
        journal = stack.enter_context(contextlib.closing(Journal(config.state_dir / JOURNAL_FILE)))
        queue = BenchmarkQueue(measurer=measurer, models=models, history=history, journal=journal)
        board = describe_board(config.measuring.root)
        admission = anybody() if config.insecure else paired_clients(config.state_dir)
        server, health_service = _build_server(board, measurer, models, history, queue, window, admission)
        bound_port = bind(server, host, port, admission.credentials)
        address = full_address(host, bound_port)
        write_address(config.state_dir, address)
        queue.start()
        server.start()
        if admission.clients is not None and not admission.clients.clients():
            logger.info("no host is paired yet: `edgenas-agent pair` shows a code that lets one in")
        if admission.fingerprint is not None and config.announces(host):
            # Imported where it is needed: it takes memory that a board may not have to spare.
            from device_agent.serving.announcement import announced

            stack.enter_context(announced(host, bound_port, board, admission.fingerprint))
        try:
            yield address
        finally:
            health_service.enter_graceful_shutdown()
            # These first: they end the streams that would otherwise hold the server for its grace.
            window.stop()
            queue.stop()
            server.stop(SHUTDOWN_GRACE_S).wait()


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
    board: Board,
    measurer: Measurer,
    models: ModelStore,
    history: History,
    queue: BenchmarkQueue,
    window: TimedWindow,
    admission: Admission,
) -> tuple[grpc.Server, health.HealthServicer]:
    # Nobody tells callers without certificates apart.
    slots = StreamSlots(STREAM_LIMIT, STREAM_LIMIT if admission.clients is None else CALLER_STREAM_LIMIT)
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="call"),
        interceptors=[Guard(admission.callers, slots)],
        options=OPTIONS,
    )
    device_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(board=board, measurer=measurer, models=models, queue=queue, admission=admission), server
    )
    model_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models=models, window=window), server)
    benchmark_pb2_grpc.add_BenchmarkServiceServicer_to_server(
        BenchmarkService(board=board, queue=queue, history=history, callers=admission.callers), server
    )
    served = [(device_pb2, "DeviceService"), (model_pb2, "ModelService"), (benchmark_pb2, "BenchmarkService")]
    if admission.clients is not None:
        access_pb2_grpc.add_AccessServiceServicer_to_server(
            AccessService(clients=admission.clients, callers=admission.callers), server
        )
        served.append((access_pb2, "AccessService"))
    names = [file.DESCRIPTOR.services_by_name[name].full_name for file, name in served]
    health_service = health.HealthServicer()
    for name in ["", *names]:
        health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server, health_service
