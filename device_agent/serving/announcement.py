"""Tells the local network that an agent is here, over multicast DNS. What is told is no secret, and nobody should trust it."""

import contextlib
import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import psutil
from zeroconf import Error, IPVersion, ServiceInfo, Zeroconf

from device_agent import __version__
from device_agent.board.description import Board
from device_agent.serving.wire.versions import PROTOCOL_VERSION

logger = logging.getLogger(__name__)

SERVICE_TYPE = "_edgenas._tcp.local."
# A label of a name in DNS has 63 bytes at most.
LABEL_LIMIT = 63
TEXT_LIMIT = 200
# A board may get its address long after its agent has started, and another one at any time.
LOOK_AGAIN_S = 60.0


@contextlib.contextmanager
def announced(host: str, port: int, board: Board, fingerprint: Callable[[], str]) -> Iterator[None]:
    """Announce an agent while the context is open; where the network does not allow that, the log tells.

    Args:
        host: The address that the agent listens on; a wildcard announces it on all that the board has.
        port: Its port.
        board: What it runs on.
        fingerprint: Returns that of its certificate.
    """
    ended = threading.Event()
    logging.getLogger("zeroconf").addFilter(_without_traceback)

    def announce() -> None:
        shown: tuple[Sequence[str], str] = ((), "")
        zeroconf: Zeroconf | None = None
        while True:
            wanted = (_addresses(host), fingerprint())
            if wanted != shown:
                _close(zeroconf)
                zeroconf, shown = _announce(wanted[0], port, board, wanted[1]), wanted
            if ended.wait(LOOK_AGAIN_S):
                break
        _close(zeroconf)

    thread = threading.Thread(target=announce, name="announcement", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Have the library's warnings in one line: an interface that is down is no defect."""
    record.exc_info = record.exc_text = None
    return True


def _addresses(host: str) -> Sequence[str]:
    """Return the IPv4 addresses at which an agent can be reached."""
    if host not in ("0.0.0.0", "::"):
        try:
            return sorted(socket.gethostbyname_ex(host)[2])
        except OSError:
            # An IPv6 address, or a name that is not known yet.
            return []
    found = (
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET
    )
    return sorted(address for address in found if not ipaddress.ip_address(address).is_loopback)


def _announce(addresses: Sequence[str], port: int, board: Board, fingerprint: str) -> Zeroconf | None:
    if not addresses:
        return None
    label = f"{board.hostname.replace('.', '-')[: LABEL_LIMIT - 9]}-{fingerprint[:8]}"
    zeroconf: Zeroconf | None = None
    try:
        service = ServiceInfo(
            SERVICE_TYPE,
            f"{label}.{SERVICE_TYPE}",
            port=port,
            parsed_addresses=list(addresses),
            server=f"{label}.local.",
            properties={
                "agent": __version__,
                "protocol": str(PROTOCOL_VERSION),
                "board": (board.board_model or board.cpu_model or board.machine)[:TEXT_LIMIT],
                "fingerprint": fingerprint,
            },
        )
        zeroconf = Zeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
        zeroconf.register_service(service, allow_name_change=True)
    except (Error, OSError) as error:
        logger.warning("the agent cannot be discovered: %r; hosts can still add it by its address", error)
        _close(zeroconf)
        return None
    return zeroconf


def _close(zeroconf: Zeroconf | None) -> None:
    """Say goodbye, so that nobody finds an agent that has gone."""
    if zeroconf is not None:
        zeroconf.close()
