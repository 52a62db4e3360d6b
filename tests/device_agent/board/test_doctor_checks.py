from dataclasses import dataclass
from pathlib import Path

import pytest
from board_trees import (
    CPU,
    THERMAL,
    cooling_device,
    cpufreq,
    jetson_orin,
    program,
    raspberry_pi,
    vcgencmd,
    virtual_machine,
    write,
    x86_laptop,
)

from device_agent.benchmark import RuntimeDescription, UnavailableRuntime
from device_agent.board.load import WindowLoad
from device_agent.doctor import access, speed, system, timing
from device_agent.doctor.check import Verdict, passed, warned
from device_agent.doctor.offers import check_formula, check_power_sources, check_runtimes
from device_agent.sensors.base import PowerMeter, Scope
from device_agent.sensors.modelled import EnergyModel

ONNX = RuntimeDescription(
    name="onnx", library="onnxruntime", version="1.23.0", providers=("CPUExecutionProvider",)
)
NO_TORCH = UnavailableRuntime(name="torchscript", reason="pip install edgenas[torchscript]")
QUIET = WindowLoad(
    window_s=2.0,
    other_cpu_percent=0.5,
    steal_percent=0.0,
    cpu_pressure_percent=0.1,
    memory_pressure_percent=0.0,
    swap_ins=0,
)


@dataclass(frozen=True)
class Source:
    name: str
    scope: Scope
    calibration: str = ""

    def absent_reason(self, root: Path) -> str | None:
        return None

    def open(self, root: Path) -> PowerMeter:
        raise NotImplementedError


def test_runtimes_have_a_row_each():
    assert check_runtimes((ONNX,), (NO_TORCH,)) == (
        passed("runtime onnx", "onnxruntime 1.23.0 on CPUExecutionProvider"),
        warned("runtime torchscript", "cannot be used here", "pip install edgenas[torchscript]"),
    )


def test_board_without_any_runtime_fails():
    (check,) = check_runtimes((), (NO_TORCH,))
    assert check.verdict is Verdict.FAIL


INA, RAPL, CARD = Source("ina226", Scope.INPUT), Source("rapl", Scope.SOC), Source("nvml", Scope.GPU)


def test_power_sources_that_can_be_read_have_a_row_each():
    survey = ((INA, None), (RAPL, None), (CARD, "no driver"))
    assert check_power_sources(survey, chosen=INA) == (
        passed("power ina226", "covers the input, and is what is read"),
        passed("power rapl", "covers the soc"),
    )


def test_better_sensor_that_cannot_be_read_is_told_with_its_remedy():
    survey = ((INA, "its shunt is 0; set it"), (RAPL, None))
    found = check_power_sources(survey, chosen=RAPL, passed_over=((INA, "its shunt is 0; set it"),))
    assert found == (
        passed("power rapl", "covers the soc, and is what is read"),
        warned(
            "power ina226", "it is there and cannot be read; rapl takes its place", "its shunt is 0; set it"
        ),
    )


def test_card_that_cannot_be_read_is_replaced_by_nothing():
    survey = ((RAPL, None), (CARD, "two cards; name one"))
    found = check_power_sources(survey, chosen=RAPL, passed_over=((CARD, "two cards; name one"),))
    assert found[1:] == (
        warned(
            "power nvml",
            "it is there and cannot be read; nothing else tells what the card takes",
            "two cards; name one",
        ),
    )


def test_board_without_a_power_source_says_why():
    survey = ((INA, "none found"), (RAPL, "root only"))
    assert check_power_sources(survey) == (
        warned(
            "power",
            "none of 2 known sources can be read, so no energy can be measured",
            "ina226: none found; rapl: root only",
        ),
    )


def test_board_without_a_power_source_is_advised():
    (check,) = check_power_sources(((RAPL, "root only"),), advice="a virtual machine sees no power sensor")
    assert check.remedy == "a virtual machine sees no power sensor"


def test_board_whose_graphics_card_alone_can_be_read_is_advised():
    found = check_power_sources(((RAPL, "root only"), (CARD, None)), advice="make its counters readable")
    assert found == (
        passed("power nvml", "covers the gpu"),
        warned(
            "power",
            "only a graphics card can be read, and not what the processor takes, so no energy can be measured",
            "make its counters readable",
        ),
    )


