"""One code pairs one client, within its time and its tries."""

import hmac
from dataclasses import dataclass, field

import pytest
from spake2 import SPAKE2_A

from device_agent.access.pairing import (
    AGENT_PROOF,
    CLIENT_PROOF,
    CODE_TRIES,
    CODE_VALID_S,
    PairingCode,
    new_code,
)
from device_agent.errors import PairingLockedError, UnauthenticatedError

CODE = "12345678"
AGENT, CLIENT = "a" * 64, "c" * 64


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Client:
    """A client's end, as the protocol describes it."""

    code: str = CODE
    own: str = CLIENT
    agent: str = AGENT
    side: SPAKE2_A = field(init=False)

    def __post_init__(self) -> None:
        self.side = SPAKE2_A(self.code.encode(), self.own.encode(), self.agent.encode())

    def pair(self, code: PairingCode, *, shown: str | None = None) -> bool:
        """Go through the messages; `shown` is the client's fingerprint as the agent sees it. Return whether the agent is it."""
        exchange = code.begin(shown or self.own, AGENT, self.side.start())
        key = self.side.finish(exchange.message)
        proof = exchange.proof_for(hmac.digest(key, CLIENT_PROOF, "sha256"))
        return proof == hmac.digest(key, AGENT_PROOF, "sha256")


def test_same_code_and_fingerprints_pair():
    assert Client().pair(PairingCode(CODE))


def test_codes_are_eight_digits_and_differ():
    codes = {new_code() for _ in range(100)}
    assert len(codes) == 100
    assert all(len(code) == 8 and code.isdecimal() for code in codes)


@pytest.mark.parametrize(
    "client",
    [Client(code="12345679"), Client(own="x" * 64), Client(agent="x" * 64)],
    ids=["another code", "another certificate of the client", "another certificate of the agent"],
)
def test_what_is_not_the_same_on_both_sides_does_not_pair(client: Client):
    with pytest.raises(UnauthenticatedError, match="tries left: 4"):
        client.pair(PairingCode(CODE), shown=CLIENT)


def test_code_is_good_once():
    code = PairingCode(CODE)
    Client().pair(code)
    with pytest.raises(PairingLockedError, match="the code is locked"):
        Client().pair(code)


def test_wrong_tries_lock_it_also_for_who_knows_it():
    code = PairingCode(CODE)
    for guess in range(CODE_TRIES):
        with pytest.raises(UnauthenticatedError):
            Client(code=f"{guess:08}").pair(code)
    with pytest.raises(PairingLockedError):
        Client().pair(code)


def test_tries_that_are_begun_and_left_count():
    code = PairingCode(CODE)
    for _ in range(CODE_TRIES):
        code.begin(CLIENT, AGENT, Client().side.start())
    with pytest.raises(PairingLockedError):
        Client().pair(code)


def test_code_ends_after_its_time():
    clock = Clock()
    code = PairingCode(CODE, clock)
    clock.now_s += CODE_VALID_S
    with pytest.raises(PairingLockedError):
        Client().pair(code)


@pytest.mark.parametrize("message", [b"", b"A", b"A" + bytes(32), b"B" + bytes(32), b"A" + b"\xff" * 32])
def test_message_that_is_none_is_refused_and_counts(message: bytes):
    code = PairingCode(CODE)
    with pytest.raises(UnauthenticatedError):
        code.begin(CLIENT, AGENT, message)
    assert code.tries_left == CODE_TRIES - 1


def test_of_two_that_know_it_one_is_paired():
    code = PairingCode(CODE)
    first, second = Client(), Client()
    begun = [code.begin(CLIENT, AGENT, client.side.start()) for client in (first, second)]
    keys = [
        client.side.finish(exchange.message) for client, exchange in zip((first, second), begun, strict=True)
    ]
    begun[0].proof_for(hmac.digest(keys[0], CLIENT_PROOF, "sha256"))
    with pytest.raises(PairingLockedError, match="has ended meanwhile"):
        begun[1].proof_for(hmac.digest(keys[1], CLIENT_PROOF, "sha256"))


@pytest.mark.parametrize("how", ["ended", "over"])
def test_code_that_ends_while_a_client_takes_part_pairs_nobody(how: str):
    clock = Clock()
    code, client = PairingCode(CODE, clock), Client()
    exchange = code.begin(CLIENT, AGENT, client.side.start())
    key = client.side.finish(exchange.message)
    if how == "ended":
        code.end()
    else:
        clock.now_s += CODE_VALID_S
    with pytest.raises(PairingLockedError, match="has ended meanwhile"):
        exchange.proof_for(hmac.digest(key, CLIENT_PROOF, "sha256"))
