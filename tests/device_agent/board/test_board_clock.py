from pathlib import Path

import pytest
from board_trees import (
    CPU,
    cpufreq,
    jetson_orin,
    program,
    raspberry_pi,
    vcgencmd,
    virtual_machine,
    write,
    x86_laptop,
)

from device_agent.board.clock import CoreGovernor, governors, promised_clock_mhz, working_clock_mhz
from device_agent.board.conditions import read_conditions


def test_clock_of_a_raspberry_pi_is_what_its_firmware_measures(tmp_path: Path):
    root = raspberry_pi(tmp_path)
    assert working_clock_mhz(root) == 1500.398464
    assert read_conditions(root).clock_mhz == 1500.398464


def test_clock_of_a_raspberry_pi_5_has_another_number_in_brackets(tmp_path: Path):
    program(tmp_path, "vcgencmd", {"measure_clock arm": "frequency(0)=2400030976"})
    assert working_clock_mhz(tmp_path) == 2400.030976


@pytest.mark.parametrize("answer", ['error=2 error_msg="Invalid arguments"', "frequency(48)=0", ""])
def test_clock_that_the_firmware_does_not_tell_comes_from_the_kernel(tmp_path: Path, answer: str):
    program(tmp_path, "vcgencmd", {"measure_clock arm": answer})
    cpufreq(tmp_path, 0, current=1_800_000, maximum=1_800_000)
    assert working_clock_mhz(tmp_path) == 1800.0


def test_working_clock_is_the_highest_of_the_cores(tmp_path: Path):
    cpufreq(tmp_path, 0, current=600_000, maximum=1_800_000)
    cpufreq(tmp_path, 1, current=1_700_000, maximum=1_800_000)
    cpufreq(tmp_path, 10, current=1_200_000, maximum=1_800_000)
    assert working_clock_mhz(tmp_path) == 1700.0


def test_working_clock_is_of_the_named_cores_alone(tmp_path: Path):
    cpufreq(tmp_path, 1, current=1_700_000, maximum=1_800_000)
    cpufreq(tmp_path, 10, current=1_200_000, maximum=1_800_000)
    assert working_clock_mhz(tmp_path, cpus=[10]) == 1200.0


def test_working_clock_of_unknown_cores_is_absent(tmp_path: Path):
    cpufreq(tmp_path, 1, current=1_700_000, maximum=1_800_000)
    assert working_clock_mhz(tmp_path, cpus=[2]) is None


def test_clock_read_back_from_the_hardware_is_preferred(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1_800_000, maximum=1_800_000)
    write(tmp_path, {f"{CPU}/cpu0/cpufreq/cpuinfo_cur_freq": "1400000\n"})
    assert working_clock_mhz(tmp_path) == 1400.0


def test_clock_counted_by_the_hardware_is_preferred_most(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1_800_000, maximum=1_800_000)
    write(
        tmp_path,
        {
            f"{CPU}/cpu0/cpufreq/cpuinfo_cur_freq": "1400000\n",
            f"{CPU}/cpu0/cpufreq/cpuinfo_avg_freq": "1399000\n",
        },
    )
    assert working_clock_mhz(tmp_path) == 1399.0


def test_unreadable_hardware_clock_falls_back_to_the_governor(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1_800_000, maximum=1_800_000)
    # As unreadable for root as a closed file is for others.
    (tmp_path / f"{CPU}/cpu0/cpufreq/cpuinfo_cur_freq").mkdir()
    assert working_clock_mhz(tmp_path) == 1800.0


def test_constant_of_a_virtual_machine_is_no_clock(tmp_path: Path):
    root = virtual_machine(tmp_path)
    assert working_clock_mhz(root) is None
    assert promised_clock_mhz(root) is None
    assert read_conditions(root).clock_mhz is None


def test_clock_that_the_processor_counts_is_read_without_cpufreq(tmp_path: Path):
    cores = "".join(
        f"processor\t: {cpu}\nflags\t\t: fpu aperfmperf\ncpu MHz\t\t: {clock}\n\n"
        for cpu, clock in ((0, "800.000"), (1, "3100.250"))
    )
    write(tmp_path, {"proc/cpuinfo": cores})
    assert working_clock_mhz(tmp_path) == 3100.25
    assert working_clock_mhz(tmp_path, cpus=[0]) == 800.0


def test_performance_promises_the_policy_maximum(tmp_path: Path):
    cpufreq(tmp_path, 0, current=400_000, maximum=1_800_000, governor="performance")
    cpufreq(tmp_path, 4, current=400_000, maximum=2_400_000, governor="performance")
    assert promised_clock_mhz(tmp_path) == 2400.0
    assert promised_clock_mhz(tmp_path, cpus=[0]) == 1800.0


def test_promise_respects_a_lowered_limit(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1_510_400, maximum=1_510_400, governor="performance")
    write(tmp_path, {f"{CPU}/cpu0/cpufreq/cpuinfo_max_freq": "1728000\n"})
    assert promised_clock_mhz(tmp_path) == 1510.4


@pytest.mark.parametrize("governor", ["ondemand", "schedutil", "powersave"])
def test_other_governors_promise_nothing(tmp_path: Path, governor: str):
    cpufreq(tmp_path, 0, current=1_800_000, maximum=1_800_000, governor=governor)
    assert promised_clock_mhz(tmp_path) is None


@pytest.mark.parametrize("driver", ["intel_pstate", "acpi-cpufreq", "amd-pstate-epp"])
def test_turbo_clock_is_no_promise(tmp_path: Path, driver: str):
    cpufreq(tmp_path, 0, current=2_400_000, maximum=4_200_000, governor="performance", driver=driver)
    assert promised_clock_mhz(tmp_path) is None


def test_unknown_driver_promises_nothing(tmp_path: Path):
    cpufreq(tmp_path, 0, current=2_400_000, maximum=2_400_000, governor="performance")
    (tmp_path / f"{CPU}/cpu0/cpufreq/scaling_driver").unlink()
    assert promised_clock_mhz(tmp_path) is None


def test_governors_are_listed_by_core_number(tmp_path: Path):
    root = x86_laptop(tmp_path)
    cpufreq(root, 10, current=1, maximum=1, governor="performance")
    write(root, {f"{CPU}/cpu10/cpufreq/scaling_available_governors": "performance powersave\n"})
    offered = ("performance", "powersave")
    assert governors(root) == (
        CoreGovernor(cpu=0, governor="powersave", available=offered),
        CoreGovernor(cpu=1, governor="powersave", available=offered),
        CoreGovernor(cpu=10, governor="performance", available=offered),
    )


def test_board_without_cpufreq_has_no_governors(tmp_path: Path):
    assert governors(virtual_machine(tmp_path)) == ()


def test_conditions_of_a_raspberry_pi_name_what_slows_it_down(tmp_path: Path):
    root = raspberry_pi(tmp_path)
    vcgencmd(root, throttled="0x50005")
    assert read_conditions(root).throttling == ("under-voltage", "throttled")


def test_conditions_of_a_jetson_name_its_power_mode(tmp_path: Path):
    root = jetson_orin(tmp_path)
    assert read_conditions(root).power_mode == "MODE_15W"
    assert read_conditions(root, with_power_mode=False).power_mode is None


def test_conditions_include_memory_pressure(tmp_path: Path):
    pressure = "some avg10=0.37 avg60=0.10 avg300=0.02 total=1903959\nfull avg10=0.20 total=1711517\n"
    write(tmp_path, {"proc/pressure/memory": pressure})
    assert read_conditions(tmp_path).memory_pressure_percent == 0.37