def test_named_source_that_cannot_be_read_is_told_beside_those_that_can():
    survey = ((INA, None), (RAPL, "root only"))
    found = check_power_sources(survey, advice="power source 'rapl' cannot be read: root only")
    assert found[1:] == (
        warned(
            "power",
            "the source that was named cannot be read, so no energy can be measured",
            "power source 'rapl' cannot be read: root only",
        ),
    )


def test_one_of_several_chips_has_a_row_of_its_own():
    one = Source("ina226:1-0041", Scope.INPUT)
    assert check_power_sources(((INA, None),), chosen=one) == (
        passed("power ina226", "covers the input"),
        passed("power ina226:1-0041", "covers the input, and is what is read"),
    )


@pytest.mark.parametrize(
    ("is_default", "when"),
    [(False, "only where a request names it"), (True, "unless a request names a sensor")],
)
def test_formula_is_told_as_what_it_is(is_default: bool, when: str):
    formula = EnergyModel(picojoules_per_mac=40.0, picojoules_per_byte=500.0, file="pi4.json")
    assert check_formula(formula, is_default=is_default) == (
        passed(
            "power modelled",
            f"no sensor but a formula, 40 pJ/MAC + 500 pJ/byte (pi4.json); used {when}, and its figures are labelled so",
        ),
    )


def test_board_without_a_formula_has_no_row():
    assert check_formula(None, is_default=False) == ()


def test_governor_that_moves_the_clock_is_told_with_its_command(tmp_path: Path):
    assert speed.check_governor(raspberry_pi(tmp_path)) == warned(
        "governor",
        "ondemand on 4 of 4 cores lets the clock move while a model is timed",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def test_governor_of_a_jetson_is_set_by_its_own_program(tmp_path: Path):
    assert speed.check_governor(jetson_orin(tmp_path)).remedy == "sudo jetson_clocks"


def test_governor_that_the_kernel_does_not_have_is_no_remedy(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1, maximum=1)
    write(tmp_path, {f"{CPU}/cpu0/cpufreq/scaling_available_governors": "ondemand schedutil\n"})
    assert speed.check_governor(tmp_path).remedy == (
        "this kernel offers only ondemand schedutil: build or load its governor 'performance'"
    )


def test_governor_that_holds_the_clock_passes(tmp_path: Path):
    for cpu in range(4):
        cpufreq(tmp_path, cpu, current=1, maximum=1, governor="performance")
    assert speed.check_governor(tmp_path) == passed("governor", "performance on all 4 cores")


def test_one_core_with_another_governor_is_found(tmp_path: Path):
    cpufreq(tmp_path, 0, current=1, maximum=1, governor="performance")
    cpufreq(tmp_path, 1, current=1, maximum=1, governor="schedutil")
    assert speed.check_governor(tmp_path).finding.startswith("schedutil on 1 of 2 cores")


def test_virtual_machine_has_no_governor(tmp_path: Path):
    check = speed.check_governor(virtual_machine(tmp_path))
    assert check.verdict is Verdict.WARN
    assert check.finding == "there is no cpufreq, so nobody here sets or sees the clock"


def test_capped_power_mode_is_found(tmp_path: Path):
    (check,) = speed.check_power_mode(jetson_orin(tmp_path))
    assert (check.verdict, check.finding) == (Verdict.WARN, "MODE_15W caps clocks and cores")


def test_full_power_mode_passes(tmp_path: Path):
    program(tmp_path, "nvpmodel", {"-q": "NV Power Mode: MAXN_SUPER\n2"})
    assert speed.check_power_mode(tmp_path) == (passed("power mode", "MAXN_SUPER"),)


def test_power_mode_that_is_not_told_is_found(tmp_path: Path):
    program(tmp_path, "nvpmodel", {})
    (check,) = speed.check_power_mode(tmp_path)
    assert check.verdict is Verdict.WARN


def test_board_without_power_modes_has_no_row(tmp_path: Path):
    assert speed.check_power_mode(raspberry_pi(tmp_path)) == ()


def test_temperature_is_of_the_hottest_zone(tmp_path: Path):
    root = write(raspberry_pi(tmp_path), {f"{THERMAL}/thermal_zone1/temp": "40000\n"})
    assert speed.check_temperature(root) == passed("temperature", "48.3 °C in the hottest of 2 zones")


def test_board_that_is_hot_without_work_is_found(tmp_path: Path):
    root = write(raspberry_pi(tmp_path), {f"{THERMAL}/thermal_zone0/temp": "70000\n"})
    assert speed.check_temperature(root).verdict is Verdict.WARN


def test_board_without_a_temperature_is_found(tmp_path: Path):
    assert speed.check_temperature(virtual_machine(tmp_path)).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("word", "verdict", "finding"),
    [
        ("0x0", Verdict.PASS, "nothing slows the board down"),
        ("0x50000", Verdict.WARN, "since the last start: under-voltage, throttled"),
        ("0x50005", Verdict.FAIL, "right now: under-voltage, throttled"),
    ],
)
def test_throttling_of_a_raspberry_pi(tmp_path: Path, word: str, verdict: Verdict, finding: str):
    root = raspberry_pi(tmp_path)
    vcgencmd(root, throttled=word)
    check = speed.check_throttling(root)
    assert (check.verdict, check.finding) == (verdict, finding)


