"""Where agents listen: `HOST:PORT`, an IPv6 host in brackets."""

import ipaddress
import re

from controller.core.errors import ConfigurationError

DEFAULT_PORT = 50151

ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(%[\w.\-]+)?\]|[^\s:/\[\]]+)(:(?P<port>\d{1,5}))?")


def parse_address(text: str) -> str:
    """Return `HOST:PORT` for `HOST` or `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        ConfigurationError: If text is neither.
    """
    match = ADDRESS.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigurationError(
            f"address {text!r} is not understood; expected HOST or HOST:PORT, e.g. pi4.lan:{DEFAULT_PORT}"
        )
    return f"{match['host']}:{port}"


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of `HOST:PORT` as a socket takes them: an IPv6 host without brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Tell whether nobody but this machine answers at an address."""
    host, _ = host_and_port(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
