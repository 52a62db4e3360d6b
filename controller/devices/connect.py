"""From a device's name to a connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.devices.client import DeviceClient
from controller.devices.local import LocalAgent
from controller.devices.registry import LOCAL, DeviceRegistry


def registry(home: Path) -> DeviceRegistry:
    """Return the registry of an EdgeNAS home."""
    return DeviceRegistry(home / "devices.json")


@contextmanager
def connected(name: str, home: Path, patience_s: float = 300.0) -> Iterator[DeviceClient]:
    """Yield a client of the device called name; for `local` the agent runs as long as the client is used.

    Raises:
        NotFoundError: If no such device is registered.
        DeviceError: If the local agent does not start.
    """
    if name != LOCAL:
        with DeviceClient(name, registry(home).find(name).address, patience_s) as client:
            yield client
        return
    with (
        LocalAgent(home / "local-agent") as agent,
        DeviceClient(name, agent.address, patience_s, agent.ensure_running) as client,
    ):
        yield client
