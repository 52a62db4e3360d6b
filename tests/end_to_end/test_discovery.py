"""Agents announce themselves, hosts hear of them, and nobody believes it."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import LIMIT_S, Board, edgenas, serving
from zeroconf import IPVersion, ServiceInfo, Zeroconf

pytestmark = pytest.mark.slow

# A browser asks again after a second, and is sure to be answered only then.
LISTEN = ("devices", "discover", "--interface", "127.0.0.1", "--seconds", "2")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with serving(tmp_path / "board", options=("--announce",)) as running:
        yield running


def heard(home: Path, name: str) -> list[dict[str, str]]:
    """Return what is announced at an address, once there is something or time is over."""
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        found = [row for row in json.loads(edgenas(home, *LISTEN, "--json").stdout) if name in row["address"]]
        if found or time.monotonic() > deadline_s:
            return found


def test_announced_agent_is_found_and_recognised_once_it_is_paired(board: Board, tmp_path: Path) -> None:
    home = tmp_path / "home"

    (stranger,) = heard(home, board.address)
    with board.pairing() as pairing:
        assert pairing.add(home, "pi").returncode == 0
    (known,) = heard(home, board.address)

    assert stranger["device"] is None
    assert len(stranger["fingerprint"]) == 64
    assert known == {**stranger, "device": "pi"}


def test_agent_on_loopback_is_silent_unless_asked(tmp_path: Path) -> None:
    with serving(tmp_path / "board") as silent:
        found = json.loads(edgenas(tmp_path / "home", *LISTEN, "--json").stdout)

    assert not [row for row in found if row["address"] == silent.address]


@contextlib.contextmanager
def lying(board: Board, properties: dict[str, str]) -> Iterator[None]:
    """Announce somebody else in the network as the board."""
    service = ServiceInfo(
        "_edgenas._tcp.local.",
        "liar._edgenas._tcp.local.",
        port=9,
        parsed_addresses=["127.0.0.1"],
        server="liar.local.",
        properties=properties,
    )
    zeroconf = Zeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        zeroconf.register_service(service)
        yield
    finally:
        zeroconf.close()


def test_liar_is_shown_as_text_and_changes_nothing(board: Board, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with board.pairing() as pairing:
        assert pairing.add(home, "pi").returncode == 0
    (known,) = heard(home, board.address)
    before = (home / "devices.json").read_text()

    lie = {"fingerprint": known["fingerprint"], "board": "\x1b[2Jyour board", "agent": "9" * 150}
    with lying(board, lie):
        (liar,) = heard(home, "127.0.0.1:9")
        shown = edgenas(home, *LISTEN).stdout

    assert "\x1b[2J" not in shown
    assert liar["board"] == "\\x1b[2Jyour board"
    assert len(liar["agent_version"]) == 100
    assert "anybody can announce anything" in shown
    assert (home / "devices.json").read_text() == before
    assert edgenas(home, "devices", "ping", "pi").returncode == 0
