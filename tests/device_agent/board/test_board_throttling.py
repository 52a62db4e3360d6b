from pathlib import Path

import pytest
from board_trees import (
    CPU,
    cooling_device,
    jetson_orin,
    program,
    raspberry_pi,
    vcgencmd,
    virtual_machine,
    write,
    x86_laptop,
)

from device_agent.board.throttling import ThrottleState, raised, read_throttling


def firmware(bits: int | None) -> ThrottleState:
    return ThrottleState(firmware_bits=bits)


@pytest.mark.parametrize("board", [raspberry_pi, jetson_orin, x86_laptop])
def test_quiet_board_raises_nothing(tmp_path: Path, board):
    state = read_throttling(board(tmp_path))
    assert state.is_reported
    assert state.active == ()
    assert raised(state, state) == ()


def test_board_without_any_witness_reports_nothing(tmp_path: Path):
    state = read_throttling(virtual_machine(tmp_path))
    assert state == ThrottleState()
    assert not state.is_reported


def test_firmware_of_a_raspberry_pi_is_asked(tmp_path: Path):
    root = raspberry_pi(tmp_path)
    vcgencmd(root, throttled="0xe0008")
    state = read_throttling(root)
    assert state.firmware_bits == 0xE0008
    assert state.active == ("soft temperature limit",)
    assert state.since_boot == ("arm frequency capped", "throttled", "soft temperature limit")


@pytest.mark.parametrize("answer", ['error=1 error_msg="Command not registered"', ""])
def test_firmware_that_does_not_answer_is_absent(tmp_path: Path, answer: str):
    program(tmp_path, "vcgencmd", {"get_throttled": answer})
    assert read_throttling(tmp_path).firmware_bits is None


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (0x0, 0x0, ()),
        (0x50000, 0x50000, ()),
        (0x0, 0x50005, ("under-voltage", "throttled")),
        (0x0, 0x20000, ("arm frequency capped",)),
        (0x80008, 0x80000, ("soft temperature limit",)),
        (0x50000, 0xD0000, ("soft temperature limit",)),
        (None, 0x50000, ()),
        (None, 0x50001, ("under-voltage",)),
        (0x50000, None, ()),
        (None, None, ()),
    ],
)
def test_firmware_bits_raise_what_holds_or_is_new(before, after, reasons):
    lines = raised(firmware(before), firmware(after))
    assert tuple(line.split(":")[0] for line in lines) == reasons


def test_reason_of_the_firmware_shows_both_words():
    assert raised(firmware(0x0), firmware(0x10000)) == (
        "under-voltage: get_throttled went from 0x0 to 0x10000",
    )


def test_thermal_counters_of_x86_that_grew_are_raised(tmp_path: Path):
    before = read_throttling(x86_laptop(tmp_path, core_events=7, package_events=100))
    after = read_throttling(x86_laptop(tmp_path, core_events=12, package_events=103))
    assert raised(before, after) == (
        "core_throttle_count of cpu1 grew by 5",
        "package_throttle_count of cpu0 grew by 3",
    )


def test_old_thermal_events_of_x86_are_not_raised(tmp_path: Path):
    state = read_throttling(x86_laptop(tmp_path, core_events=7, package_events=100))
    assert raised(state, state) == ()


def test_counters_that_start_anew_are_not_raised(tmp_path: Path):
    before = read_throttling(x86_laptop(tmp_path / "before", core_events=7))
    after = read_throttling(x86_laptop(tmp_path / "after", core_events=2))
    assert raised(before, after) == ()
    assert raised(ThrottleState(), before) == ()


def test_over_current_events_of_a_jetson_are_raised(tmp_path: Path):
    before = read_throttling(jetson_orin(tmp_path, events=3))
    after = read_throttling(jetson_orin(tmp_path, events=40))
    assert raised(before, after) == ("oc3_event_cnt of soctherm_oc grew by 37",)


def test_over_current_events_that_throttle_nothing_are_not_raised(tmp_path: Path):
    before = read_throttling(jetson_orin(tmp_path, events=3))
    root = write(jetson_orin(tmp_path, events=40), {"sys/class/hwmon/hwmon3/oc3_throt_en": "0\n"})
    assert raised(before, read_throttling(root)) == ()


@pytest.mark.parametrize(
    "kind",
    [
        "cpufreq-cpu0",
        "thermal-cpufreq-0",
        "thermal-devfreq-0",
        "devfreq-17000000.gpu",
        "idle-cpu0",
        "Processor",
        "intel_powerclamp",
        "cpu-throttle-alert",
        "throttle-alert",
        "gpu-balanced",
        "tegra-heavy",
    ],
)
def test_cooling_device_that_slows_down_is_active(tmp_path: Path, kind: str):
    cooling_device(tmp_path, 0, kind, 3)
    assert read_throttling(tmp_path).active == (kind,)


@pytest.mark.parametrize("kind", ["pwm-fan", "Fan", "TCC Offset", "hot-surface-alert", "LCD", "rpi-fan"])
def test_cooling_device_that_slows_nothing_is_left_out(tmp_path: Path, kind: str):
    cooling_device(tmp_path, 0, kind, 3)
    assert read_throttling(tmp_path).active == ()


def test_cooling_devices_of_one_kind_count_once_with_the_strongest(tmp_path: Path):
    cooling_device(tmp_path, 0, "Processor", 0)
    cooling_device(tmp_path, 1, "Processor", 4)
    cooling_device(tmp_path, 2, "Processor", 2)
    state = read_throttling(tmp_path)
    assert state.active == ("Processor",)
    assert raised(ThrottleState(), state) == ("cooling device Processor in state 0 before and 4 after",)


def test_cooling_that_ended_meanwhile_is_raised(tmp_path: Path):
    cooling_device(tmp_path, 0, "cpufreq-cpu0", 2)
    before = read_throttling(tmp_path)
    cooling_device(tmp_path, 0, "cpufreq-cpu0", 0)
    assert raised(before, read_throttling(tmp_path)) == (
        "cooling device cpufreq-cpu0 in state 2 before and 0 after",
    )


def test_unreadable_counter_is_absent(tmp_path: Path):
    root = x86_laptop(tmp_path)
    for cpu in range(2):
        write(root, {f"{CPU}/cpu{cpu}/thermal_throttle/core_throttle_count": "\n"})
    assert [file for file, _, _ in read_throttling(root).counters] == ["package_throttle_count"] * 2
