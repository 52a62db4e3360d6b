"""One code, shown on the board and typed at the host, makes both sides sure of each other's certificate.

SPAKE2 turns the code and both fingerprints into a key that is the same on both sides only if all of these are. Who
listens learns nothing of the code, and who takes part has one guess a try: a code of eight digits with five tries
withstands all but one of 20 million strangers.
Source: Abdalla and Pointcheval 2005, "Simple Password-Based Encrypted Key Exchange Protocols"; RFC 9382.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable

from spake2 import SPAKE2_B, SPAKEError

from device_agent.errors import PairingLockedError, UnauthenticatedError

CODE_DIGITS = 8
CODE_TRIES = 5
CODE_VALID_S = 600.0
CLIENT_PROOF, AGENT_PROOF = b"edgenas client", b"edgenas agent"


def new_code() -> str:
    """Return a code that nobody can foresee."""
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"


class PairingCode:
    """A code that pairs one client, within ten minutes and five tries. May be used from any thread.

    Args:
        code: Its digits.
        clock: Seconds that no change of the board's date moves.
    """

    def __init__(self, code: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._code = code
        self._clock = clock
        self._lock = threading.Lock()
        self._tries_left = CODE_TRIES
        self._ended = False
        self._ends_s = clock() + CODE_VALID_S

    @property
    def left_s(self) -> float:
        """How long it is still good for, if it is not locked."""
        return self._ends_s - self._clock()

    @property
    def tries_left(self) -> int:
        """How many tries there are left; none once it has ended."""
        return 0 if self._ended else self._tries_left

    def begin(self, client_fingerprint: str, agent_fingerprint: str, message: bytes) -> "Exchange":
        """Take one of the tries: from here on the client can tell whether it has the code.

        Args:
            client_fingerprint: SHA-256 of the certificate that the client sent.
            agent_fingerprint: SHA-256 of the agent's certificate.
            message: The client's SPAKE2 message.

        Raises:
            PairingLockedError: If there is none left, or the code's time is over.
            UnauthenticatedError: If the message is none.
        """
        with self._lock:
            if self._ended or self._tries_left <= 0 or self.left_s <= 0:
                raise PairingLockedError(
                    "the code is locked: it was used, tried too often, or shown too long ago; "
                    "show a new one with `edgenas-agent pair` on the board"
                )
            # Before anything is answered: who begins many at once has no more tries than who does not.
            self._tries_left -= 1
        side = SPAKE2_B(
            self._code.encode("ascii"), client_fingerprint.encode("ascii"), agent_fingerprint.encode("ascii")
        )
        try:
            return Exchange(message=side.start(), key=side.finish(message), code=self)
        except (SPAKEError, ValueError, AssertionError, IndexError, TypeError) as error:
            raise UnauthenticatedError("the pairing message is none; update edgenas on the host") from error

    def use_up(self) -> None:
        """End the code: it has paired someone.

        Raises:
            PairingLockedError: If it ended before, also while the client took part.
        """
        with self._lock:
            if self._ended or self.left_s <= 0:
                raise PairingLockedError(
                    "the code has ended meanwhile; show a new one with `edgenas-agent pair`"
                )
            self._ended = True

    def end(self) -> None:
        """End the code: nobody is paired with it from now on."""
        with self._lock:
            self._ended = True


class Exchange:
    """One try of one client. `message` is for the client."""

    def __init__(self, *, message: bytes, key: bytes, code: PairingCode) -> None:
        self.message = message
        self._key = key
        self._code = code

    def proof_for(self, client_proof: bytes) -> bytes:
        """Return the agent's proof, for a client that has proven that it knows the code. The code is then used up.

        Raises:
            UnauthenticatedError: If it does not, or someone stands between.
            PairingLockedError: If another client was faster.
        """
        if not hmac.compare_digest(hmac.digest(self._key, CLIENT_PROOF, "sha256"), client_proof):
            tries = self._code.tries_left
            raise UnauthenticatedError(
                "the code is wrong, or somebody stands between the two; "
                + (f"tries left: {tries}" if tries else "it is locked now, show a new one on the board")
            )
        self._code.use_up()
        return hmac.digest(self._key, AGENT_PROOF, "sha256")
