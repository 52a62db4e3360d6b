"""Which candidate a preference means, asked of a stored run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.main import app
from controller.core.architecture import Architecture
from controller.core.trial import Trial, TrialState
from controller.store.store import Store


def trial(index: int, accuracy: float, pi4_ms: float, nano_ms: float, params_m: float) -> Trial:
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=TrialState.COMPLETE,
        values={
            "accuracy": accuracy,
            "latency_ms@pi4": pi4_ms,
            "latency_ms@nano": nano_ms,
            "peak_memory_mb@pi4": 4.0,
            "params_m": params_m,
        },
    )


FRONT = ACCURATE, MIDDLE, FAST = [
    trial(0, 0.95, 20.0, 9.0, 0.5),
    trial(1, 0.94, 8.0, 5.0, 0.3),
    trial(2, 0.70, 4.0, 2.0, 0.1),
]
DOMINATED = trial(3, 0.60, 5.0, 3.0, 0.05)


@pytest.fixture(autouse=True)
def run_id(home: Path) -> str:
    """Store a run of two devices, and return its id."""
    config = {
        "dataset": "digits",
        "device": ["pi4", "nano"],
        "objectives": ["accuracy", "latency_ms@pi4", "latency_ms@nano"],
        "constraints": ["peak_memory_mb@pi4<=8"],
        "algorithm": "random",
    }
    store = Store(str(home / "edgenas.db"))
    run = store.create_run({"config": config}, {})
    for each in (*FRONT, DOMINATED):
        store.save_asked(run.id, replace(each, state=TrialState.PENDING), b"")
        store.save_trial(run.id, each)
    store.close()
    return run.id


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def shown_ids(*options: str) -> list[str]:
    return [row["id"] for row in json.loads(printed("front", "last", "--json", *options))]


def refused(*command: str) -> str:
    """Return what a command that is a mistake prints."""
    program = "from controller.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_front_without_a_preference_is_all_of_it() -> None:
    assert shown_ids() == [each.id for each in FRONT]


@pytest.mark.parametrize(
    ("preference", "selected"),
    [
        ("knee", MIDDLE),
        ("vote", MIDDLE),
        ("latency_ms@nano", FAST),
        ("accuracy:0.01,latency_ms@pi4", MIDDLE),
        ("accuracy:1%,latency_ms@pi4", ACCURATE),
        ("accuracy, latency_ms@nano<=4, peak_memory_mb<=20", FAST),
        ("accuracy,params_m<=0.4", MIDDLE),
        ("accuracy=0.99,latency_ms@pi4=0.01", ACCURATE),
    ],
)
def test_front_shows_the_one_that_a_preference_means(preference: str, selected: Trial) -> None:
    assert shown_ids("--select", preference) == [selected.id]


def test_front_takes_weights_under_their_own_name() -> None:
    assert shown_ids("--weights", "accuracy=0.1,latency_ms@pi4=0.9") == [FAST.id]


def test_table_of_the_selected_says_how_it_was_selected(run_id: str) -> None:
    text = printed("front", "last", "--select", "accuracy,latency_ms@pi4<=15")

    assert f"front of run {run_id}, selected by accuracy,latency_ms@pi4<=15" in text
    assert MIDDLE.id in text
    assert not any(each.id in text for each in (ACCURATE, FAST, DOMINATED))


@pytest.mark.parametrize("command", [("front", "last"), ("runs", "show", "last")])
def test_table_shows_what_a_constraint_is_on_as_well(command: tuple[str, ...]) -> None:
    assert "peak_memory_mb@pi4" in printed(*command)
    assert "4 MB" in printed(*command)


@pytest.mark.parametrize("command", [("front", "last"), ("generate", "last", "--out", "nowhere")])
def test_unmet_bound_names_the_nearest_and_what_it_misses_in_one_line(command: tuple[str, ...]) -> None:
    assert refused(*command, "--select", "accuracy,latency_ms@pi4<=3,accuracy>=0.5") == (
        "edgenas: no candidate of the front meets latency_ms@pi4<=3 and accuracy>=0.5; "
        f"the nearest, {FAST.id}, misses latency_ms@pi4<=3 by 1; allow more, or search with this as a constraint\n"
    )


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (
            "latency_ms,accuracy",
            "objective 'latency_ms' means latency_ms@pi4 and latency_ms@nano; write one of these",
        ),
        (
            "accuracy,energy_mj@pi4<=5",
            "objective 'energy_mj@pi4' is not known of these candidates; expected one of "
            "accuracy, latency_ms@pi4, latency_ms@nano, peak_memory_mb@pi4, params_m",
        ),
        (
            "accuracy:2,latency_ms@pi4",
            "tolerance 'accuracy:2' does not fit; expected a fraction of 0 to 1, or percent of the best as in accuracy:1%",
        ),
        (
            "latency=1",
            "weight latency=1 does not fit; expected a number of at least 0 for one of "
            "accuracy, latency_ms@pi4, latency_ms@nano",
        ),
        (
            "smallest",
            "selection 'smallest' fits 0 candidates of the front; expected knee, vote, one of "
            "accuracy, latency_ms@pi4, latency_ms@nano, peak_memory_mb@pi4, params_m, or one of the ids "
            f"{ACCURATE.id}, {MIDDLE.id}, {FAST.id}",
        ),
    ],
)
def test_mistaken_preference_is_told_in_one_line(preference: str, message: str) -> None:
    assert refused("front", "last", "--select", preference) == f"edgenas: {message}\n"


@pytest.mark.parametrize("command", ["front", "generate"])
def test_help_tells_each_kind_of_preference(command: str) -> None:
    text = printed(command, "--help")

    for form in (
        "knee",
        "vote",
        "accuracy:0.01,latency_ms",
        "accuracy:1%",
        "latency_ms<=15",
        "latency=0.3",
        "id",
    ):
        assert form in text
