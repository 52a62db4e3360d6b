"""Stands before every service: nobody's call reaches one that the caller's role does not allow."""

import contextlib
import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import grpc

from device_agent.access.roles import Role
from device_agent.errors import CallError, ForbiddenError, TooManyStreamsError
from device_agent.serving.admission.callers import Caller, Callers
from device_agent.serving.wire.tables import STATUS_OF

NEEDED_ROLE: Mapping[str, Role] = {
    "/edgenas.v1.DeviceService/DescribeDevice": Role.QUERY,
    "/edgenas.v1.DeviceService/WatchTelemetry": Role.QUERY,
    "/edgenas.v1.ModelService/HasModel": Role.QUERY,
    "/edgenas.v1.ModelService/UploadModel": Role.MEASURE,
    "/edgenas.v1.BenchmarkService/RunBenchmark": Role.MEASURE,
    # Its own jobs; an admin anybody's.
    "/edgenas.v1.BenchmarkService/CancelBenchmark": Role.MEASURE,
    "/edgenas.v1.BenchmarkService/GetBenchmark": Role.QUERY,
    "/edgenas.v1.BenchmarkService/ListBenchmarks": Role.QUERY,
    "/edgenas.v1.AccessService/ListClients": Role.ADMIN,
    # Itself; an admin anybody.
    "/edgenas.v1.AccessService/RevokeClient": Role.QUERY,
    "/edgenas.v1.AccessService/RenewCertificate": Role.QUERY,
    "/grpc.health.v1.Health/Check": Role.QUERY,
    "/grpc.health.v1.Health/List": Role.QUERY,
    "/grpc.health.v1.Health/Watch": Role.QUERY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.QUERY,
}

Behaviour = Callable[..., Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@contextlib.contextmanager
def answering(context: grpc.ServicerContext) -> Iterator[None]:
    """End the call with the status of whatever CallError its body raises."""
    try:
        yield
    except CallError as error:
        context.abort(STATUS_OF[type(error)], str(error))


class StreamSlots:
    """Bounds long-lived streams: each holds a thread of the server, and short calls need some too.

    Args:
        limit: How many there may be.
        caller_limit: How many one caller may have: nobody keeps all others out.
    """

    def __init__(self, limit: int, caller_limit: int) -> None:
        self._limit = limit
        self._caller_limit = caller_limit
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, caller: Caller) -> Iterator[None]:
        """Hold one slot.

        Raises:
            TooManyStreamsError: If none is free.
        """
        with self._lock:
            if self._taken.total() >= self._limit:
                raise TooManyStreamsError(
                    f"{self._limit} streams are open at this agent already; end some and ask again"
                )
            if self._taken[caller.name] >= self._caller_limit:
                raise TooManyStreamsError(
                    f"'{caller.name}' has {self._caller_limit} streams open already; end some and ask again"
                )
            self._taken[caller.name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[caller.name] -= 1
                if not self._taken[caller.name]:
                    del self._taken[caller.name]


class Guard(grpc.ServerInterceptor):
    """Checks who calls before a call begins, and again before each message of a stream.

    Args:
        callers: Tells who calls.
        slots: For streams.
    """

    def __init__(self, callers: Callers, slots: StreamSlots) -> None:
        self._callers = callers
        self._slots = slots

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Handler | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the method's handler behind the check."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        deserializer, serializer = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:
            call = self._checked(method, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(call, deserializer, serializer)
        if handler.stream_unary:
            call = self._held(method, handler.stream_unary)
            return grpc.stream_unary_rpc_method_handler(call, deserializer, serializer)
        if handler.unary_stream:
            stream = self._streamed(method, handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(stream, deserializer, serializer)
        assert handler.stream_stream is not None
        stream = self._streamed(method, handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(stream, deserializer, serializer)

    def _allowed(self, method: str, context: grpc.ServicerContext) -> Caller:
        caller = self._callers.of(context)
        # What nobody thought of is nobody's.
        needed = NEEDED_ROLE.get(method)
        if needed is not None and caller.role >= needed:
            return caller
        name = method.rpartition("/")[2]
        if needed is None:
            raise ForbiddenError(f"{name} is open to nobody")
        raise ForbiddenError(
            f"'{caller.name}' has the role {caller.role.label}, and {name} needs the role {needed.label}; "
            f"pair it again with `edgenas-agent pair --role {needed.label}` on the board"
        )

    def _checked(self, method: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def call(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            with answering(context):
                self._allowed(method, context)
            return behaviour(request, context, *more)

        return call

    def _held(self, method: str, behaviour: Behaviour) -> Behaviour:
        @functools.wraps(behaviour)
        def call(requests: Any, context: grpc.ServicerContext) -> Any:
            with answering(context), self._slots.taken(self._allowed(method, context)):
                return behaviour(self._each_allowed(method, requests, context), context)

        return call

    def _each_allowed(
        self, method: str, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """Yield a caller's messages for as long as it may send them."""
        for request in requests:
            self._allowed(method, context)
            yield request

    def _streamed(self, method: str, behaviour: Behaviour) -> Behaviour:
        # Such a handler returns at once, holds no thread, and sends through a function that it is given.
        if getattr(behaviour, "experimental_non_blocking", False):
            return self._checked(method, behaviour)

        @functools.wraps(behaviour)
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with answering(context), self._slots.taken(self._allowed(method, context)):
                for message in behaviour(request, context):
                    self._allowed(method, context)
                    yield message

        return call
