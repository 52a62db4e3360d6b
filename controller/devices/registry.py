"""The boards a user has named, in `devices.json` in the EdgeNAS home."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from controller.core.errors import ConfigurationError, NotFoundError
from controller.devices.address import ADDRESS, parse_address
from controller.devices.credentials import Credentials, CredentialsFolder

LOCAL = "local"
"""Name of the machine the host runs on; it needs no registration."""

# Names stand in request ids, which an agent limits to 128 characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredDevice:
    """A board and where its agent listens; `paired` where it is asked over TLS."""

    name: str
    address: str
    paired: bool


def _full_address(text: str) -> str:
    """Return an address as it must stand in the file, with its port."""
    if not ADDRESS.fullmatch(text) or not text.rpartition(":")[2].isdigit():
        raise ValueError(text)
    return text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: Annotated[str, AfterValidator(_full_address)]
    paired: bool


def _entry(stored: object) -> object:
    """Read what was written before there was pairing, an address alone."""
    return {"address": stored, "paired": False} if isinstance(stored, str) else stored


_ENTRIES = TypeAdapter(dict[str, Annotated[_Entry, BeforeValidator(_entry)]])


class DeviceRegistry:
    """Reads and writes the whole file at once: it is never half-written, and of two writers the last one wins.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def devices(self) -> list[RegisteredDevice]:
        """Return all registered devices by name."""
        return [_device(name, entry) for name, entry in sorted(self._read().items())]

    def credentials(self, name: str) -> CredentialsFolder:
        """Return where the credentials of a paired device are kept."""
        return CredentialsFolder(self._path.with_suffix("") / name)

    def check_free(self, name: str) -> None:
        """Find out whether a device can be registered under a name.

        Raises:
            ConfigurationError: If the name cannot be used, or is taken.
        """
        if name == LOCAL or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"device name {name!r} cannot be used; expected letters, digits, '.', '_' and '-', and not '{LOCAL}'"
            )
        known = self._read()
        if name in known:
            raise ConfigurationError(
                f"device {name!r} is registered at {known[name].address}; remove it first or choose another --name"
            )

    def add(self, name: str, address: str, credentials: Credentials | None = None) -> RegisteredDevice:
        """Register a device.

        Args:
            name: What to call it.
            address: Where its agent listens.
            credentials: What this host and the agent know each other by; None for an agent without TLS.

        Raises:
            ConfigurationError: If the name or address is malformed, or the name is taken.
        """
        self.check_free(name)
        entry = _Entry(address=parse_address(address), paired=credentials is not None)
        if credentials is not None:
            self.credentials(name).write(credentials)
        self._write({**self._read(), name: entry})
        return _device(name, entry)

    def remove(self, name: str) -> None:
        """Forget a device.

        Raises:
            NotFoundError: If it is not registered.
        """
        known = self._read()
        del known[self.find(name).name]
        self._write(known)
        self.credentials(name).remove()

    def find(self, name: str) -> RegisteredDevice:
        """Return a registered device.

        Raises:
            NotFoundError: If there is none of this name.
        """
        known = self._read()
        if name not in known:
            names = ", ".join([LOCAL, *sorted(known)])
            raise NotFoundError(
                f"device {name!r} is not registered; expected one of {names}; `edgenas devices add HOST --name {name}` registers it"
            )
        return _device(name, known[name])

    def known_by(self, fingerprint: str) -> Iterator[str]:
        """Yield the names of the devices whose agent's certificate has a fingerprint."""
        for device in self.devices():
            # One whose keys are damaged is recognised by nothing; the commands that use it say so.
            with contextlib.suppress(ConfigurationError):
                if device.paired and fingerprint in self.credentials(device.name).read().agent_fingerprints:
                    yield device.name

    def _read(self) -> dict[str, _Entry]:
        try:
            return _ENTRIES.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigurationError(
                f"device registry {self._path} cannot be read: {error.strerror}"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(
                f"device registry {self._path} is not a JSON object of names and entries with a HOST:PORT address; mend or remove it"
            ) from error

    def _write(self, known: Mapping[str, _Entry]) -> None:
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({name: dict(entry) for name, entry in known.items()}, indent=2, sort_keys=True)
            draft.write_text(text + "\n", encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            raise ConfigurationError(
                f"device registry {self._path} cannot be written: {error.strerror}"
            ) from error


def _device(name: str, entry: _Entry) -> RegisteredDevice:
    return RegisteredDevice(name=name, address=entry.address, paired=entry.paired)
