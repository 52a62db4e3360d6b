"""Why an agent and this host cannot agree on a connection, which gRPC tells as no more than "unavailable"."""

import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from controller.devices.address import host_and_port
from controller.devices.credentials import SERVER_NAME, fingerprint

_LIMIT_S = 5.0
_PAUSE_S = 1.0
# Source: OpenSSL, x509_vfy.h.
_NOT_YET_VALID, _EXPIRED = 9, 10


def handshake_refusal(address: str, identity_file: Path, agent_certificates: Sequence[str]) -> str | None:
    """Connect once as gRPC does, and return why TLS fails; None where it does not, or nobody is there.

    Args:
        address: `HOST:PORT` of the agent.
        identity_file: This host's key and certificate.
        agent_certificates: What is taken for the agent's, in PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(identity_file)
        context.load_verify_locations(cadata="".join(agent_certificates))
        # An agent that is just shutting down looks the same, once.
        if _is_sent_away(address, context):
            time.sleep(_PAUSE_S)
            if not _is_sent_away(address, context):
                return None
            return (
                "it does not take this host's certificate: it was revoked there, or has expired, or the board's clock is "
                "wrong; remove the device and add it again"
            )
    except ssl.SSLCertVerificationError as error:
        return _of_the_agent(address, error)
    except OSError:
        pass
    return None


def _is_sent_away(address: str, context: ssl.SSLContext) -> bool:
    """Return whether the agent closes the connection once it has seen this host's certificate.

    With TLS 1.3 that comes after the handshake, when an agent that takes it sends its HTTP/2 settings.
    """
    with (
        socket.create_connection(host_and_port(address), timeout=_LIMIT_S) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
    ):
        return connection.recv(1) == b""


def _of_the_agent(address: str, error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return (
            f"its certificate is not good now ({error.verify_message}): set this host's clock and the board's; where both are "
            "right, restart the agent, which makes a new one, then remove the device and add it again"
        )
    try:
        pem = ssl.get_server_certificate(host_and_port(address), timeout=_LIMIT_S)
        shown = f" ({fingerprint(ssl.PEM_cert_to_DER_cert(pem))[:16]})"
    except (OSError, ValueError):
        shown = ""
    return (
        f"the certificate that it shows{shown} is not the one that it was paired with ({error.verify_message}): the agent "
        "was installed anew, or somebody else answers there; once you know which, remove the device and add it again"
    )
