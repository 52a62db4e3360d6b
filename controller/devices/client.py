"""Talking to one agent: deadlines on every call, patience where the link or the agent is away for a while."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime
from types import TracebackType
from typing import TypeVar

import grpc
from edgenas.v1 import benchmark_pb2, device_pb2, model_pb2

from controller.core.errors import BenchmarkFailedError, DeviceError, DeviceUnreachableError, NotFoundError
from controller.core.measurement import ExportedModel, Measurement, MeasurementMode
from controller.core.options import MeasurementOptions
from controller.core.waiting import PIECE_S
from controller.devices import conversion
from controller.devices.connection import Connection
from controller.devices.credentials import CredentialsFolder
from controller.devices.description import DeviceDescription
from controller.devices.versions import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION

logger = logging.getLogger(__name__)

T = TypeVar("T")

_DEADLINE_S = 15.0
_UPLOAD_SILENCE_S = 300.0
_CHUNK_BYTES = 1 << 20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
_LOST_LIMIT = 3  # a model that takes the whole board down does so each time
_OLDEST_OPTIONS = {"threads", "input_shapes", "seed"}  # every agent heeds them
_ANSWERED_OPTIONS = {"energy", "power_source", "macs"}  # an agent that has no energy says so itself
_DEFAULTS = MeasurementOptions()
_REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED)
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class _JobLostError(BenchmarkFailedError):
    """The agent ended while it measured; it may have been for want of power, or for the model."""


class DeviceClient:
    """A connection to the agent of one board.

    Args:
        name: What the user calls the device; it stands in messages.
        address: `HOST:PORT` of its agent.
        patience_s: How long to go on trying while the agent gives no answer.
        revive: Called before each new try; a host that started the agent itself starts it again.
        credentials: What this host and the agent know each other by; None for an agent of this machine without TLS.

    Raises:
        DeviceError: If there are no credentials and the address is no loopback.
        ConfigurationError: If the credentials cannot be read.
    """

    def __init__(
        self,
        name: str,
        address: str,
        patience_s: float = 300.0,
        revive: Callable[[], object] = lambda: None,
        credentials: CredentialsFolder | None = None,
    ) -> None:
        self.name = name
        self._address = address
        self._patience_s = patience_s
        self._heard_at = 0.0
        self._closed = threading.Event()
        self._revive = revive
        self._connection = Connection(name, address, credentials)

    def __enter__(self) -> "DeviceClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and end the patience of calls that other threads have under way."""
        self._closed.set()
        self._connection.close()

    def describe(self) -> DeviceDescription:
        """Return what the board is made of.

        Raises:
            DeviceUnreachableError: If it stays away.
            DeviceError: If its agent speaks another version of the wire format.
        """
        answer = self._patiently(self._describe)
        found = conversion.description(answer)
        newest, oldest = found.protocol_version, found.oldest_protocol_version
        if newest < OLDEST_PROTOCOL_VERSION or oldest > PROTOCOL_VERSION:
            raise DeviceError(
                f"device {self.name!r} speaks {_versions(oldest, newest)} of the wire format (agent {found.agent_version}), "
                f"this host {_versions(OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION)}; install the same edgenas on both"
            )
        shown = [der for der in (answer.certificate, answer.next_certificate) if der]
        if shown and self._connection.learn(*shown):
            # Says what is known now: the agent waits for that.
            self._patiently(self._describe)
        self._connection.look_after()
        return found

    def _describe(self) -> device_pb2.DescribeDeviceResponse:
        request = device_pb2.DescribeDeviceRequest(known_certificates=self._connection.known_certificates)
        return self._connection.devices.DescribeDevice(request, timeout=_DEADLINE_S)

    def renew(self) -> None:
        """Replace this host's key and certificate for the device.

        Raises:
            DeviceUnreachableError: If it stays away.
            DeviceError: If it has no TLS.
        """
        if self._connection.credentials is None:
            raise DeviceError(
                f"device {self.name!r} is asked without TLS, and there is no certificate to renew"
            )
        self._patiently(self._connection.renew)
        # The first use ends the one before.
        self.describe()

    def leave(self) -> None:
        """Have the agent forget this host, where it knows it.

        Raises:
            DeviceUnreachableError: If it stays away.
            DeviceError: If it refuses.
        """
        if self._connection.credentials is not None:
            self._patiently(self._connection.leave)

    def measure(
        self,
        model: ExportedModel,
        *,
        request_id: str,
        model_name: str,
        mode: MeasurementMode,
        options: MeasurementOptions = _DEFAULTS,
        on_event: Callable[[str], object] = lambda _: None,
    ) -> Measurement:
        """Return the model's figures on this board, waiting for its turn.

        Asking again with the same request id, after a lost connection or a crash of either side, returns
        what was measured before where the agent still has it.

        Args:
            model: What to measure; sent once, then known by its digest.
            request_id: Names this measurement.
            model_name: For people who read the agent's history.
            mode: How thorough to be.
            options: How to measure.
            on_event: Told in a few words what happens.

        Raises:
            DeviceUnreachableError: If the agent stays away.
            BenchmarkFailedError: If the agent could not measure the model.
            DeviceError: If the agent is too old to know one of the options.
        """
        request = benchmark_pb2.RunBenchmarkRequest(
            request_id=request_id,
            model_sha256=model.sha256,
            model_name=model_name,
            spec=conversion.spec(options, model.format.value, mode),
        )

        lost = 0

        def attempt() -> Measurement:
            nonlocal lost
            self._upload(model)
            try:
                return self._run(request, on_event)
            except _JobLostError as error:
                lost += 1
                if lost >= _LOST_LIMIT:
                    raise
                logger.warning("%s", error)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
            # The agent's cache may have let go of the model between the two calls.
            self._upload(model)
            return self._run(request, on_event)

        measured = self._patiently(attempt)
        self._refuse_if_ignored(options, measured)
        return measured

    def cancel(self, request_id: str) -> bool:
        """End a waiting or running job; return whether there was one to end.

        The agent is asked once: whoever cancels wants to go.

        Raises:
            NotFoundError: If the board knows no such job.
            DeviceUnreachableError: If the agent gives no answer.
        """
        request = benchmark_pb2.CancelBenchmarkRequest(request_id=request_id)
        return self._patiently(
            lambda: self._connection.benchmarks.CancelBenchmark(request, timeout=_DEADLINE_S), patience_s=0.0
        ).cancelled

    def benchmarks(
        self,
        *,
        model_sha256: str = "",
        model_name: str = "",
        runtime: str = "",
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        flagged: bool | None = None,
        limit: int = 50,
    ) -> list[Measurement]:
        """Return past benchmarks of the board, newest first, without raw samples.

        Args:
            model_sha256: Only this model; empty for all.
            model_name: Only models of this name; empty for all.
            runtime: Only this runtime; empty for all.
            started_after: Only benchmarks started then or later; None for all.
            started_before: Only benchmarks started before that; None for all.
            flagged: Only benchmarks that carry flags, or only those that carry none; None for all.
            limit: At most this many.

        Raises:
            DeviceUnreachableError: If the agent stays away.
        """
        request = benchmark_pb2.ListBenchmarksRequest(
            model_sha256=model_sha256, model_name=model_name, runtime=runtime, flagged=flagged
        )
        if started_after is not None:
            request.started_after.FromDatetime(started_after)
        if started_before is not None:
            request.started_before.FromDatetime(started_before)

        def wanted(measured: Measurement) -> bool:
            """Filter once more what an agent answers that is older than a filter and ignored it."""
            return (
                (not model_name or measured.model_name == model_name)
                and (started_before is None or measured.started_at < started_before)
                and (flagged is None or bool(measured.flags) == flagged)
            )

        found: list[Measurement] = []
        while len(found) < limit:
            request.page_size = min(500, limit - len(found))
            page = self._patiently(
                lambda: self._connection.benchmarks.ListBenchmarks(request, timeout=_DEADLINE_S)
            )
            found += filter(wanted, map(conversion.measurement, page.benchmarks))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        return found

    def benchmark(self, request_id: str) -> Measurement:
        """Return one past benchmark with its raw samples.

        Raises:
            NotFoundError: If the board has none of this id.
            DeviceUnreachableError: If the agent stays away.
        """
        request = benchmark_pb2.GetBenchmarkRequest(request_id=request_id)
        return conversion.measurement(
            self._patiently(lambda: self._connection.benchmarks.GetBenchmark(request, timeout=_DEADLINE_S))
        )

    def _upload(self, model: ExportedModel) -> None:
        known = self._connection.models.HasModel(
            model_pb2.HasModelRequest(sha256=model.sha256), timeout=_DEADLINE_S
        )
        if known.present:
            return
        taken = threading.Event()

        def parts() -> Iterator[model_pb2.UploadModelRequest]:
            header = model_pb2.UploadModelHeader(
                sha256=model.sha256, format=conversion.FORMATS[model.format], size_bytes=len(model.data)
            )
            yield model_pb2.UploadModelRequest(header=header)
            for start in range(0, len(model.data), _CHUNK_BYTES):
                yield model_pb2.UploadModelRequest(chunk=model.data[start : start + _CHUNK_BYTES])
                taken.set()

        # No deadline for the whole: while it times a model, an agent holds uploads back, for more than a minute at
        # a time and once for each job in its queue. Keep-alives notice a lost link; this, an agent that hangs.
        silence_s = max(_UPLOAD_SILENCE_S, self._patience_s)
        upload = self._connection.models.UploadModel.future(parts())
        try:
            while not _ended(upload, silence_s):
                if not taken.is_set():
                    raise DeviceUnreachableError(
                        f"device {self.name!r} at {self._address} took no more of a model of {len(model.data) / 1e6:.1f} MB "
                        f"for {silence_s:.0f} s; look into the log of `edgenas-agent serve` there and start it again"
                    )
                taken.clear()
        finally:
            upload.cancel()
        self._heard_at = time.monotonic()

    def _run(
        self, request: benchmark_pb2.RunBenchmarkRequest, on_event: Callable[[str], object]
    ) -> Measurement:
        """Return the job's figures. No deadline: a queue may be long, and keep-alives notice a lost link."""
        for event in self._connection.benchmarks.RunBenchmark(request):
            self._heard_at = time.monotonic()
            match event.WhichOneof("event"):
                case "queued":
                    on_event(f"{event.queued.position} ahead in the queue")
                case "started":
                    on_event("started")
                case "progress":
                    on_event(conversion.progress(event.progress))
                case "failure":
                    lost = event.failure.reason == benchmark_pb2.FAILURE_REASON_LOST
                    raise (_JobLostError if lost else BenchmarkFailedError)(
                        f"device {self.name!r} could not measure {request.model_name!r}: {event.failure.message}"
                    )
                case "result":
                    return conversion.measurement(event.result)
        raise DeviceError(
            f"device {self.name!r} ended job {request.request_id} without a result; update its agent"
        )

    def _refuse_if_ignored(self, options: MeasurementOptions, measured: Measurement) -> None:
        """Refuse figures of an agent that predates what was asked: it ignored it, and measured something else."""
        newer = [
            entry.name
            for entry in fields(options)
            if entry.name not in _OLDEST_OPTIONS | _ANSWERED_OPTIONS
            and getattr(options, entry.name) != getattr(_DEFAULTS, entry.name)
        ]
        if newer and measured.agent_version is None:
            raise DeviceError(
                f"device {self.name!r} measured {measured.model_name!r} without heeding {', '.join(newer)}: "
                "its agent is too old to know that; update edgenas there"
            )

    def _patiently(self, call: Callable[[], T], patience_s: float | None = None) -> T:
        """Return what call returns, trying again with growing pauses while the agent gives no answer.

        Patience runs from the last sign of life: a job may wait in the queue for as long as it takes.
        """
        patience_s = self._patience_s if patience_s is None else patience_s
        silent_since, wait_s = 0.0, _FIRST_WAIT_S
        while True:
            try:
                return call()
            except grpc.RpcError as error:
                now = time.monotonic()
                if not silent_since or self._heard_at > silent_since:
                    silent_since, wait_s = now, _FIRST_WAIT_S
                left_s = patience_s - (now - silent_since)
                if self._has_new_credentials(error):
                    continue
                self._raise_unless_away(error, left_s, patience_s)
            logger.warning("device %r gives no answer; trying again for another %.0f s", self.name, left_s)
            # Spread out, so that several hosts that lost one board do not come back all at once.
            self._rest(min(left_s, wait_s * random.uniform(0.8, 1.2)))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            try:
                self._revive()
            except DeviceError as error:
                logger.warning("%s", error)

    def _rest(self, seconds: float) -> None:
        """Return after so many seconds, in short pieces for the sake of signals; raise once the client is closed."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if self._closed.wait(min(left_s, PIECE_S)):
                raise DeviceError(f"device {self.name!r} gave no answer before its connection was closed")

    def _has_new_credentials(self, error: grpc.RpcError) -> bool:
        """Return whether another process of this host knows better how to connect; raise if nobody does."""
        if self._connection.credentials is None or error.code() not in _REFUSALS:
            return False
        refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
        reason = None if refused else self._connection.refusal()
        if (refused or reason) and self._connection.refresh():
            return True
        if reason:
            raise DeviceError(f"device {self.name!r} at {self._address} cannot be asked: {reason}") from error
        return False

    def _raise_unless_away(self, error: grpc.RpcError, left_s: float, patience_s: float) -> None:
        code, details = error.code(), error.details() or "no details"
        if code is grpc.StatusCode.NOT_FOUND:
            raise NotFoundError(f"device {self.name!r}: {details}") from error
        if code not in _AWAY:
            raise DeviceError(f"device {self.name!r} refused: {details} ({code.name.lower()})") from error
        if left_s <= 0:
            raise DeviceUnreachableError(
                f"device {self.name!r} at {self._address} gave no answer for {patience_s:.0f} s: {details}; "
                "check that it is switched on and `edgenas-agent serve` runs there"
            ) from error


def _versions(oldest: int, newest: int) -> str:
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"


def _ended(call: "grpc.Future[model_pb2.UploadModelResponse]", timeout_s: float) -> bool:
    """Return whether a call ends within some time; raise its error if it ends with one."""
    try:
        call.result(timeout_s)
    except grpc.FutureTimeoutError:
        return False
    return True
