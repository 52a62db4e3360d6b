"""Everyone who may call the agent, in `clients.json` in the state directory.

The file is the truth: the server looks at it for each call, so that who is revoked at the command line is out at once,
also on a connection that is open. Whoever changes it holds a lock and puts a whole new file in its place.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from device_agent.access.private_file import give_to_owner_of, write_private
from device_agent.access.roles import Role, role_of
from device_agent.errors import AccessError, ClientNotFoundError, InvalidRequestError

CLIENTS_FILE = "clients.json"
NAME_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A client's certificate in PEM, whose it says it is, and when it expires."""

    pem: str
    subject: str
    expires_at: datetime

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate in DER."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One who may call.

    Attributes:
        name: Unique among the clients.
        renewed: The certificate that takes the present one's place once it is used.
        told: Fingerprint of the agent's next certificate, where the client knows it already; else empty.
    """

    name: str
    role: Role
    certificate: Certificate
    paired_at: datetime
    renewed: Certificate | None = None
    told: str = ""


class ClientStore:
    """Reads and changes the file. May be used from any thread and by several processes.

    Args:
        state_dir: The agent's state directory.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / CLIENTS_FILE
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._known: tuple[Client, ...] = ()
        self._by_fingerprint: dict[str, Client] = {}

    def clients(self) -> Sequence[Client]:
        """Return everyone who may call, by name.

        Raises:
            AccessError: If the file cannot be read.
        """
        with self._lock:
            self._refresh()
            return self._known

    def find(self, fingerprint: str) -> Client | None:
        """Return whose certificate this is; the first use of a renewed one ends the one before.

        Raises:
            AccessError: If the file cannot be read or written.
        """
        with self._lock:
            self._refresh()
            found = self._by_fingerprint.get(fingerprint)
        if found is None or found.certificate.fingerprint == fingerprint:
            return found
        changed = self._update(found.name, lambda client: _promoted(client, fingerprint))
        return changed if changed.certificate.fingerprint == fingerprint else None

    def trusted_pems(self) -> str:
        """Return every certificate that opens a connection.

        Raises:
            AccessError: If the file cannot be read.
        """
        return "".join(
            certificate.pem
            for client in self.clients()
            for certificate in (client.certificate, client.renewed)
            if certificate is not None
        )

    def add(self, name: str, role: Role, certificate: Certificate, paired_at: datetime) -> Client:
        """Let someone in; who comes once more with the same certificate replaces what was known.

        Args:
            name: What to call the client; a number is added where the name is taken.
            role: What the client may do.
            certificate: What the client shows.
            paired_at: Now.

        Raises:
            InvalidRequestError: If another client's certificate bears the same name: TLS could confuse the two.
            AccessError: If the file cannot be read or written.
        """
        with self._changing() as known:
            others = [client for client in known if client.certificate.fingerprint != certificate.fingerprint]
            _refuse_taken(certificate, others)
            client = Client(
                name=_unique(name, {other.name for other in others}),
                role=role,
                certificate=certificate,
                paired_at=paired_at,
            )
            known[:] = [*others, client]
        return client

    def revoke(self, name: str) -> None:
        """Take a client's access away.

        Raises:
            ClientNotFoundError: If there is none of this name.
            AccessError: If the file cannot be read or written.
        """
        with self._changing() as known:
            remaining = [client for client in known if client.name != name]
            if len(remaining) == len(known):
                names = ", ".join(client.name for client in known) or "nobody"
                raise ClientNotFoundError(f"no client is called '{name}'; expected one of: {names}")
            known[:] = remaining

    def renew(self, name: str, certificate: Certificate) -> None:
        """Take a client's new certificate, beside the one that it uses until then.

        Raises:
            ClientNotFoundError: If there is none of this name.
            InvalidRequestError: If it is another client's, or bears the name of one that is known.
            AccessError: If the file cannot be read or written.
        """
        with self._changing() as known:
            _refuse_taken(certificate, known)
            known[:] = [
                replace(client, renewed=certificate) if client.name == name else client for client in known
            ]
            if name not in {client.name for client in known}:
                raise ClientNotFoundError(f"no client is called '{name}' any more; pair it again")

    def note_told(self, name: str, next_fingerprint: str) -> None:
        """Note that a client knows the agent's next certificate.

        Raises:
            ClientNotFoundError: If there is none of this name.
            AccessError: If the file cannot be read or written.
        """
        self._update(name, lambda client: replace(client, told=next_fingerprint))

    def _update(self, name: str, change: Callable[[Client], Client]) -> Client:
        changed: Client | None = None
        with self._changing() as known:
            for place, client in enumerate(known):
                if client.name == name:
                    changed = known[place] = change(client)
        if changed is None:
            raise ClientNotFoundError(f"no client is called '{name}' any more; pair it again")
        return changed

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Client]]:
        """Yield the clients, to be changed; they are on the disk afterwards, unless the body raises."""
        with self._lock, self._locked_file():
            self._refresh()
            known = list(self._known)
            yield known
            text = json.dumps(
                {"clients": [_stored(client) for client in sorted(known, key=lambda client: client.name)]},
                indent=2,
            )
            try:
                write_private(self._path, text + "\n")
            except OSError as error:
                raise self._unusable(error) from error

    @contextlib.contextmanager
    def _locked_file(self) -> Iterator[None]:
        path = self._path.with_suffix(".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            give_to_owner_of(path.parent, descriptor)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _refresh(self) -> None:
        """Read the file where it is another one than was read last."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            stored = json.loads(self._path.read_text(encoding="ascii"))
            known = tuple(_restored(entry) for entry in stored["clients"])
        except FileNotFoundError:
            stamp, known = None, ()
        except OSError as error:
            raise self._unusable(error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AccessError(
                f"the list of clients '{self._path}' is damaged: {error}; remove it, and pair every host again"
            ) from error
        self._stamp, self._known = stamp, known
        self._by_fingerprint = {
            certificate.fingerprint: client
            for client in known
            for certificate in (client.certificate, client.renewed)
            if certificate is not None
        }

    def _unusable(self, error: OSError) -> AccessError:
        return AccessError(
            f"the list of clients '{self._path}' cannot be used: {error.strerror}; run as the agent's user, and make "
            "sure that its disk has room"
        )


def _promoted(client: Client, fingerprint: str) -> Client:
    """Return a client whose renewed certificate is in use, if it is the one that was seen."""
    renewed = client.renewed
    if renewed is None or renewed.fingerprint != fingerprint:
        return client
    return replace(client, certificate=renewed, renewed=None)


def _refuse_taken(certificate: Certificate, known: Sequence[Client]) -> None:
    """Refuse a certificate that TLS or the guard could take for one that is known.

    Raises:
        InvalidRequestError: If there is such a one.
    """
    for client in known:
        for other in (client.certificate, client.renewed):
            if other and (
                other.fingerprint == certificate.fingerprint or other.subject == certificate.subject
            ):
                raise InvalidRequestError(
                    f"a certificate of '{client.name}' has this name or key; make a new one with a name of its own"
                )


def _unique(name: str, taken: set[str]) -> str:
    wanted = "".join(letter for letter in name if letter.isprintable()).strip()[:NAME_LIMIT] or "client"
    unique, number = wanted, 1
    while unique in taken:
        number += 1
        unique = f"{wanted}-{number}"
    return unique


def _stored(client: Client) -> dict[str, object]:
    return {
        **asdict(client),
        "role": client.role.label,
        "paired_at": client.paired_at.timestamp(),
        "certificate": _stored_certificate(client.certificate),
        "renewed": None if client.renewed is None else _stored_certificate(client.renewed),
    }


def _stored_certificate(certificate: Certificate) -> dict[str, object]:
    return {
        "pem": certificate.pem,
        "subject": certificate.subject,
        "expires_at": certificate.expires_at.timestamp(),
    }


def _restored(entry: dict[str, object]) -> Client:
    match entry:
        case {
            "name": str(name),
            "role": str(role),
            "certificate": dict(certificate),
            "paired_at": float(paired_at),
            "renewed": None | dict() as renewed,
            "told": str(told),
        }:
            return Client(
                name=name,
                role=role_of(role),
                certificate=_restored_certificate(certificate),
                paired_at=datetime.fromtimestamp(paired_at, timezone.utc),
                renewed=None if renewed is None else _restored_certificate(renewed),
                told=told,
            )
    raise ValueError("an entry is no client")


def _restored_certificate(entry: dict[str, object]) -> Certificate:
    match entry:
        case {"pem": str(pem), "subject": str(subject), "expires_at": float(expires_at)}:
            return Certificate(
                pem=pem, subject=subject, expires_at=datetime.fromtimestamp(expires_at, timezone.utc)
            )
    raise ValueError("an entry is no certificate")
