"""A mistake costs one clear line and exit code 2; nothing is written or lost."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import PYTHON, Command

import controller

MISTAKES = {
    "unknown device": (
        ["search", "--dataset", "digits", "--device", "attic"],
        "device 'attic' is not registered; expected one of local",
    ),
    "objective without a device": (
        ["search", "--dataset", "digits", "--objective", "latency_ms"],
        "objective 'latency_ms' has no device to be measured on",
    ),
    "unknown objective": (
        ["search", "--dataset", "digits", "--device", "local", "--objective", "speed"],
        "objective 'speed' is unknown",
    ),
    "constraint without a bound": (
        ["search", "--dataset", "digits", "--device", "local", "--constraint", "latency_ms<fast"],
        "constraint 'latency_ms<fast' is not understood",
    ),
    "unknown dataset": (
        ["search", "--dataset", "cifar11", "--device", "local"],
        "dataset 'cifar11' is unknown",
    ),
    "missing folder": (
        ["search", "--dataset", "folder:/does/not/exist", "--device", "local"],
        "dataset folder /does/not/exist does not exist",
    ),
    "unknown algorithm": (
        ["search", "--dataset", "digits", "--device", "local", "--algorithm", "magic"],
        "algorithms has no 'magic'; expected one of random, local, evolution",
    ),
    "unknown preset": (
        ["search", "--dataset", "digits", "--device", "local", "--preset", "toaster"],
        "preset 'toaster' is unknown",
    ),
    "budget in days": (
        ["search", "--dataset", "digits", "--device", "local", "--budget", "3d"],
        "budget '3d' is not understood",
    ),
    "no dataset": (["search", "--device", "local"], "the search names no dataset"),
    "missing configuration": (["search", "missing.toml"], "configuration missing.toml cannot be read"),
    "missing model": (["bench", "missing.onnx", "--device", "local"], "model missing.onnx cannot be read"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_one_line_and_leaves_nothing_behind(mistake: str, edgenas: Command, home: Path) -> None:
    arguments, message = MISTAKES[mistake]

    done = edgenas(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"edgenas: {message}")
    assert len(done.stderr.splitlines()) == 1
    assert not home.exists()


MISUSES = {
    "unknown command": (["benhc"], "No such command 'benhc'", "edgenas"),
    "unknown option": (["bench", "--loud"], "No such option", "edgenas bench"),
    "missing argument": (["runs", "show"], "Missing argument 'RUN'", "edgenas runs show"),
    "missing value": (["bench", "net.onnx", "--device"], "Option '--device' requires an argument", "edgenas"),
    "value out of range": (
        ["bench", "net.onnx", "--device", "local", "--rounds", "0"],
        "Invalid value for '--rounds'",
        "edgenas bench",
    ),
    "letters for no terminal": (
        ["front", "last", "\x1b[2J"],
        "Got unexpected extra argument",
        "edgenas front",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_of_the_command_line_gets_one_line_and_the_next_step(
    misuse: str, edgenas: Command, home: Path
) -> None:
    arguments, message, command = MISUSES[misuse]

    done = edgenas(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"edgenas: {message}")
    assert done.stderr.endswith(f" see `{command} --help`\n")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr
    assert not home.exists()


def test_no_command_is_answered_with_the_help(edgenas: Command) -> None:
    done = edgenas()

    assert "benchmarks" in done.stdout + done.stderr
    assert "Error" not in done.stderr


def test_unknown_key_in_the_configuration_lists_the_valid_ones(
    edgenas: Command, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "search.toml"
    path.write_text('dataset = "digits"\n[training]\nepoch = 3\n')

    done = edgenas("search", path, "--device", "local")

    assert done.returncode == 2
    assert done.stderr.startswith(
        f"edgenas: {path} has the unknown key 'training.epoch'; expected one of accelerator,"
    )
    assert not home.exists()


def test_empty_dataset_folder_is_named(edgenas: Command, home: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "cats").mkdir(parents=True)
    (tmp_path / "images" / "dogs").mkdir()

    done = edgenas("search", "--dataset", f"folder:{tmp_path / 'images'}", "--device", "local")

    assert done.returncode == 2
    assert done.stderr.startswith(f"edgenas: dataset folder {tmp_path / 'images' / 'cats'} has no images")
    assert not home.exists()


@pytest.mark.parametrize("command", [["runs", "show"], ["runs", "resume"], ["runs", "delete"], ["front"]])
def test_unknown_run_is_named(command: list[str], edgenas: Command) -> None:
    done = edgenas(*command, "20250101")

    assert done.returncode == 2
    assert done.stderr.startswith("edgenas: run '20250101' is not there: there are none yet")


@pytest.mark.slow
def test_truncated_model_fails_and_the_next_one_is_measured(
    edgenas: Command, small_onnx: Path, tmp_path: Path
) -> None:
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(small_onnx.read_bytes()[:200])

    done = edgenas("bench", truncated, small_onnx, "--device", "local", "--json")

    assert done.returncode == 2
    assert "could not measure 'truncated.onnx'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [row["model"] for row in json.loads(done.stdout)] == [small_onnx.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 200 kB; needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "small-disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", mount], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


@pytest.mark.slow
def test_full_disk_stops_the_search_which_goes_on_when_there_is_room(
    edgenas: Command, small_disk: Path, image_folder: Path
) -> None:
    store = ["--store", small_disk / "runs.db"]
    search = [
        "search",
        "--dataset",
        f"folder:{image_folder}",
        "--objective",
        "accuracy",
        "--objective",
        "macs_m",
    ]

    full = edgenas(*search, "--budget", 8, "--epochs", 1, *store)
    subprocess.run(["mount", "-o", "remount,size=50m", small_disk], check=True)
    kept = json.loads(edgenas("runs", "show", "last", "--json", *store).stdout)["trials"]
    resumed = edgenas("runs", "resume", "last", "--json", *store)
    trials = json.loads(edgenas("runs", "show", "last", "--json", *store).stdout)["trials"]

    assert full.returncode == 2
    assert full.stderr.startswith("edgenas: store ")
    assert "database or disk is full" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert 0 < len(kept) < 8
    assert resumed.returncode == 0, resumed.stderr
    finished = [trial for trial in kept if trial["state"] == "complete"]
    assert [trial["training_s"] for trial in trials[: len(finished)]] == [
        trial["training_s"] for trial in finished
    ]
    assert len(trials) == 8


@pytest.mark.slow
def test_model_of_200_mb_is_measured(edgenas: Command, large_onnx: Path) -> None:
    done = edgenas("bench", large_onnx, "--device", "local", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["latency_ms"] > 0


def test_installation_for_boards_says_what_the_host_lacks(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path = [path for path in sys.path if "site-packages" not in path] + [{str(Path(controller.__file__).parents[1])!r}]
from controller.__main__ import main
main()
"""
    done = subprocess.run(
        [PYTHON, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith("edgenas: typer is missing, so this is an installation for boards")
    assert len(done.stderr.splitlines()) == 1