def test_raspberry_pi_that_cannot_be_asked_is_found(tmp_path: Path):
    root = raspberry_pi(tmp_path)
    (root / "usr/bin/vcgencmd").unlink()
    check = speed.check_throttling(root)
    assert (check.verdict, check.remedy) == (
        Verdict.WARN,
        "sudo apt install raspi-utils; sudo usermod -aG video USER, with the agent's user",
    )


def test_board_that_is_being_cooled_fails(tmp_path: Path):
    root = jetson_orin(tmp_path)
    cooling_device(root, 0, "cpufreq-cpu0", 1)
    check = speed.check_throttling(root)
    assert (check.verdict, check.finding) == (Verdict.FAIL, "right now: cpufreq-cpu0")


def test_board_that_does_not_report_throttling_is_found(tmp_path: Path):
    assert speed.check_throttling(virtual_machine(tmp_path)).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("tsc", Verdict.PASS),
        ("arch_sys_counter", Verdict.PASS),
        ("kvm-clock", Verdict.PASS),
        ("hpet", Verdict.WARN),
        ("acpi_pm", Verdict.WARN),
        ("jiffies", Verdict.FAIL),
    ],
)
def test_clock_source(tmp_path: Path, source: str, verdict: Verdict):
    folder = "sys/devices/system/clocksource/clocksource0"
    write(tmp_path, {f"{folder}/current_clocksource": f"{source}\n"})
    (check,) = timing.check_clock_source(tmp_path)
    assert check.verdict is verdict


def test_slow_clock_source_is_replaced_where_there_is_a_better_one(tmp_path: Path):
    folder = "sys/devices/system/clocksource/clocksource0"
    root = write(x86_laptop(tmp_path), {f"{folder}/current_clocksource": "hpet\n"})
    (check,) = timing.check_clock_source(root)
    assert check.remedy == f"echo tsc | sudo tee /{folder}/current_clocksource"
    write(root, {f"{folder}/available_clocksource": "hpet acpi_pm \n"})
    (check,) = timing.check_clock_source(root)
    assert check.remedy.startswith("the kernel offers no better one")


def test_kernel_without_a_clock_source_has_no_row(tmp_path: Path):
    assert timing.check_clock_source(tmp_path) == ()


@pytest.mark.parametrize(
    ("cost_ns", "resolution_ns", "verdict"),
    [
        (50.0, 40.0, Verdict.PASS),
        (1500.0, 40.0, Verdict.WARN),
        (50.0, 1000.0, Verdict.WARN),
        (50.0, 4e6, Verdict.FAIL),
    ],
)
def test_timer_is_judged_by_cost_and_steps(cost_ns: float, resolution_ns: float, verdict: Verdict):
    assert timing.check_timer(timing.Timer(cost_ns=cost_ns, resolution_ns=resolution_ns)).verdict is verdict


