"""Who may call: kept over restarts, changed by several processes, never half-written."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from paired_agents import NOW, new_keys

from device_agent.access.clients import CLIENTS_FILE, ClientStore
from device_agent.access.roles import Role
from device_agent.errors import AccessError, ClientNotFoundError, InvalidRequestError


@pytest.fixture
def store(tmp_path: Path) -> ClientStore:
    return ClientStore(tmp_path)


def test_nobody_is_known_at_first(store: ClientStore):
    assert store.clients() == ()
    assert store.trusted_pems() == ""
    assert store.find("0" * 64) is None


def test_client_is_known_by_its_certificate_after_a_restart(store: ClientStore, tmp_path: Path):
    keys = new_keys()
    added = store.add("laptop", Role.QUERY, keys.certificate, NOW)
    again = ClientStore(tmp_path)
    assert again.find(keys.certificate.fingerprint) == added
    assert again.find(new_keys().certificate.fingerprint) is None
    assert (added.name, added.role, added.paired_at) == ("laptop", Role.QUERY, NOW)


def test_another_store_sees_who_was_revoked_at_once(store: ClientStore, tmp_path: Path):
    keys = new_keys()
    store.add("laptop", Role.QUERY, keys.certificate, NOW)
    other = ClientStore(tmp_path)
    assert other.find(keys.certificate.fingerprint) is not None
    store.revoke("laptop")
    assert other.find(keys.certificate.fingerprint) is None
    assert other.trusted_pems() == ""


def test_names_stay_unique(store: ClientStore):
    names = [store.add("laptop", Role.QUERY, new_keys().certificate, NOW).name for _ in range(3)]
    assert names == ["laptop", "laptop-2", "laptop-3"]


def test_same_certificate_is_one_client(store: ClientStore):
    keys = new_keys()
    store.add("laptop", Role.QUERY, keys.certificate, NOW)
    store.add("laptop", Role.ADMIN, keys.certificate, NOW)
    assert [(client.name, client.role) for client in store.clients()] == [("laptop", Role.ADMIN)]


def test_renewed_certificate_ends_the_old_one_when_it_is_used(store: ClientStore):
    old, new = new_keys(), new_keys()
    store.add("laptop", Role.MEASURE, old.certificate, NOW)
    store.renew("laptop", new.certificate)
    assert store.find(old.certificate.fingerprint) is not None
    found = store.find(new.certificate.fingerprint)
    assert found is not None
    assert (found.name, found.role, found.certificate) == ("laptop", Role.MEASURE, new.certificate)
    assert store.find(old.certificate.fingerprint) is None


def test_unknown_client_cannot_be_revoked(store: ClientStore):
    store.add("laptop", Role.QUERY, new_keys().certificate, NOW)
    with pytest.raises(ClientNotFoundError, match="no client is called 'phone'; expected one of: laptop"):
        store.revoke("phone")


def test_only_the_owner_reads_the_list(store: ClientStore, tmp_path: Path):
    store.add("laptop", Role.QUERY, new_keys().certificate, NOW)
    assert stat.S_IMODE((tmp_path / CLIENTS_FILE).stat().st_mode) == 0o600


def test_changes_at_one_time_all_count(tmp_path: Path):
    certificates = [new_keys().certificate for _ in range(16)]

    def add(number: int) -> None:
        ClientStore(tmp_path).add(f"host{number}", Role.QUERY, certificates[number], NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    assert len(ClientStore(tmp_path).clients()) == 16


@pytest.mark.parametrize("text", ["{", "[]", '{"clients": [{"name": "x"}]}', '{"clients": [1]}'])
def test_damaged_list_lets_nobody_in(store: ClientStore, tmp_path: Path, text: str):
    store.add("laptop", Role.QUERY, new_keys().certificate, NOW)
    (tmp_path / CLIENTS_FILE).write_text(text)
    with pytest.raises(AccessError, match="is damaged"):
        store.clients()


def test_certificate_of_another_client_is_taken_from_nobody(store: ClientStore):
    boss, other = new_keys("boss"), new_keys("other")
    store.add("boss", Role.ADMIN, boss.certificate, NOW)
    store.add("other", Role.QUERY, other.certificate, NOW)
    with pytest.raises(InvalidRequestError, match="a certificate of 'boss' has this name or key"):
        store.renew("other", boss.certificate)
    assert store.find(boss.certificate.fingerprint).name == "boss"


def test_name_of_a_known_certificate_is_taken_from_nobody(store: ClientStore):
    """TLS looks certificates up by their names, and would keep one of two out."""
    boss = new_keys("boss", number="1")
    store.add("boss", Role.ADMIN, boss.certificate, NOW)
    store.add("other", Role.QUERY, new_keys("other").certificate, NOW)
    same = new_keys("boss", number="1").certificate
    for let_in in (lambda: store.renew("other", same), lambda: store.add("third", Role.QUERY, same, NOW)):
        with pytest.raises(InvalidRequestError, match="a certificate of 'boss'"):
            let_in()


def test_renewal_of_one_that_was_revoked_is_refused(store: ClientStore):
    with pytest.raises(ClientNotFoundError, match="pair it again"):
        store.renew("nobody", new_keys().certificate)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user's")
def test_list_that_root_changes_stays_the_agents(tmp_path: Path):
    os.chown(tmp_path, 65534, 65534)
    ClientStore(tmp_path).add("laptop", Role.QUERY, new_keys().certificate, NOW)
    owners = {path.stat().st_uid for path in tmp_path.iterdir()}
    assert owners == {65534}
