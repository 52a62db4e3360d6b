"""What an agent does for its callers: each method parses, asks the agent, and converts the answer."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
from edgenas.v1 import (
    benchmark_pb2,
    benchmark_pb2_grpc,
    device_pb2,
    device_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

from device_agent.access.roles import Role
from device_agent.board.description import Board
from device_agent.board.telemetry import TelemetrySampler
from device_agent.errors import AgentStoppingError, InvalidRequestError
from device_agent.measuring.measurer import Measurer
from device_agent.measuring.timed_window import TimedWindow
from device_agent.sensors.base import PowerSource
from device_agent.sensors.catalogue import survey
from device_agent.sensors.watch import PowerWatch
from device_agent.serving.admission.callers import Callers
from device_agent.serving.admission.guard import answering
from device_agent.serving.admission.transport import Admission
from device_agent.serving.queue import BenchmarkQueue, unknown
from device_agent.serving.storage.history import History
from device_agent.serving.storage.models import ModelStore
from device_agent.serving.wire import answers, requests

UPLOAD_PATIENCE_S = 120.0
UPLOAD_BYTES_PER_S = 1000.0


class DeviceService(device_pb2_grpc.DeviceServiceServicer):
    """Who the board is and how it is doing."""

    def __init__(
        self,
        *,
        board: Board,
        measurer: Measurer,
        models: ModelStore,
        queue: BenchmarkQueue,
        admission: Admission,
    ) -> None:
        self._board = board
        self._admission = admission
        self._measurer = measurer
        self._models = models
        self._queue = queue
        self._sources = self._survey()

    def _survey(self) -> Sequence[tuple[PowerSource, str | None]]:
        config = self._measurer.config
        return survey(config.root, config.power.sources())

    def _power_sources(self) -> Sequence[tuple[PowerSource, str | None]]:
        """Return the sources as they are now; as they were where looking, which reads them, would disturb a job."""
        if not self._queue.measuring():
            self._sources = self._survey()
        return self._sources

    def DescribeDevice(  # noqa: N802 (generated name)
        self, request: device_pb2.DescribeDeviceRequest, context: grpc.ServicerContext
    ) -> device_pb2.DescribeDeviceResponse:
        """Describe the board."""
        with answering(context):
            return answers.device_to_wire(
                self._board,
                self._measurer.runtimes(),
                self._power_sources(),
                self._measurer.config.power.energy_model,
                self._models.model_limit_bytes,
                self._admission.certificates_for(
                    self._admission.callers.of(context), request.known_certificates
                ),
            )

    def WatchTelemetry(  # noqa: N802 (generated name)
        self, request: device_pb2.WatchTelemetryRequest, context: grpc.ServicerContext
    ) -> Iterator[device_pb2.TelemetrySample]:
        """Stream samples, none while a model is being timed."""
        with answering(context):
            interval_s = requests.interval_s_from_wire(request)
            closed = threading.Event()

            def close() -> None:
                closed.set()
                self._queue.wake()

            if not context.add_callback(close):
                return
            config = self._measurer.config
            # To open a sensor is to read it.
            if self._queue.pause_while_measuring(closed, 0.0):
                power = PowerWatch(config.root, config.power.source, config.power.sources())
                with contextlib.closing(power):
                    sampler = TelemetrySampler(config.root, power.power_mw)
                    watching = True
                    while watching:
                        yield answers.telemetry_to_wire(sampler.sample(self._queue.jobs()))
                        watching = self._queue.pause_while_measuring(closed, interval_s)
            if not closed.is_set():
                raise AgentStoppingError("the agent is shutting down; watch again when it is back")


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """The model cache. To take a model in is work, and waits while another one is timed."""

    def __init__(self, *, models: ModelStore, window: TimedWindow) -> None:
        self._models = models
        self._window = window

    def HasModel(  # noqa: N802 (generated name)
        self, request: model_pb2.HasModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.HasModelResponse:
        """Tell whether a model is held."""
        with answering(context):
            sha256 = requests.sha256_from_wire(request.sha256)
            return model_pb2.HasModelResponse(present=self._models.size_bytes(sha256) is not None)

    def UploadModel(  # noqa: N802 (generated name)
        self,
        request_iterator: Iterator[model_pb2.UploadModelRequest],
        context: grpc.ServicerContext,
    ) -> model_pb2.UploadModelResponse:
        """Receive a model; one that is already held is answered at once, without reading its chunks."""
        with answering(context):
            messages = self._between_windows(request_iterator, context)
            first = next(messages, None)
            if first is None or first.WhichOneof("part") != "header":
                raise InvalidRequestError(
                    "the upload does not begin with a header; send one, then the chunks"
                )
            header = requests.header_from_wire(first.header)
            held_bytes = self._models.size_bytes(header.sha256)
            if held_bytes is None:
                with self._models.receive(header.sha256, header.format, header.size_bytes) as upload:
                    for message in messages:
                        upload.write(requests.chunk_from_wire(message))
            return model_pb2.UploadModelResponse(
                sha256=header.sha256, size_bytes=held_bytes or header.size_bytes
            )

    def _between_windows(
        self, messages: Iterator[model_pb2.UploadModelRequest], context: grpc.ServicerContext
    ) -> Iterator[model_pb2.UploadModelRequest]:
        """Yield each message, and end where they end, once nothing is timed.

        What is not asked for stays with its sender, but for the one message that comes when a window opens and
        what gRPC takes ahead.

        Raises:
            AgentStoppingError: If the agent stops, or the caller has gone and reads no status.
        """
        gone = threading.Event()
        patience = UploadPatience(context.cancel)

        def leave() -> None:
            gone.set()
            self._window.wake()

        if not context.add_callback(leave):
            gone.set()
        while True:
            with patience.waiting():
                message = next(messages, None)
            if message is not None:
                patience.received(message.ByteSize())
            if not self._window.wait_until_closed(gone):
                raise AgentStoppingError("the agent is shutting down; upload the model when it is back")
            if message is None:
                return
            yield message


class UploadPatience:
    """How long an upload may still be waited for: each holds a stream, of which there are few.

    It starts with two minutes, and each kilobyte brings back a second: who sends less in the long run is sent away.

    Args:
        send_away: Ends the call, from another thread.
    """

    def __init__(self, send_away: Callable[[], object]) -> None:
        self._send_away = send_away
        self._left_s = UPLOAD_PATIENCE_S

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for the caller while the context is open, and no longer than there is patience."""
        began_s = time.monotonic()
        timer = threading.Timer(max(0.0, self._left_s), self._send_away)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._left_s -= time.monotonic() - began_s

    def received(self, size_bytes: int) -> None:
        """Take into account what came."""
        self._left_s = min(UPLOAD_PATIENCE_S, self._left_s + size_bytes / UPLOAD_BYTES_PER_S)


