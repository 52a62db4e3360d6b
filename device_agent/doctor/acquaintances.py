"""Whether hosts and the agent know each other, and for how long."""

from datetime import datetime
from pathlib import Path

from device_agent.access.clients import ClientStore
from device_agent.access.identity import WARN_BEFORE, IdentityFolder
from device_agent.doctor.check import Check, failed, passed, warned
from device_agent.errors import AgentError

PAIR = "`edgenas-agent pair` shows a code for one"


def check_certificate(state_dir: Path, now: datetime) -> Check:
    """Tell whether the agent's certificate is good, and for how long."""
    try:
        identity = IdentityFolder(state_dir).made()
    except AgentError as error:
        return failed("certificate", str(error), "mend what the finding names")
    if identity is None:
        return passed("certificate", "the agent makes one when it first starts")
    finding = f"{identity.fingerprint[:16]}, good until {identity.expires_at:%Y-%m-%d}"
    if identity.expires_at <= now:
        return failed(
            "certificate",
            f"{finding}, and this board's clock says {now:%Y-%m-%d}",
            "set the clock, or edgenas-agent rotate --now, and pair every host again",
        )
    if identity.expires_at - now < WARN_BEFORE:
        return warned(
            "certificate", finding, "edgenas-agent rotate, and have every host look at the board until then"
        )
    return passed("certificate", finding)


def check_clients(state_dir: Path, now: datetime) -> Check:
    """Tell which hosts may call, and whose certificate ends soon."""
    try:
        clients = ClientStore(state_dir).clients()
    except AgentError as error:
        return failed("hosts", str(error), "mend what the finding names")
    if not clients:
        return passed("hosts", f"none is paired; {PAIR}")
    ending = [client.name for client in clients if client.certificate.expires_at - now < WARN_BEFORE]
    names = ", ".join(f"{client.name} ({client.role.label})" for client in clients)
    if ending:
        return warned(
            "hosts",
            f"{names}; the certificates of {', '.join(ending)} end soon or have ended",
            "edgenas devices rotate on each of these, or edgenas-agent clients revoke",
        )
    return passed("hosts", names)
