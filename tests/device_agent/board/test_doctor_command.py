import json
import re
import sys
from pathlib import Path

import pytest
from board_trees import jetson_orin, raspberry_pi, vcgencmd, virtual_machine, write, x86_laptop
from click.testing import CliRunner, Result
from sensor_trees import build_battery, build_ina2xx

from device_agent.cli.doctor import doctor


@pytest.fixture
def worker_python(tmp_path: Path) -> Path:
    """This Python, but for PyTorch, whose import alone would take longer than all of these tests."""
    path = tmp_path / "python"
    path.write_text(
        f'#!/bin/sh\n[ "$3" = torch ] && {{ echo \'[false, ""]\'; exit; }}\nexec {sys.executable} "$@"\n'
    )
    path.chmod(0o755)
    return path


def examine(root: Path, worker_python: Path, *options: str) -> Result:
    arguments = ["--root", str(root), "--worker-python", str(worker_python), "--watch-s", "0.01"]
    state_dir = root / "home/agent"
    return CliRunner().invoke(doctor, [*arguments, "--state-dir", str(state_dir), *options])


def ready(root: Path) -> Path:
    """Add what every running Linux has."""
    return write(
        root,
        {
            "proc/meminfo": "MemAvailable:    4000000 kB\nSwapTotal:       0 kB\nSwapFree:        0 kB\n",
            "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            "proc/stat": "cpu  1 0 1 100 0 0 0 0 0 0\ncpu0 1 0 1 100 0 0 0 0 0 0\n",
            "proc/self/status": "Uid:\t1000\t1000\t1000\t1000\nCpus_allowed_list:\t0-7\n",
            "proc/self/clear_refs": "",
            "proc/self/oom_score_adj": "0\n",
            "proc/sys/kernel/perf_event_paranoid": "2\n",
        },
    )


def verdicts(result: Result) -> dict[str, str]:
    return {check["subject"]: check["verdict"] for check in json.loads(result.stdout)}


def test_raspberry_pi_is_examined(tmp_path: Path, worker_python: Path):
    result = examine(ready(raspberry_pi(tmp_path / "pi")), worker_python, "--json")
    found = verdicts(result)
    # These two are about the machine that the test runs on.
    assert {found.pop("timer"), found.pop("disk")} <= {"pass", "warn"}
    assert found == {
        "runtime onnx": "pass",
        "runtime torchscript": "warn",
        "sandbox": "pass",
        "certificate": "pass",
        "hosts": "pass",
        "power": "warn",
        "governor": "warn",
        "temperature": "pass",
        "throttling": "pass",
        "clock source": "pass",
        "processors": "pass",
        "machine": "pass",
        "memory": "pass",
        "swap": "pass",
        "pressure": "pass",
        "other processes": "pass",
        "state folder": "pass",
        "perf": "pass",
        "memory marks": "pass",
        "out of memory": "pass",
    }
    assert result.exit_code == 0


def test_check_that_fails_sets_the_exit_code(tmp_path: Path, worker_python: Path):
    root = ready(raspberry_pi(tmp_path / "pi"))
    vcgencmd(root, throttled="0x50005")
    result = examine(root, worker_python, "--json")
    assert verdicts(result)["throttling"] == "fail"
    assert result.exit_code == 1


def test_worker_python_that_does_not_exist_fails(tmp_path: Path):
    result = examine(ready(jetson_orin(tmp_path)), Path("no-such-python"), "--json")
    (check,) = (check for check in json.loads(result.stdout) if check["subject"] == "runtimes")
    assert check == {
        "subject": "runtimes",
        "verdict": "fail",
        "finding": "there is no program 'no-such-python' to start; check --worker-python",
        "remedy": "give a --worker-python that has numpy and a runtime",
    }
    assert result.exit_code == 1


@pytest.mark.parametrize("board", [jetson_orin, x86_laptop, virtual_machine])
def test_other_boards_are_examined_without_a_failure(tmp_path: Path, worker_python: Path, board):
    result = examine(ready(board(tmp_path / "board")), worker_python, "--json")
    assert result.exit_code == 0
    for check in json.loads(result.stdout):
        assert bool(check["remedy"]) == (check["verdict"] != "pass"), check


def test_examination_leaves_nothing_behind(tmp_path: Path, worker_python: Path):
    root = ready(raspberry_pi(tmp_path / "pi"))
    before = sorted(root.rglob("*"))
    examine(root, worker_python)
    assert sorted(root.rglob("*")) == before


def test_table_shows_each_remedy_below_its_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "95")
    result = examine(ready(raspberry_pi(tmp_path)), Path("no-such-python"))
    lines = result.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("warn  governor "))
    assert lines[place : place + 3] == [
        "warn  governor         ondemand on 4 of 4 cores lets the clock move while a model is timed",
        "                       → echo performance | sudo tee",
        "                       /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ]
    assert re.fullmatch(r"\d+ pass, \d+ warn, 1 fail", lines[-1])


def test_power_advice_of_a_virtual_machine_is_short(tmp_path: Path):
    result = examine(ready(virtual_machine(tmp_path)), Path("no-such-python"), "--json")
    (check,) = (check for check in json.loads(result.stdout) if check["subject"] == "power")
    assert check["remedy"] == "a virtual machine sees no power sensor; measure on the board itself"


def test_better_power_sensor_that_cannot_be_read_is_told(tmp_path: Path):
    build_ina2xx(tmp_path, shunt_resistor="0")
    build_battery(tmp_path)
    result = examine(ready(raspberry_pi(tmp_path)), Path("no-such-python"), "--json")
    checks = {check["subject"]: check for check in json.loads(result.stdout)}
    assert "power" not in checks
    assert checks["power battery"]["finding"] == "covers the input, and is what is read"
    skipped = checks["power ina2xx"]
    assert (skipped["verdict"], skipped["finding"]) == (
        "warn",
        "it is there and cannot be read; battery takes its place",
    )
    assert skipped["remedy"].startswith("the shunt of the ina226, ")


def test_power_options_are_those_of_the_agent(tmp_path: Path):
    build_ina2xx(tmp_path, shunt_resistor="0")
    build_battery(tmp_path)
    formula = tmp_path / "pi4.json"
    formula.write_text('{"picojoules_per_mac": 40, "picojoules_per_byte": 500}')
    root = ready(raspberry_pi(tmp_path))

    def power(*options: str) -> dict[str, str]:
        found = examine(root, Path("no-such-python"), "--energy-model", str(formula), *options, "--json")
        checks = json.loads(found.stdout)
        return {
            check["subject"]: check["finding"] for check in checks if check["subject"].startswith("power")
        }

    # Who names the battery does not hear of better ones.
    assert list(power("--power-source", "battery")) == ["power battery", "power modelled"]
    assert "used only where a request names it" in power()["power modelled"]
    assert "used unless a request names a sensor" in power("--power-source", "modelled")["power modelled"]
    assert "the source that was named cannot be read" in power("--power-source", "ina2xx")["power"]


def test_power_source_that_nobody_knows_is_refused(tmp_path: Path):
    result = examine(tmp_path, Path("no-such-python"), "--power-source", "abacus")
    assert result.exit_code == 2
    assert "no power source 'abacus'; expected one of " in result.stderr


def test_help_tells_the_exit_codes():
    result = CliRunner().invoke(doctor, ["--help"])
    assert "The exit code is 1 where a check fails, otherwise 0." in " ".join(result.stdout.split())
