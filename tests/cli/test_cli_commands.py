"""Commands that need no board, run in this process."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.cli.main import app
from controller.core.errors import ConfigurationError
from controller.store.store import Store

CONFIGURATION = {
    "config": {"dataset": "digits", "device": [], "objectives": ["accuracy", "macs_m"], "algorithm": "random"}
}


@pytest.fixture
def store(home: Path) -> Store:
    opened = Store(str(home / "edgenas.db"))
    yield opened  # type: ignore[misc]
    opened.close()


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_runs_are_listed_newest_first(store: Store) -> None:
    first = store.create_run(CONFIGURATION, {})
    second = store.create_run(CONFIGURATION, {})

    rows = json.loads(printed("runs", "list", "--json"))

    assert [row["id"] for row in rows] == [second.id, first.id]
    assert {row["dataset"] for row in rows} == {"digits"}


def test_empty_store_lists_nothing(home: Path) -> None:
    assert json.loads(printed("runs", "list", "--json")) == []


def test_shown_run_says_how_it_was_asked_for(store: Store) -> None:
    run = store.create_run(CONFIGURATION, {"torch": "2.9"})

    shown = json.loads(printed("runs", "show", run.id, "--json"))

    assert shown["configuration"] == CONFIGURATION
    assert shown["environment"] == {"torch": "2.9"}
    assert shown["trials"] == []


def test_front_of_a_run_without_trials_is_empty(store: Store) -> None:
    store.create_run(CONFIGURATION, {})

    assert json.loads(printed("front", "last", "--json")) == []


@pytest.mark.parametrize("command", [["runs", "list"], ["runs", "show", "last"], ["front", "last"]])
def test_looking_at_runs_does_not_wait_for_torch(command: list[str], store: Store) -> None:
    store.create_run(CONFIGURATION, {})

    done = run_and_tell_of_torch(*command)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "without torch"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["runs", "resume", "nobody"], "nobody"),
        (["search", "--dataset", "digits", "--device", "local", "--objective", "magic"], "magic"),
    ],
)
def test_mistake_is_told_without_waiting_for_torch(command: list[str], told: str, home: Path) -> None:
    done = run_and_tell_of_torch(*command)

    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout.splitlines()[-1] == "without torch"


def run_and_tell_of_torch(*command: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import atexit, sys; from controller.__main__ import main; "
        "atexit.register(lambda: print('with torch' if 'torch' in sys.modules else 'without torch')); main()"
    )
    return subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True)


def test_help_names_every_command() -> None:
    text = printed("--help")

    for command in ("search", "runs", "front", "bench", "benchmarks", "devices", "generate"):
        assert command in text


@pytest.mark.parametrize(
    "command",
    [("search",), ("generate",), ("bench",), ("runs", "resume"), ("devices", "add"), ("benchmarks", "show")],
)
def test_each_command_has_help(command: tuple[str, ...]) -> None:
    assert "--help" in printed(*command, "--help")


def test_version_is_that_of_the_installed_package() -> None:
    assert printed("--version") == f"edgenas, version {importlib.metadata.version('edgenas')}\n"


def test_this_machine_cannot_be_removed(home: Path) -> None:
    result = CliRunner().invoke(app, ["devices", "remove", "local"])

    assert isinstance(result.exception, ConfigurationError)
    assert "'local' is this machine" in str(result.exception)


def test_registered_devices_are_listed_and_removed(home: Path) -> None:
    home.mkdir()
    (home / "devices.json").write_text('{"pi4": "pi4.lan:50151"}')

    assert json.loads(printed("devices", "list", "--json")) == [
        {"name": "pi4", "address": "pi4.lan:50151", "paired": False}
    ]
    assert "removed pi4" in printed("devices", "remove", "pi4")
    assert json.loads(printed("devices", "list", "--json")) == []
