"""Runs that other processes work on, and processes that die: each a real one, killed for real."""

import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from store_examples import LIMIT_S, line_from, pending, process

from controller.core.errors import StoreError
from controller.store.owner import Owner
from controller.store.records import RunState
from controller.store.store import Store

AT_WORK = """
import sys
from controller.store.store import Store
store = Store(sys.argv[1])
print(store.create_run({}, {}).id, flush=True)
sys.stdin.read()
"""

WRITING = """
import sys, torch
from controller.core.architecture import Architecture
from controller.core.trial import Trial
from controller.store.store import Store
store = Store(sys.argv[1])
run = store.create_run({}, {})
print(run.id, flush=True)
for index in range(100_000):
    trial = Trial(index=index, architecture=Architecture.of({"index": index}))
    store.save_asked(run.id, trial, b"%d" % index)
    store.save_trial(run.id, trial, {"weight": torch.full((1000,), float(index))})
    print(index, flush=True)
"""

CLAIMING = """
import sys
from controller.core.errors import StoreError
from controller.store.store import Store
store = Store(sys.argv[1])
run = store.run("last")
print("ready", flush=True)
sys.stdin.readline()
try:
    store.claim(run)
    print("claimed", flush=True)
except StoreError as error:
    print(error, flush=True)
sys.stdin.read()
"""

# Saves until the disk is full, makes room, and goes on.
FILLING = """
import os, resource, sys, torch
from controller.core.architecture import Architecture
from controller.core.errors import StoreError
from controller.core.trial import Trial
from controller.store.store import Store

database, kind = sys.argv[1:]
reserve = os.path.join(os.path.dirname(database), "reserve")
if kind == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
else:
    with open(reserve, "wb") as file:
        file.write(bytes(300_000))

def trial(index):
    return Trial(index=index, architecture=Architecture.of({"index": index}))

def save(index):
    store.save_asked(run.id, trial(index), b"%d" % index)
    store.save_trial(run.id, trial(index), {"weight": torch.full((2000,), float(index))})

def check(expected):
    saved = store.trials(run.id)
    assert saved.trials[:expected] == tuple(map(trial, range(expected))), saved
    assert saved.algorithm_state == b"%d" % (len(saved.trials) - 1), saved
    assert all(store.weights(run.id, trial(n).id)["weight"].eq(n).all() for n in range(expected))
    return len(saved.trials)

store = Store(database)
run = store.create_run({}, {})
acknowledged = 0
try:
    while acknowledged < 10_000:
        save(acknowledged)
        acknowledged += 1
except StoreError as error:
    print(error)
assert 0 < acknowledged < 10_000, acknowledged
check(acknowledged)
store.close()
if kind == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    os.remove(reserve)
store = Store(database)
next_index = check(acknowledged)
save(next_index)
print("went on after", check(acknowledged) - 1 == next_index)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def test_run_at_work_elsewhere_is_neither_claimed_nor_deleted(database: Path):
    with process(AT_WORK, database) as other:
        run_id = line_from(other)
        store = Store(str(database))
        run = store.run(run_id)
        assert not run.interrupted
        for refused in (store.claim, store.delete_run):
            with pytest.raises(StoreError, match=f"run {run_id} is at work in process .*{other.pid}"):
                refused(run)
        assert store.run(run_id) == run
        store.close()


def test_run_at_work_elsewhere_can_be_taken_over(database: Path):
    with process(AT_WORK, database) as other:
        run_id = line_from(other)
        store = Store(str(database))
        assert store.claim(store.run(run_id), take_over=True).owner == Owner.this_process()
        store.delete_run(store.run(run_id), take_over=True)
        assert store.runs() == []
        store.close()


@pytest.mark.parametrize("reaped", [False, True], ids=("zombie", "reaped"))
def test_run_of_a_killed_process_can_be_claimed(database: Path, reaped: bool):
    with process(AT_WORK, database) as other:
        run_id = line_from(other)
        other.kill()
        if reaped:
            other.wait(LIMIT_S)
        else:
            # Nobody has asked yet how it ended, as in a container whose first process asks for no one.
            while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
                pass
        store = Store(str(database))
        assert store.run(run_id).interrupted
        assert store.claim(store.run(run_id)).owner == Owner.this_process()
        store.close()


def test_run_of_a_killed_process_can_be_deleted(database: Path):
    with process(AT_WORK, database) as other:
        run_id = line_from(other)
        other.kill()
        other.wait(LIMIT_S)
        store = Store(str(database))
        store.delete_run(store.run(run_id))
        assert store.runs() == []
        store.close()


def test_run_is_claimed_by_one_of_two_processes(database: Path):
    store = Store(str(database))
    run = store.create_run({}, {})
    store.release(run.id, RunState.STOPPED, 0.0)
    store.close()
    with process(CLAIMING, database) as first, process(CLAIMING, database) as second:
        both = (first, second)
        assert [line_from(other) for other in both] == ["ready", "ready"]
        for other in both:
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
        answers = [line_from(other) for other in both]
    assert answers.count("claimed") == 1
    assert sum(f"run {run.id} is at work in process" in answer for answer in answers) == 1


def test_what_was_acknowledged_survives_a_killed_writer(database: Path):
    with process(WRITING, database) as writer:
        run_id = line_from(writer)
        acknowledged = [line_from(writer) for _ in range(50)]
        writer.kill()
        acknowledged += writer.communicate(timeout=LIMIT_S)[0].splitlines()
    store = Store(str(database))
    saved = store.trials(run_id)
    assert acknowledged == [str(index) for index in range(len(acknowledged))]
    assert saved.trials[: len(acknowledged)] == tuple(map(pending, range(len(acknowledged))))
    assert saved.algorithm_state == b"%d" % saved.trials[-1].index
    for index in range(len(acknowledged)):
        assert store.weights(run_id, pending(index).id)["weight"].eq(index).all()
    store.close()


IN_A_SMALL_DISK = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
MOUNTED = 'mount -t tmpfs -o size=800k none "$1" && shift && exec "$@"'


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*IN_A_SMALL_DISK, MOUNTED, "sh", str(folder), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", ["limit", "disk"])
def test_full_disk_loses_nothing_and_the_run_goes_on_once_there_is_room(tmp_path: Path, kind: str):
    command = [sys.executable, "-c", FILLING, str(tmp_path / "runs.db"), kind]
    if kind == "disk":
        if not can_mount(tmp_path):
            pytest.skip("a small disk cannot be mounted here without more rights")
        command = [*IN_A_SMALL_DISK, MOUNTED, "sh", str(tmp_path), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    error, went_on = done.stdout.splitlines()
    assert error.startswith(f"store sqlite:///{tmp_path / 'runs.db'} cannot be used: ")
    assert ("database or disk is full" if kind == "disk" else "disk I/O error") in error
    assert "what was saved before is safe; free disk space" in error
    assert went_on == "went on after True"
