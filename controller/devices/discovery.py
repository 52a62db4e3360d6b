"""Agents that announce themselves on the local network. Anybody can announce anything: it is a hint, and pairing tells."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from zeroconf import IPVersion, ServiceBrowser, ServiceStateChange, Zeroconf

from controller.core.errors import DeviceError
from controller.core.text import printable

SERVICE_TYPE = "_edgenas._tcp.local."
# For all of them together: who announces much and answers nothing stands in nobody's way for longer.
_ANSWER_LIMIT_S = 3.0
_NAMES_LIMIT = 100
_TEXT_LIMIT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What somebody on the network says of an agent.

    Attributes:
        address: `HOST:PORT`.
        fingerprint: Of the certificate that the agent claims to have.
    """

    name: str
    address: str
    board: str
    agent_version: str
    fingerprint: str


def announcements(seconds: float, interface: str | None = None) -> Sequence[Announcement]:
    """Return what is announced within some time, by name.

    Args:
        seconds: How long to listen.
        interface: Address of the interface to listen on; None listens on all.

    Raises:
        DeviceError: If this machine cannot listen to multicast DNS.
    """
    names: set[str] = set()
    lock = threading.Lock()

    def note(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        with lock:
            if state_change is ServiceStateChange.Removed:
                names.discard(name)
            elif len(names) < _NAMES_LIMIT:
                names.add(name)

    try:
        zeroconf = (
            Zeroconf(ip_version=IPVersion.V4Only)
            if interface is None
            else Zeroconf(interfaces=[interface], ip_version=IPVersion.V4Only)
        )
    except OSError as error:
        raise DeviceError(
            f"this machine cannot listen for announcements: {error}; add the board by its address with `edgenas devices add`"
        ) from error
    try:
        browser = ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[note])
        time.sleep(seconds)
        browser.cancel()
        with lock:
            found = sorted(names)
        deadline_s = time.monotonic() + _ANSWER_LIMIT_S
        return [told for name in found for told in _told(zeroconf, name, deadline_s - time.monotonic())]
    finally:
        zeroconf.close()


def _told(zeroconf: Zeroconf, name: str, limit_s: float) -> Sequence[Announcement]:
    service = zeroconf.get_service_info(SERVICE_TYPE, name, timeout=max(1, int(1000 * min(1.0, limit_s))))
    if service is None or service.port is None:
        return []
    texts = {
        key.decode(errors="replace"): _shown((value or b"").decode(errors="replace"))
        for key, value in service.properties.items()
    }
    return [
        Announcement(
            name=_shown(name.removesuffix(f".{SERVICE_TYPE}")),
            address=f"{address}:{service.port}",
            board=texts.get("board", ""),
            agent_version=texts.get("agent", ""),
            fingerprint=texts.get("fingerprint", ""),
        )
        for address in service.parsed_addresses(IPVersion.V4Only)
    ]


def _shown(text: str) -> str:
    """Return what a stranger says, fit for a terminal."""
    return printable(text)[:_TEXT_LIMIT]