def test_timer_of_this_python_costs_something_and_moves():
    timer = timing.measure_timer()
    assert 0 < timer.cost_ns < 1e6
    assert 0 < timer.resolution_ns < 1e6


def test_processors_that_are_all_allowed_pass(tmp_path: Path):
    root = write(raspberry_pi(tmp_path), {"proc/self/status": "Cpus_allowed_list:\t0-3\n"})
    assert system.check_processors(root) == passed("processors", "all 4 cores may be used")


def test_processors_that_are_taken_away_are_found(tmp_path: Path):
    root = write(raspberry_pi(tmp_path), {"proc/self/status": "Cpus_allowed_list:\t2-3\n"})
    check = system.check_processors(root)
    assert (check.verdict, check.finding) == (Verdict.WARN, "2 of 4 cores may be used")


def test_quota_of_a_container_is_found(tmp_path: Path):
    root = write(
        raspberry_pi(tmp_path),
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"},
    )
    check = system.check_processors(root)
    assert check.verdict is Verdict.WARN
    assert check.finding.startswith("a cgroup allows 1.5 cores' time")


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor lahf_lm\n"}, "its processor says so"),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "QEMU"),
        ({"proc/device-tree/compatible": "linux,dummy-virt\0"}, "linux,dummy-virt"),
        ({"sys/hypervisor/type": "xen\n"}, "xen"),
    ],
)
def test_virtual_machine_is_told_by_its_traces(tmp_path: Path, files: dict[str, str], name: str):
    check = system.check_virtual_machine(write(tmp_path, files))
    assert check.verdict is Verdict.WARN
    assert check.finding.startswith(f"a virtual machine ({name})")


@pytest.mark.parametrize("board", [raspberry_pi, jetson_orin, x86_laptop])
def test_real_board_is_no_virtual_machine(tmp_path: Path, board):
    assert system.check_virtual_machine(board(tmp_path)).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("kib", "verdict"),
    [
        (4_000_000, Verdict.PASS),
        (524_288, Verdict.PASS),
        (524_287, Verdict.WARN),
        (131_072, Verdict.WARN),
        (131_071, Verdict.FAIL),
    ],
)
def test_memory_is_judged_by_what_is_available(tmp_path: Path, kib: int, verdict: Verdict):
    write(tmp_path, {"proc/meminfo": f"MemTotal:        8000000 kB\nMemAvailable:    {kib} kB\n"})
    assert system.check_memory(tmp_path).verdict is verdict


def test_memory_that_is_not_told_is_found(tmp_path: Path):
    assert system.check_memory(tmp_path).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("text", "verdict", "finding"),
    [
        ("SwapTotal: 0 kB\nSwapFree: 0 kB\n", Verdict.PASS, "there is none"),
        ("SwapTotal: 204800 kB\nSwapFree: 204800 kB\n", Verdict.PASS, "200 MiB, unused"),
        (
            "SwapTotal: 204800 kB\nSwapFree: 102400 kB\n",
            Verdict.WARN,
            "100 of 200 MiB in use; pages that return interrupt a measurement",
        ),
    ],
)
def test_swap_is_found_where_it_is_used(tmp_path: Path, text: str, verdict: Verdict, finding: str):
    check = system.check_swap(write(tmp_path, {"proc/meminfo": text}))
    assert (check.verdict, check.finding) == (verdict, finding)


def test_kernel_that_notes_waiting_passes(tmp_path: Path):
    write(tmp_path, {"proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"})
    assert system.check_pressure(tmp_path).verdict is Verdict.PASS


def test_kernel_that_does_not_note_waiting_is_found(tmp_path: Path):
    assert system.check_pressure(tmp_path).verdict is Verdict.WARN


def test_quiet_board_passes():
    assert system.check_load(QUIET) == (passed("other processes", "0.5 % of a core over 2.0 s"),)


def test_busy_board_is_found_with_all_its_traces():
    busy = WindowLoad(
        window_s=2.0,
        other_cpu_percent=100.0,
        steal_percent=3.0,
        cpu_pressure_percent=40.0,
        memory_pressure_percent=2.0,
        swap_ins=0,
    )
    checks = system.check_load(busy)
    assert [(check.subject, check.verdict) for check in checks] == [
        ("other processes", Verdict.WARN),
        ("steal", Verdict.WARN),
        ("waiting", Verdict.WARN),
        ("waiting for memory", Verdict.WARN),
    ]


