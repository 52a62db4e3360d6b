"""The agent's key and certificate, made on the board at its first start; the key never leaves it.

A change is prepared: `next.json` lies beside `current.json` until every client was told of it, and then takes its place.
"""

import hashlib
import json
import os
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from device_agent.access.issuing import new_identity
from device_agent.access.private_file import give_to_owner_of, remove_drafts, write_private
from device_agent.errors import StartupError

IDENTITY_FOLDER = "identity"
CURRENT_FILE = "current.json"
NEXT_FILE = "next.json"
# So long before an end there is a warning of it.
WARN_BEFORE = timedelta(days=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A private key and its certificate, both in PEM."""

    private_key: bytes
    certificate: bytes
    expires_at: datetime

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return ssl.PEM_cert_to_DER_cert(self.certificate.decode("ascii"))

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate in DER."""
        return hashlib.sha256(self.der).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The agent's certificates in DER; empty where there is none, or no change is near."""

    current: bytes = b""
    following: bytes = b""


class IdentityFolder:
    """The agent's identities on the disk. Only the agent's user reads them.

    Args:
        state_dir: The agent's state directory.
    """

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / IDENTITY_FOLDER

    def current(self, now: datetime | None = None) -> Identity:
        """Return the identity in use, made now where there is none, or none that is still good.

        Raises:
            StartupError: If it cannot be read or made.
        """
        found = self._read(CURRENT_FILE)
        if found is None or found.expires_at <= (now or datetime.now(timezone.utc)):
            # Nobody takes one that has ended; the next one those at least that know it.
            if found is not None and self.next() is not None:
                self.put_next_in_place()
            else:
                self._make(CURRENT_FILE)
            found = self._read(CURRENT_FILE)
        assert found is not None
        return found

    def made(self) -> Identity | None:
        """Return the identity in use; None where none was made yet.

        Raises:
            StartupError: If it cannot be read.
        """
        return self._read(CURRENT_FILE)

    def next(self) -> Identity | None:
        """Return the identity that is to take its place; None where no change is under way.

        Raises:
            StartupError: If it cannot be read.
        """
        return self._read(NEXT_FILE)

    def prepare_next(self) -> Identity:
        """Make the next identity, or return the one that was made before.

        Raises:
            StartupError: If it cannot be read or made.
        """
        if self.next() is None:
            self._make(NEXT_FILE)
        found = self.next()
        assert found is not None
        return found

    def put_next_in_place(self) -> None:
        """Have the next identity take the present one's place.

        Raises:
            StartupError: If there is none, or the disk does not take it.
        """
        try:
            (self._folder / NEXT_FILE).replace(self._folder / CURRENT_FILE)
        except OSError as error:
            raise StartupError(
                f"the next certificate in '{self._folder}' cannot be put in place: {error.strerror}; "
                "make one with `edgenas-agent rotate`"
            ) from error

    def _read(self, name: str) -> Identity | None:
        path = self._folder / name
        try:
            stored = json.loads(path.read_text(encoding="ascii"))
            return Identity(
                private_key=stored["private_key"].encode("ascii"),
                certificate=stored["certificate"].encode("ascii"),
                expires_at=datetime.fromtimestamp(stored["expires_at"], timezone.utc),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartupError(
                f"the identity '{path}' cannot be read: {error.strerror}; run as the agent's user"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StartupError(
                f"the identity '{path}' is damaged: {error}; remove it to have a new one made, and pair every host again"
            ) from error

    def _make(self, name: str) -> None:
        """Write a new identity, all of it or nothing."""
        made = new_identity(os.uname().nodename or "agent")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder, os.O_RDONLY)
            try:
                give_to_owner_of(self._folder.parent, descriptor)
            finally:
                os.close(descriptor)
            remove_drafts(self._folder)
            write_private(self._folder / name, made)
        except OSError as error:
            raise StartupError(
                f"the identity folder '{self._folder}' cannot be written: {error.strerror}; choose another --state-dir"
            ) from error
