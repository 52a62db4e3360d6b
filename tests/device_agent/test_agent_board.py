from pathlib import Path

import pytest

from device_agent import errors
from device_agent.board.conditions import Conditions, read_conditions
from device_agent.board.description import cpu_model, describe_board, os_name
from device_agent.serving.wire.tables import (
    FLAGS_TO_WIRE,
    FORMATS_TO_WIRE,
    MODES_TO_WIRE,
    PHASES_TO_WIRE,
    REASONS_TO_WIRE,
    STATUS_OF,
)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_conditions_of_a_board(tmp_path: Path):
    root = tree(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/thermal/thermal_zone1/temp": "51000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "proc/loadavg": "0.52 0.58 0.59 1/203 4242\n",
            "proc/meminfo": "MemTotal:        8000000 kB\nMemAvailable:    4000000 kB\n",
            "proc/pressure/cpu": "some avg10=1.25 avg60=0.50 avg300=0.10 total=99\n",
        },
    )
    assert read_conditions(root) == Conditions(
        temperature_c=51.0,
        clock_mhz=1950.0,
        governor="schedutil",
        load_average_1min=0.52,
        available_memory_bytes=4_096_000_000,
        cpu_pressure_percent=1.25,
    )


def test_conditions_that_the_board_does_not_tell_are_absent(tmp_path: Path):
    assert read_conditions(tmp_path) == Conditions()


@pytest.mark.parametrize("text", ["-274000\n", "N/A\n", "", "200000\n"])
def test_implausible_temperature_is_absent(tmp_path: Path, text: str):
    root = tree(tmp_path, {"sys/class/thermal/thermal_zone0/temp": text})
    assert read_conditions(root).temperature_c is None


def test_unreadable_sensor_is_absent(tmp_path: Path):
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").mkdir(parents=True)
    assert read_conditions(tmp_path).temperature_c is None


def test_clock_without_cpufreq_comes_from_a_processor_that_counts(tmp_path: Path):
    core = "processor\t: {}\ncpu MHz\t\t: {}\nflags\t\t: fpu aperfmperf\n\n"
    root = tree(tmp_path, {"proc/cpuinfo": core.format(0, 2000.5) + core.format(1, 3000.5)})
    assert read_conditions(root).clock_mhz == 2500.5


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("model name\t: AMD EPYC\n\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n", "Cortex-A76"),
        (
            "CPU implementer\t: 0x41\nCPU part\t: 0xd05\n\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
            "Cortex-A55 + Cortex-A76",
        ),
        ("CPU implementer\t: 0x61\nCPU part\t: 0x022\n", "implementer 0x61 part 0x022"),
        ("", None),
    ],
)
def test_cpu_model_is_named(tmp_path: Path, cpuinfo: str, name: str | None):
    assert cpu_model(tree(tmp_path, {"proc/cpuinfo": cpuinfo})) == name


def test_board_model_comes_from_the_device_tree(tmp_path: Path):
    root = tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"})
    board = describe_board(root)
    assert (board.board_model, board.boot_id) == ("Raspberry Pi 5 Model B Rev 1.0", None)


def test_os_name_comes_from_os_release(tmp_path: Path):
    text = 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n'
    assert os_name(tree(tmp_path, {"etc/os-release": text})) == "Debian GNU/Linux 12 (bookworm)"


def test_every_call_error_has_a_status():
    assert set(STATUS_OF) == set(errors.CallError.__subclasses__())


@pytest.mark.parametrize(
    "table", [FLAGS_TO_WIRE, FORMATS_TO_WIRE, MODES_TO_WIRE, PHASES_TO_WIRE, REASONS_TO_WIRE]
)
def test_every_enum_member_has_a_number_of_its_own(table):
    members = list(type(next(iter(table))))
    assert list(table) == members
    assert 0 not in table.values()
    assert len(set(table.values())) == len(members)
