"""Who is at the other end of a call."""

import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

import grpc

from device_agent.access.clients import ClientStore
from device_agent.access.roles import Role
from device_agent.errors import UnauthenticatedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls; `name` is unique among an agent's clients, `fingerprint` that of the certificate shown, empty without TLS."""

    name: str
    role: Role
    fingerprint: str = ""


class Callers(Protocol):
    """Tells who calls."""

    def of(self, context: grpc.ServicerContext) -> Caller:
        """Return who calls.

        Raises:
            UnauthenticatedError: If it is nobody that the agent knows, or no longer.
        """
        ...


class Anybody:
    """Whoever reaches an agent without TLS, on the loopback of its own machine."""

    def of(self, context: grpc.ServicerContext) -> Caller:
        """Return the same for everyone."""
        return Caller(name="local", role=Role.ADMIN)


class PairedClients:
    """Those that the agent was paired with, known by the certificate that TLS has checked they have the key of.

    Args:
        store: Who they are.
        now: The time.
    """

    def __init__(
        self, store: ClientStore, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    ) -> None:
        self._store = store
        self._now = now

    def of(self, context: grpc.ServicerContext) -> Caller:
        """Return who calls. Looked up for each call: a connection outlives a revocation, and an expiry.

        Raises:
            UnauthenticatedError: If the caller is not known, not any more, or its certificate has expired.
            AccessError: If the list of clients cannot be read.
        """
        (shown,) = context.auth_context().get("x509_pem_cert") or (b"",)
        if not isinstance(shown, bytes) or not shown:
            raise UnauthenticatedError(
                "the caller shows no certificate; pair it with `edgenas-agent pair` on the board"
            )
        fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown.decode("ascii"))).hexdigest()
        client = self._store.find(fingerprint)
        if client is None:
            raise UnauthenticatedError(
                "this agent does not know the caller, or not any more; pair it with `edgenas-agent pair` on the board"
            )
        now = self._now()
        if client.certificate.expires_at <= now:
            raise UnauthenticatedError(
                f"the certificate of '{client.name}' expired at {client.certificate.expires_at:%Y-%m-%d %H:%M} UTC, and "
                f"this board's clock says {now:%Y-%m-%d %H:%M} UTC; set the clock, or pair it again"
            )
        return Caller(name=client.name, role=client.role, fingerprint=fingerprint)
