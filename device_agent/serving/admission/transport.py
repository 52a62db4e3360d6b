"""Whom an agent admits, and how they connect.

Those that it was paired with, over TLS; or, on loopback and only where that is asked for, anybody.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc

from device_agent.access.clients import ClientStore
from device_agent.access.identity import WARN_BEFORE, Certificates, Identity, IdentityFolder
from device_agent.errors import AgentError
from device_agent.serving.admission.callers import Anybody, Caller, Callers, PairedClients

logger = logging.getLogger(__name__)

# Hosts that call at least once in this time learn the next certificate before the present one ends.
RENEW_BEFORE = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whom an agent admits.

    Attributes:
        callers: Tells who calls.
        credentials: For the port; None without TLS.
        clients: Those that it was paired with; None where it serves anybody.
        certificates_for: Returns what a caller, who takes certificates with these fingerprints for the agent's, must know.
        fingerprint: Returns that of the certificate that the agent shows; None without TLS.
    """

    callers: Callers
    credentials: grpc.ServerCredentials | None
    clients: ClientStore | None
    certificates_for: Callable[[Caller, Collection[str]], Certificates]
    fingerprint: Callable[[], str] | None


def anybody() -> Admission:
    """Admit anybody, without TLS."""
    return Admission(
        callers=Anybody(),
        credentials=None,
        clients=None,
        certificates_for=lambda caller, known: Certificates(),
        fingerprint=None,
    )


def paired_clients(state_dir: Path) -> Admission:
    """Admit those that the agent was paired with, over TLS.

    Raises:
        AgentError: If the agent's identity or the list of its clients cannot be read or made.
    """
    clients = ClientStore(state_dir)
    identity = AgentIdentity(IdentityFolder(state_dir), clients)
    return Admission(
        callers=PairedClients(clients),
        credentials=_credentials(identity, clients),
        clients=clients,
        certificates_for=lambda caller, known: identity.shown_to(caller.name, known),
        fingerprint=lambda: identity.current.fingerprint,
    )


class AgentIdentity:
    """The certificate that the agent shows now, and the one that it is to show next. May be used from any thread.

    Args:
        folder: Where both lie.
        clients: Who must know the next before it is shown.
        now: The time.
    """

    def __init__(
        self,
        folder: IdentityFolder,
        clients: ClientStore,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._folder = folder
        self._clients = clients
        self._now = now
        self._lock = threading.Lock()
        self._making: threading.Thread | None = None
        self.current = folder.current(now())
        self.advance()
        if self.current.expires_at - now() < WARN_BEFORE:
            logger.warning(
                "the agent's certificate ends on %s; `edgenas-agent rotate` makes the next one",
                f"{self.current.expires_at:%Y-%m-%d}",
            )

    def advance(self) -> Identity:
        """Return the identity to show from now on: the next one as soon as everyone knows it.

        Raises:
            AgentError: If the identities or the list of clients cannot be read.
        """
        with self._lock:
            following = self._folder.next()
            if following is not None and self._may_follow(following):
                self._folder.put_next_in_place()
                logger.info("the agent shows its new certificate from now on: %s", following.fingerprint)
            self.current = self._folder.current(self._now())
            return self.current

    def _may_follow(self, following: Identity) -> bool:
        everyone_knows = all(client.told == following.fingerprint for client in self._clients.clients())
        return everyone_knows or self.current.expires_at <= self._now()

    def shown_to(self, name: str, known: Collection[str]) -> Certificates:
        """Return the certificates to tell a client of, and note whether it knows the next one.

        Args:
            name: Of the client.
            known: Fingerprints of those that it takes for the agent's.
        """
        following = self._folder.next()
        if following is None:
            self._prepare_if_due()
            return Certificates(current=self.current.der)
        clients = self._clients.clients()
        if following.fingerprint in known and any(
            client.name == name and client.told != following.fingerprint for client in clients
        ):
            self._clients.note_told(name, following.fingerprint)
        return Certificates(current=self.current.der, following=following.der)

    def _prepare_if_due(self) -> None:
        """Begin to make the next certificate where the present one ends soon; the caller does not wait for it."""
        if self.current.expires_at - self._now() > RENEW_BEFORE:
            return
        with self._lock:
            if self._making is None or not self._making.is_alive():
                self._making = threading.Thread(target=self._prepare, name="certificate", daemon=True)
                self._making.start()

    def _prepare(self) -> None:
        try:
            self._folder.prepare_next()
        except AgentError as error:
            logger.error("no next certificate: %s", error)


def _credentials(identity: AgentIdentity, clients: ClientStore) -> grpc.ServerCredentials:
    """Return credentials that ask each caller for a certificate of a paired client, as they are at that moment.

    Raises:
        AgentError: If the identities or the list of clients cannot be read.
    """

    def configuration() -> grpc.ServerCertificateConfiguration:
        shown = identity.advance()
        # TLS needs somebody to trust; the agent itself calls nobody, and is no client.
        trusted = clients.trusted_pems() or shown.certificate.decode("ascii")
        return grpc.ssl_server_certificate_configuration(
            [(shown.private_key, shown.certificate)], root_certificates=trusted.encode("ascii")
        )

    last = configuration()

    def fetch() -> grpc.ServerCertificateConfiguration:
        nonlocal last
        try:
            last = configuration()
        except AgentError as error:
            # Whoever connects meanwhile is told by the same error, with a status, when it calls.
            logger.error("%s", error)
        return last

    return grpc.dynamic_ssl_server_credentials(last, fetch, require_client_authentication=True)
