"""kill -9 of either side, at any moment, loses nothing and repeats nothing."""

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import WatchedSearch, asked_ids, command, environment, running_agent, shown_run

# Objectives that a seed determines, so that two runs can be compared; the device is measured all the same.
SETTINGS = """
dataset = "folder:{folder}"
objectives = ["accuracy", "macs_m"]
budget = 10
seed = 5
[training]
epochs = 1
[evolution]
population = 4
"""


@pytest.fixture
def settings(tmp_path: Path, image_folder: Path) -> Path:
    path = tmp_path / "search.toml"
    path.write_text(SETTINGS.format(folder=image_folder))
    return path


@pytest.fixture
def board(tmp_path: Path, home: Path) -> Iterator[tuple[Path, str, "subprocess.Popen[str]"]]:
    """Yield the state folder, the address and the process of an agent registered as `board`."""
    state = tmp_path / "board"
    with running_agent(state) as (process, address):
        subprocess.run(
            command("devices", "add", address, "--name", "board", "--insecure"),
            env=environment(home),
            check=True,
        )
        yield state, address, process


@pytest.mark.slow
def test_killed_search_resumes_to_the_sequence_of_one_never_killed(
    tmp_path: Path, home: Path, settings: Path
) -> None:
    untouched = tmp_path / "untouched"
    whole = WatchedSearch(untouched, "search", settings, "--device", "local")
    assert whole.finish()[0] == 0

    started = WatchedSearch(home, "search", settings, "--device", "local")
    started.wait_for_candidates(1)
    started.kill()
    for _ in range(2):
        resumed = WatchedSearch(home, "runs", "resume", "last")
        resumed.wait_for_candidates(5)
        resumed.kill()
    finished = WatchedSearch(home, "runs", "resume", "last")
    code, _, err = finished.finish()

    assert code == 0, err
    assert asked_ids(home) == asked_ids(untouched)
    run = shown_run(home)
    assert run["state"] == "finished"
    assert [trial["state"] for trial in run["trials"]] == ["complete"] * 10  # type: ignore[attr-defined]
    listed = subprocess.run(
        command("benchmarks", "list", "--device", "local", "--limit", 100, "--json"),
        capture_output=True,
        text=True,
        env=environment(home),
        check=True,
    )
    measured = Counter(row["request_id"].removesuffix("-search") for row in json.loads(listed.stdout))
    assert set(measured.values()) == {1}


@pytest.mark.slow
def test_search_outlives_the_agent_that_it_started(home: Path, settings: Path) -> None:
    search = WatchedSearch(home, "search", settings, "--device", "local")
    search.wait_for_candidates(2)
    first = search.agent()
    first.kill()
    first.wait(timeout=30)

    code, _, err = search.finish()

    assert code == 0, err
    assert len(asked_ids(home)) == 10


@pytest.mark.slow
def test_search_waits_for_a_killed_agent_and_finishes_when_it_returns(
    home: Path, settings: Path, board: tuple[Path, str, "subprocess.Popen[str]"]
) -> None:
    state, address, agent = board
    search = WatchedSearch(home, "search", settings, "--device", "board")
    search.wait_for_candidates(2)
    agent.kill()
    agent.wait(timeout=30)
    assert search.process.stderr is not None
    warning = search.process.stderr.readline()

    with running_agent(state, address):
        code, _, err = search.finish()

    assert "device 'board' gives no answer; trying again" in warning
    assert code == 0, err
    assert len(asked_ids(home)) == 10


@pytest.mark.slow
def test_search_stops_and_resumes_when_the_agent_stays_away_for_long(
    home: Path, settings: Path, board: tuple[Path, str, "subprocess.Popen[str]"]
) -> None:
    state, address, agent = board
    search = WatchedSearch(home, "search", settings, "--device", "board", "--patience-s", 2)
    search.wait_for_candidates(2)
    agent.kill()
    agent.wait(timeout=30)

    code, _, err = search.finish()

    message = err.strip().splitlines()[-1]
    assert code == 3
    assert message.startswith(f"edgenas: device 'board' at {address} gave no answer for 2 s")
    assert "edgenas runs resume" in message
    assert "Traceback" not in err
    assert shown_run(home)["state"] == "stopped"
    with running_agent(state, address):
        code, _, err = WatchedSearch(home, "runs", "resume", "last").finish()
    assert code == 0, err
    assert shown_run(home)["state"] == "finished"


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_search_says_how_to_go_on(
    home: Path, settings: Path, signal_number: signal.Signals
) -> None:
    # A shell's background job, as these tests may be, ignores interrupts, and its children would with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    search = WatchedSearch(home, "search", settings, "--budget", 5000)
    search.wait_for_candidates(1)
    search.process.send_signal(signal_number)

    code, _, err = search.finish()

    run = shown_run(home)
    assert code == 3
    assert err == f"edgenas: interrupted; go on with `edgenas runs resume {run['id']}`\n"
    assert run["state"] == "stopped"


@pytest.mark.slow
def test_finished_run_goes_on_with_a_larger_budget(home: Path, settings: Path) -> None:
    assert WatchedSearch(home, "search", settings, "--budget", 3).finish()[0] == 0
    first = asked_ids(home)

    code, _, err = WatchedSearch(home, "runs", "resume", "last", "--budget", 6).finish()

    assert code == 0, err
    assert len(first) == 3
    assert asked_ids(home)[:3] == first
    assert len(asked_ids(home)) == 6
