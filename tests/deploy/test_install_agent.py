"""What the installer refuses, before it has changed anything. What it does is in tests/arm64/."""

import os
import subprocess
from pathlib import Path

import pytest

INSTALLER = Path(__file__).parents[2] / "deploy/install-agent.sh"
NOBODY = 65534
GOOD_PYTHON = "3 11 64 aarch64 /usr"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the installer asks for root before all else")


def refusal(*arguments: object, **options: int) -> str:
    """Return what the installer says where it refuses."""
    before = Path("/opt/edgenas-agent").exists()
    done = subprocess.run(
        ["sh", INSTALLER, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert Path("/opt/edgenas-agent").exists() == before
    return done.stderr


def python_that_says(tmp_path: Path, answer: str) -> Path:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho {answer}\n")
    program.chmod(0o755)
    return program


def test_user_without_rights_is_told_of_sudo() -> None:
    options = {"user": NOBODY} if os.geteuid() == 0 else {}

    assert "run it with sudo" in refusal(**options)


@as_root
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("3 8 64 aarch64 /usr", "no Python >= 3.10"),
        ("3 11 32 aarch64 /usr", "is a 32-bit program on aarch64"),
        ("3 11 64 riscv64 /usr", "machine riscv64 is not supported; expected aarch64 or x86_64"),
        ("3 11 64 aarch64 /home/me/python", "lies in /home/me/python"),
    ],
)
def test_python_that_cannot_run_the_agent_is_refused(tmp_path: Path, answer: str, told: str) -> None:
    assert told in refusal("--python", python_that_says(tmp_path, answer))


@as_root
def test_installer_alone_tells_how_to_get_wheels(tmp_path: Path) -> None:
    told = refusal("--python", python_that_says(tmp_path, GOOD_PYTHON))

    assert "edgenas devices wheelhouse --platform aarch64 --python 3.11 --out wheels" in told
    assert "or name a wheel with --from" in told


@as_root
def test_missing_wheel_is_refused(tmp_path: Path) -> None:
    python = python_that_says(tmp_path, GOOD_PYTHON)

    for source in (tmp_path / "edgenas-1-py3-none-any.whl", tmp_path / "nowhere", tmp_path):
        assert "there is no wheel" in refusal("--python", python, "--from", source)


@as_root
def test_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "edgenas-1-cp311-cp311-win_amd64.whl"
    wheel.touch()
    python = python_that_says(tmp_path, GOOD_PYTHON)

    told = refusal("--python", python, "--from", wheel)

    assert "expected edgenas-VERSION-py3-none-any.whl" in told


@as_root
def test_wheelhouse_of_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "edgenas-1-py3-none-any.whl").touch()
    (tmp_path / "grpcio-1-cp311-cp311-manylinux2014_x86_64.whl").touch()
    python = python_that_says(tmp_path, GOOD_PYTHON)

    told = refusal("--from", tmp_path, "--python", python)

    assert "has no wheels for Python 3.11 on aarch64" in told
    assert "edgenas devices wheelhouse --platform aarch64 --python 3.11" in told


@as_root
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--form"], "'--form' is not understood"),
        (["--from"], "--from lacks its value"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--state-dir", "data"], "state folder 'data' is not understood"),
        (["--state-dir", "/home/pi/edgenas"], "lies in a home"),
        (["--state-dir", "/etc"], "holds files of root"),
    ],
)
def test_misuse_is_refused(arguments: list[str], told: str) -> None:
    assert told in refusal(*arguments)