def test_load_that_is_not_told_has_no_row():
    silent = WindowLoad(
        window_s=2.0,
        other_cpu_percent=None,
        steal_percent=None,
        cpu_pressure_percent=None,
        memory_pressure_percent=None,
        swap_ins=None,
    )
    assert system.check_load(silent) == ()


def test_state_folder_that_can_be_written_passes(tmp_path: Path):
    assert access.check_state_dir(tmp_path) == passed("state folder", f"'{tmp_path}'")
    assert list(tmp_path.iterdir()) == []


def test_state_folder_that_can_be_created_passes_and_is_not_created(tmp_path: Path):
    wanted = tmp_path / "home" / "agent"
    assert access.check_state_dir(wanted) == passed("state folder", f"'{wanted}' can be created")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "agent"])
def test_file_in_place_of_the_state_folder_fails(tmp_path: Path, below: str):
    (tmp_path / "agent").write_text("")
    check = access.check_state_dir(tmp_path / "agent" / below)
    assert (check.verdict, check.finding) == (Verdict.FAIL, f"'{tmp_path}/agent' is not a folder")


def test_state_folder_that_the_kernel_keeps_closed_fails():
    check = access.check_state_dir(Path("/proc/edgenas-agent"))
    assert check.verdict is Verdict.FAIL
    assert check.finding.startswith("'/proc' cannot be written to")


@pytest.mark.parametrize(
    ("free", "verdict"),
    [(1 << 30, Verdict.PASS), ((1 << 30) - 1, Verdict.WARN), ((100 << 20) - 1, Verdict.FAIL)],
)
def test_disk_is_judged_by_its_free_space(free: int, verdict: Verdict):
    assert access.judge_disk(Path("/state"), free).verdict is verdict


def test_disk_of_a_folder_to_come_is_that_of_its_parent(tmp_path: Path):
    check = access.check_disk(tmp_path / "agent")
    assert check.finding.endswith(f"free for '{tmp_path}/agent'")


def test_energy_counters_that_can_be_read_pass(tmp_path: Path):
    write(
        tmp_path,
        {
            "sys/class/powercap/intel-rapl:0/energy_uj": "4711\n",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "42\n",
        },
    )
    assert access.check_energy_counters(tmp_path) == (passed("energy counters", "2 can be read"),)


def test_energy_counters_that_are_closed_are_found(tmp_path: Path):
    # As unreadable for root as a closed file is for others.
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir(parents=True)
    (check,) = access.check_energy_counters(tmp_path)
    assert check.verdict is Verdict.WARN
    assert check.finding.startswith("1 of 1 cannot be read")
    assert check.remedy.startswith("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj")


def test_board_without_energy_counters_has_no_row(tmp_path: Path):
    assert access.check_energy_counters(tmp_path) == ()


@pytest.mark.parametrize(
    ("paranoid", "uid", "verdict"),
    [("2", 1000, Verdict.PASS), ("3", 1000, Verdict.WARN), ("4", 0, Verdict.PASS), ("-1", 5, Verdict.PASS)],
)
def test_perf_is_judged_by_its_limit(tmp_path: Path, paranoid: str, uid: int, verdict: Verdict):
    write(
        tmp_path,
        {
            "proc/sys/kernel/perf_event_paranoid": f"{paranoid}\n",
            "proc/self/status": f"Name:\tpython\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n",
        },
    )
    assert access.check_perf(tmp_path).verdict is verdict


def test_kernel_without_perf_is_found(tmp_path: Path):
    assert access.check_perf(tmp_path).verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("check", "file"),
    [
        (access.check_memory_marks, "proc/self/clear_refs"),
        (access.check_sacrifice, "proc/self/oom_score_adj"),
    ],
)
def test_file_that_must_be_writable(tmp_path: Path, check, file: str):
    assert check(tmp_path).verdict is Verdict.WARN
    write(tmp_path, {file: "0\n"})
    assert check(tmp_path).verdict is Verdict.PASS
    assert (tmp_path / file).read_text() == "0\n"