class BenchmarkService(benchmark_pb2_grpc.BenchmarkServiceServicer):
    """Measurements, present and past."""

    def __init__(
        self,
        *,
        board: Board,
        queue: BenchmarkQueue,
        history: History,
        callers: Callers,
    ) -> None:
        self._board = board
        self._callers = callers
        self._queue = queue
        self._history = history

    def RunBenchmark(  # noqa: N802 (generated name)
        self, request: benchmark_pb2.RunBenchmarkRequest, context: grpc.ServicerContext
    ) -> Iterator[benchmark_pb2.BenchmarkEvent]:
        """Stream a job's events, whether it is new, under way or finished."""
        with answering(context):
            wanted = requests.request_from_wire(request, self._board)
            subscription = self._queue.submit(wanted, self._callers.of(context).name)
            # False where the caller has already gone: the job goes on, but nobody listens.
            if not context.add_callback(subscription.close):
                subscription.close()
                return
            for event in subscription:
                yield answers.event_to_wire(event)

    def CancelBenchmark(  # noqa: N802 (generated name)
        self, request: benchmark_pb2.CancelBenchmarkRequest, context: grpc.ServicerContext
    ) -> benchmark_pb2.CancelBenchmarkResponse:
        """End a job."""
        with answering(context):
            request_id = requests.request_id_from_wire(request.request_id)
            caller = self._callers.of(context)
            owner = None if caller.role >= Role.ADMIN else caller.name
            return benchmark_pb2.CancelBenchmarkResponse(cancelled=self._queue.cancel(request_id, owner))

    def GetBenchmark(  # noqa: N802 (generated name)
        self, request: benchmark_pb2.GetBenchmarkRequest, context: grpc.ServicerContext
    ) -> benchmark_pb2.BenchmarkRecord:
        """Return one finished benchmark."""
        with answering(context):
            request_id = requests.request_id_from_wire(request.request_id)
            found = self._history.find(request_id)
            if found is None:
                raise unknown(request_id)
            return answers.record_to_wire(found[1])

    def ListBenchmarks(  # noqa: N802 (generated name)
        self, request: benchmark_pb2.ListBenchmarksRequest, context: grpc.ServicerContext
    ) -> benchmark_pb2.ListBenchmarksResponse:
        """Return one page of finished benchmarks."""
        with answering(context):
            query = requests.page_query_from_wire(request)
            return answers.page_to_wire(
                self._history.page(
                    size=query.size,
                    token=query.token,
                    model_sha256=query.model_sha256,
                    model_name=query.model_name,
                    runtime=query.runtime,
                    started_after=query.started_after,
                    started_before=query.started_before,
                    flagged=query.flagged,
                )
            )
