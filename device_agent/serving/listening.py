"""Addresses to listen on."""

import ipaddress
import socket
from pathlib import Path

import grpc

from device_agent.errors import StartupError

CONNECTION_OPTIONS = [
    # By default Linux lets a second server share the port, and clients would reach either.
    ("grpc.so_reuseport", 0),
    # Anybody may connect, and each connection takes memory until it has shown who it is. Ten thousand at once took the
    # whole process down; with these, those beyond the limit are closed at once, and those that say nothing after this.
    ("grpc.max_allowed_incoming_connections", 256),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 15 * 60_000),
    ("grpc.max_concurrent_streams", 100),
]


ADDRESS_FILE = "address"


def write_address(state_dir: Path, address: str) -> None:
    """Leave where the agent listens for the other commands of its state directory.

    Raises:
        StartupError: If it cannot be written.
    """
    try:
        (state_dir / ADDRESS_FILE).write_text(address, encoding="utf-8")
    except OSError as error:
        raise StartupError(
            f"cannot write the state directory '{state_dir}': {error.strerror}; choose another --state-dir"
        ) from error


def read_address(state_dir: Path) -> str | None:
    """Return where the agent listens, or did last; None where none has run yet."""
    try:
        return (state_dir / ADDRESS_FILE).read_text(encoding="utf-8")
    except OSError:
        return None


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        StartupError: If the text is no such address.
    """
    host, separator, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise StartupError(f"address '{address}' is not HOST:PORT, e.g. 127.0.0.1:50151")
    return host, int(port)


def full_address(host: str, port: int) -> str:
    """Return HOST:PORT."""
    return f"{_bracketed(host)}:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether nobody reaches a host but from the machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(server: grpc.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    """Bind a server, without TLS where there are no credentials, and return its port.

    Raises:
        StartupError: If the address cannot be used.
    """
    try:
        # gRPC hides the cause of a failed bind; a plain socket tells it.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
        address = full_address(host, port)
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StartupError(
            f"cannot listen on {full_address(host, port)}: {reason}; choose another --address"
        ) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
