"""Makes identities and understands certificates in a process of its own, so that the agent stays small."""

import json
import subprocess
import sys
import threading
from datetime import datetime, timezone

from device_agent.access.clients import Certificate
from device_agent.errors import BusyError, InvalidRequestError, StartupError

_ONE_AT_A_TIME = threading.Lock()
LIMIT_S = 120.0
# Far more than a certificate of this kind has: 0.4 kB.
SIZE_LIMIT_BYTES = 4096


def new_identity(name: str) -> str:
    """Return a new key and certificate as `identity.py` keeps them.

    Raises:
        StartupError: If none can be made.
    """
    return _ask("make", name)


def certificate_of(der: bytes, signature: bytes = b"", signed: bytes = b"") -> Certificate:
    """Return a stranger's certificate.

    Args:
        der: The certificate.
        signature: By its key; empty where the stranger proves otherwise that it has it.
        signed: What the signature is of.

    Raises:
        InvalidRequestError: If it is none that could be used.
        BusyError: If another one is being looked at: each takes a process.
        StartupError: If nobody can tell.
    """
    if len(der) > SIZE_LIMIT_BYTES:
        raise InvalidRequestError(
            f"the certificate has {len(der)} bytes, and {SIZE_LIMIT_BYTES} at most are taken"
        )
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise BusyError("another certificate is being looked at; ask again in a moment")
    try:
        found = json.loads(
            _ask("understand", given=json.dumps([part.hex() for part in (der, signature, signed)]))
        )
    finally:
        _ONE_AT_A_TIME.release()
    if "refused" in found:
        raise InvalidRequestError(f"the certificate cannot be used: {found['refused']}")
    return Certificate(
        pem=found["pem"],
        subject=found["subject"],
        expires_at=datetime.fromtimestamp(found["expires_at"], timezone.utc),
    )


def _ask(*words: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent.access.certificates", *words],
        capture_output=True,
        input=given,
        text=True,
        timeout=LIMIT_S,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StartupError(
            f"certificates cannot be made or read: {last}; check that `cryptography` is installed"
        )
    return done.stdout
