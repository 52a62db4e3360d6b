"""The agent's certificate: made once, changed when everyone knows the next one, looked after by the doctor."""

import datetime
import json
import time
from pathlib import Path

import pytest
from paired_agents import DAY, NOW, let_in, new_keys

from device_agent.access.clients import ClientStore
from device_agent.access.identity import Certificates, IdentityFolder
from device_agent.access.roles import Role
from device_agent.doctor.acquaintances import check_certificate, check_clients
from device_agent.doctor.check import Verdict
from device_agent.errors import StartupError
from device_agent.serving.admission.transport import AgentIdentity

LIMIT_S = 30
YEARS = 730 * DAY


def identity_at(state_dir: Path, now: datetime.datetime) -> AgentIdentity:
    return AgentIdentity(IdentityFolder(state_dir), ClientStore(state_dir), lambda: now)


def test_identity_is_made_once_and_kept(tmp_path: Path):
    folder = IdentityFolder(tmp_path)
    assert folder.made() is None
    made = folder.current()
    assert folder.current() == made
    assert NOW + YEARS - DAY < made.expires_at < NOW + YEARS + DAY
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"private_key": 1, "certificate": "", "expires_at": 0}'])
def test_damaged_identity_is_told_and_not_replaced(tmp_path: Path, text: str):
    folder = IdentityFolder(tmp_path)
    folder.current()
    path = tmp_path / "identity/current.json"
    path.write_text(text)
    with pytest.raises(StartupError, match="is damaged"):
        folder.current()
    assert path.read_text() == text


def test_next_certificate_waits_for_every_client(tmp_path: Path):
    for name in ("one", "two"):
        let_in(tmp_path, name, Role.QUERY, new_keys(name))
    identity = identity_at(tmp_path, NOW)
    before = identity.current
    following = IdentityFolder(tmp_path).prepare_next()
    assert identity.advance() == before
    assert identity.shown_to("one", [before.fingerprint]) == Certificates(
        current=before.der, following=following.der
    )
    # Told is not yet known: the answer may be lost on its way.
    identity.shown_to("two", [following.fingerprint])
    assert identity.advance() == before
    identity.shown_to("one", [before.fingerprint, following.fingerprint])
    assert identity.advance() == following
    assert identity.shown_to("one", []) == Certificates(current=following.der)


def test_certificate_that_has_ended_is_replaced_whoever_knows(tmp_path: Path):
    let_in(tmp_path, "away", Role.QUERY, new_keys("away"))
    IdentityFolder(tmp_path).current()
    path = tmp_path / "identity/current.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "expires_at": (NOW + 10 * DAY).timestamp()}))
    following = IdentityFolder(tmp_path).prepare_next()
    assert identity_at(tmp_path, NOW + 9 * DAY).current != following
    assert identity_at(tmp_path, NOW + 11 * DAY).current == following


def test_certificate_that_has_ended_is_made_anew_where_there_is_no_next(tmp_path: Path):
    before = IdentityFolder(tmp_path).current()
    after = identity_at(tmp_path, NOW + YEARS + DAY).current
    assert after != before
    assert IdentityFolder(tmp_path).made() == after


def test_what_was_half_written_with_a_key_is_removed(tmp_path: Path):
    folder = tmp_path / "identity"
    folder.mkdir()
    (folder / ".draft-1").write_text("half a key")
    IdentityFolder(tmp_path).current()
    assert [path.name for path in folder.iterdir()] == ["current.json"]


def test_next_certificate_is_made_by_itself_before_the_end(tmp_path: Path):
    let_in(tmp_path, "one", Role.QUERY, new_keys("one"))
    early, late = identity_at(tmp_path, NOW + 600 * DAY), identity_at(tmp_path, NOW + 700 * DAY)
    assert not early.shown_to("one", []).following
    assert IdentityFolder(tmp_path).next() is None
    deadline_s = time.monotonic() + LIMIT_S
    while not late.shown_to("one", []).following:
        assert time.monotonic() < deadline_s
    assert IdentityFolder(tmp_path).next() is not None


@pytest.mark.parametrize(
    ("days", "verdict"), [(0, Verdict.PASS), (660, Verdict.PASS), (700, Verdict.WARN), (731, Verdict.FAIL)]
)
def test_doctor_warns_before_the_certificate_ends(tmp_path: Path, days: int, verdict: Verdict):
    IdentityFolder(tmp_path).current()
    assert check_certificate(tmp_path, NOW + days * DAY).verdict == verdict


def test_doctor_changes_nothing(tmp_path: Path):
    assert check_certificate(tmp_path, NOW).verdict == Verdict.PASS
    assert check_clients(tmp_path, NOW).finding.startswith("none is paired")
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_hosts_whose_certificate_ends(tmp_path: Path):
    let_in(tmp_path, "laptop", Role.MEASURE, new_keys("laptop", ends=NOW + 100 * DAY))
    assert check_clients(tmp_path, NOW).finding == "laptop (measure)"
    let_in(tmp_path, "old", Role.QUERY, new_keys("old", ends=NOW + 10 * DAY))
    check = check_clients(tmp_path, NOW)
    assert check.verdict == Verdict.WARN
    assert "the certificates of old end soon" in check.finding


def test_private_key_is_in_no_other_file(tmp_path: Path):
    folder = IdentityFolder(tmp_path)
    key = json.dumps(folder.current().private_key.decode())
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and key in path.read_text()]
    assert [path.name for path in holders] == ["current.json"]
