"""From a device's name to a connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.devices.client import DeviceClient
from controller.devices.local import LocalAgent
from controller.devices.registry import LOCAL, DeviceRegistry, RegisteredDevice


def registry(home: Path) -> DeviceRegistry:
    """Return the registry of an EdgeNAS home."""
    return DeviceRegistry(home / "devices.json")


def find_device(name: str, home: Path) -> RegisteredDevice | None:
    """Return where a device is registered; None for `local`, which needs no registration.

    Raises:
        NotFoundError: If no such device is registered.
    """
    return None if name == LOCAL else registry(home).find(name)


@contextmanager
def connected(name: str, home: Path, patience_s: float = 300.0) -> Iterator[DeviceClient]:
    """Yield a client of the device called name; for `local` the agent runs as long as the client is used.

    Raises:
        NotFoundError: If no such device is registered.
        DeviceError: If the local agent does not start.
    """
    device = find_device(name, home)
    if device is not None:
        credentials = registry(home).credentials(name) if device.paired else None
        with DeviceClient(name, device.address, patience_s, credentials=credentials) as client:
            yield client
        return
    with (
        LocalAgent(home / "local-agent") as agent,
        DeviceClient(name, agent.address, patience_s, agent.ensure_running) as client,
    ):
        yield client
