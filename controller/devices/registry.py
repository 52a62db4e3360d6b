"""The boards a user has named, in `devices.json` in the EdgeNAS home."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, TypeAdapter, ValidationError

from controller.core.errors import ConfigurationError, NotFoundError

LOCAL = "local"
"""Name of the machine the host runs on; it needs no registration."""

DEFAULT_PORT = 50151

# Names stand in request ids, which an agent limits to 128 characters.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(%[\w.\-]+)?\]|[^\s:/\[\]]+)(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredDevice:
    """A board and where its agent listens."""

    name: str
    address: str


def parse_address(text: str) -> str:
    """Return `HOST:PORT` for `HOST` or `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ConfigurationError: If text is neither.
    """
    match = _ADDRESS.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigurationError(
            f"address {text!r} is not understood; expected HOST or HOST:PORT, e.g. pi4.lan:{DEFAULT_PORT}"
        )
    return f"{match['host']}:{port}"


def _full_address(text: str) -> str:
    """Return an address as it must stand in the file, with its port."""
    if not _ADDRESS.fullmatch(text) or not text.rpartition(":")[2].isdigit():
        raise ValueError(text)
    return text


_ADDRESSES = TypeAdapter(dict[str, Annotated[str, AfterValidator(_full_address)]])


class DeviceRegistry:
    """Reads and writes the whole file at once: it is never half-written, and of two writers the last one wins.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def devices(self) -> list[RegisteredDevice]:
        """Return all registered devices by name."""
        return [
            RegisteredDevice(name=name, address=address) for name, address in sorted(self._read().items())
        ]

    def add(self, name: str, address: str) -> RegisteredDevice:
        """Register a device.

        Raises:
            ConfigurationError: If the name or address is malformed, or the name is taken.
        """
        if name == LOCAL or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"device name {name!r} cannot be used; expected letters, digits, '.', '_' and '-', and not '{LOCAL}'"
            )
        known = self._read()
        if name in known:
            raise ConfigurationError(
                f"device {name!r} is registered at {known[name]}; remove it first or choose another --name"
            )
        device = RegisteredDevice(name=name, address=parse_address(address))
        self._write({**known, name: device.address})
        return device

    def remove(self, name: str) -> None:
        """Forget a device.

        Raises:
            NotFoundError: If it is not registered.
        """
        known = self._read()
        del known[self.find(name).name]
        self._write(known)

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
        return RegisteredDevice(name=name, address=known[name])

    def _read(self) -> dict[str, str]:
        try:
            return _ADDRESSES.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigurationError(
                f"device registry {self._path} cannot be read: {error.strerror}"
            ) from error
        except ValidationError as error:
            raise ConfigurationError(
                f"device registry {self._path} is not a JSON object of names and HOST:PORT addresses; mend or remove it"
            ) from error

    def _write(self, known: Mapping[str, str]) -> None:
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            raise ConfigurationError(
                f"device registry {self._path} cannot be written: {error.strerror}"
            ) from error
