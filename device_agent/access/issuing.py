"""Makes identities and understands certificates in a process of its own, so that the agent stays small."""

import json
import subprocess
import sys
from datetime import datetime, timezone

from device_agent.access.clients import Certificate
from device_agent.errors import InvalidRequestError, StartupError

LIMIT_S = 120.0
# Far more than a certificate of this kind has: 0.4 kB.
SIZE_LIMIT_BYTES = 4096


def new_identity(name: str) -> str:
    """Return a new key and certificate as `identity.py` keeps them.

    Raises:
        StartupError: If none can be made.
    """
    return _ask("make", name)


def certificate_of(der: bytes) -> Certificate:
    """Return a stranger's certificate.

    Raises:
        InvalidRequestError: If it is none that could be used.
        StartupError: If nobody can tell.
    """
    if len(der) > SIZE_LIMIT_BYTES:
        raise InvalidRequestError(
            f"the certificate has {len(der)} bytes, and {SIZE_LIMIT_BYTES} at most are taken"
        )
    found = json.loads(_ask("understand", given=der))
    if "refused" in found:
        raise InvalidRequestError(f"the certificate cannot be used: {found['refused']}")
    return Certificate(pem=found["pem"], expires_at=datetime.fromtimestamp(found["expires_at"], timezone.utc))


def _ask(*words: str, given: bytes = b"") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "device_agent.access.certificates", *words],
        capture_output=True,
        input=given,
        timeout=LIMIT_S,
    )
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise StartupError(
            f"certificates cannot be made or read: {last}; check that `cryptography` is installed"
        )
    return done.stdout.decode("ascii")
