"""The pairing port: open only while a code is shown, and with nothing behind it but pairing."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import grpc
from edgenas.v1 import access_pb2, access_pb2_grpc

from device_agent import __version__
from device_agent.access.clients import Client, ClientStore
from device_agent.access.identity import Identity
from device_agent.access.issuing import certificate_of
from device_agent.access.pairing import PairingCode
from device_agent.access.roles import Role
from device_agent.errors import (
    CallError,
    InvalidRequestError,
    PairingLockedError,
    UnauthenticatedError,
    WireVersionError,
)
from device_agent.serving.admission.guard import answering
from device_agent.serving.listening import CONNECTION_OPTIONS, bind
from device_agent.serving.wire.access import accepted_to_wire, challenge_to_wire
from device_agent.serving.wire.versions import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from device_agent.text import shown

logger = logging.getLogger(__name__)

THREADS = 8
# A person has typed the code before the first message: what follows is work of computers alone, and most of it the start of
# a process that looks at the certificate, which comes from an SD card.
EXCHANGE_LIMIT_S = 60.0
# Who connects says at once what it wants.
FIRST_LIMIT_S = 5.0
MESSAGE_LIMIT_BYTES = 16 << 10
# Longest time to wait without looking up.
_PIECE_S = 0.5
GRACE_S = 2.0


class PairingService(access_pb2_grpc.PairingServiceServicer):
    """Pairs one client, with one code."""

    def __init__(self, *, code: PairingCode, role: Role, identity: Identity, clients: ClientStore) -> None:
        self._code = code
        self._role = role
        self._identity = identity
        self._clients = clients
        self._changed = threading.Condition()
        self._under_way = 0
        self._paired: Client | None = None
        self._failure: CallError | None = None

    def wait(self) -> None:
        """Return once somebody was paired, the code is locked, or its time is over."""
        # In pieces: the kernel may hand a signal to any thread, and a main thread that sleeps on would not look up.
        with self._changed:
            while self._code.left_s > 0:
                if self._changed.wait_for(self._over, timeout=min(_PIECE_S, self._code.left_s)):
                    return

    def outcome(self) -> Client:
        """Return who was paired, once nothing is under way any more.

        Raises:
            CallError: If nobody was; the text says why.
        """
        if self._paired is not None:
            return self._paired
        if self._failure is not None:
            raise self._failure
        why = "it was tried too often" if self._code.left_s > 0 else "its ten minutes are over"
        raise PairingLockedError(
            f"nobody was paired: the code is locked, {why}; run `edgenas-agent pair` for a new one"
        )

    def _over(self) -> bool:
        return self._paired is not None or (self._code.tries_left <= 0 and not self._under_way)

    def Pair(  # noqa: N802 (generated name)
        self, request_iterator: Iterator[access_pb2.PairRequest], context: grpc.ServicerContext
    ) -> Iterator[access_pb2.PairResponse]:
        """Go through the four messages."""
        self._note(1)
        try:
            with answering(context):
                with _limited(context, FIRST_LIMIT_S):
                    begin = _next(request_iterator, "begin").begin
                with _limited(context, EXCHANGE_LIMIT_S):
                    yield from self._pair(begin, request_iterator)
        finally:
            self._note(-1)

    def _pair(
        self, begin: access_pb2.PairBegin, requests: Iterator[access_pb2.PairRequest]
    ) -> Iterator[access_pb2.PairResponse]:
        _check_version(begin.protocol_version)
        certificate = certificate_of(begin.certificate)
        exchange = self._code.begin(certificate.fingerprint, self._identity.fingerprint, begin.message)
        yield challenge_to_wire(exchange.message)
        try:
            proof = exchange.proof_for(_next(requests, "proof").proof.proof)
        except UnauthenticatedError:
            logger.warning(
                "a try to pair as '%s' failed, %d are left", shown(begin.client_name), self._code.tries_left
            )
            raise
        try:
            client = self._clients.add(begin.client_name, self._role, certificate, datetime.now(timezone.utc))
        except CallError as error:
            self._failure = error
            raise
        with self._changed:
            self._paired = client
        yield accepted_to_wire(client, proof)

    def _note(self, more: int) -> None:
        with self._changed:
            self._under_way += more
            self._changed.notify_all()


@contextlib.contextmanager
def pairing_open(host: str, port: int, service: PairingService, identity: Identity) -> Iterator[int]:
    """Serve pairing while the context is open, and yield the port.

    Raises:
        StartupError: If the address cannot be used.
    """
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="pairing"),
        options=[*CONNECTION_OPTIONS, ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES)],
        maximum_concurrent_rpcs=THREADS,
    )
    access_pb2_grpc.add_PairingServiceServicer_to_server(service, server)
    # Whoever comes is a stranger still. TLS keeps listeners out; the code does the rest.
    credentials = grpc.ssl_server_credentials([(identity.private_key, identity.certificate)])
    bound_port = bind(server, host, port, credentials)
    server.start()
    try:
        yield bound_port
    finally:
        # The last answer may still be on its way.
        server.stop(GRACE_S).wait()


@contextlib.contextmanager
def _limited(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel a call that stays in the context for longer: each holds one of few threads."""
    watchdog = threading.Timer(seconds, context.cancel)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()


def _next(requests: Iterator[access_pb2.PairRequest], step: str) -> access_pb2.PairRequest:
    request = next(requests, None)
    if request is None or request.WhichOneof("step") != step:
        raise InvalidRequestError(
            f"the pairing has no step '{step}' where one was expected; update edgenas on the host"
        )
    return request


def _check_version(version: int) -> None:
    if not OLDEST_PROTOCOL_VERSION <= version <= PROTOCOL_VERSION:
        raise WireVersionError(
            f"the host speaks version {version} of the wire format, this agent {__version__} speaks "
            f"{OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}; install the same edgenas on both"
        )
