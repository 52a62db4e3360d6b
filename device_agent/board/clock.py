"""The clock that the cores run at, the one they are allowed, and who decides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.board.commands import run_tool
from device_agent.board.files import cpu_number, find_number, read_number, read_text

# Best first. The first two come from the hardware, where it counts cycles (Linux 6.15) or its driver reads
# the clock back (for root alone, as a rule); the last is on arm what was asked for, on x86 counted again.
# Source: Linux, Documentation/admin-guide/pm/cpufreq.rst, "Policy Interface in sysfs".
CURRENT_FILES = ("cpuinfo_avg_freq", "cpuinfo_cur_freq", "scaling_cur_freq")
MAXIMUM_FILES = ("cpuinfo_max_freq", "scaling_max_freq")
# Their maximum is a turbo clock, which not all cores can have at once.
BOOSTING_DRIVERS = frozenset(
    {"acpi-cpufreq", "amd-pstate", "amd-pstate-epp", "intel_cpufreq", "intel_pstate", "pcc-cpufreq"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreGovernor:
    """Who decides on the clock of one core; `available` may be empty where the kernel does not tell."""

    cpu: int
    governor: str
    available: tuple[str, ...]


def working_clock_mhz(root: Path = Path("/"), cpus: Sequence[int] = ()) -> float | None:
    """Return the clock of the cores that work: the highest one among `cpus`, or among all cores.

    Idle cores are slow, so the highest is the one that works. A Raspberry Pi's firmware slows its cores down
    behind the kernel's back, so there the firmware is asked, and `cpus` does not matter: its cores share
    one clock. None where nobody measures the clock, as on most virtual machines.
    """
    firmware = firmware_clock_mhz(root)
    if firmware is not None:
        return firmware
    clocks = core_clocks_mhz(root)
    return max((clock for cpu, clock in clocks.items() if not cpus or cpu in cpus), default=None)


def mean_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the mean clock of all cores; the firmware's word on a Raspberry Pi."""
    firmware = firmware_clock_mhz(root)
    if firmware is not None:
        return firmware
    clocks = core_clocks_mhz(root).values()
    return sum(clocks) / len(clocks) if clocks else None


def promised_clock_mhz(root: Path = Path("/"), cpus: Sequence[int] = ()) -> float | None:
    """Return the clock that the fastest of `cpus`, or of all cores, must have; None where none is promised.

    The governor `performance` promises the highest clock that the policy allows, which a thermal cap of the
    kernel's own may have lowered. x86 may reach its maximum on one core at a time only, so there it is no promise.
    """
    promises = []
    for folder in _policies(root):
        if cpus and cpu_number(folder) not in cpus:
            continue
        governor, driver = (read_text(folder / f"scaling_{name}") for name in ("governor", "driver"))
        limits = [read_number(folder / name) for name in MAXIMUM_FILES]
        known = [limit / 1000 for limit in limits if limit]
        if known and governor == "performance" and driver is not None and driver not in BOOSTING_DRIVERS:
            promises.append(min(known))
    return max(promises, default=None)


def governors(root: Path = Path("/")) -> tuple[CoreGovernor, ...]:
    """Return the governor of each core, by number; empty without cpufreq."""
    found = []
    for folder in _policies(root):
        governor = read_text(folder / "scaling_governor")
        if governor is not None:
            available = (read_text(folder / "scaling_available_governors") or "").split()
            found.append(CoreGovernor(cpu=cpu_number(folder), governor=governor, available=tuple(available)))
    return tuple(sorted(found, key=lambda core: core.cpu))


def firmware_clock_mhz(root: Path) -> float | None:
    """Return the clock of the Arm cores as a Raspberry Pi's firmware measures it; None on other boards.

    The command prints `frequency(48)=1500398464`, in hertz; the number in brackets differs between boards.
    """
    hertz = find_number(r"^frequency\(\d+\)=(\d+)$", run_tool(root, "vcgencmd", "measure_clock", "arm"))
    return hertz / 1e6 if hertz else None


def core_clocks_mhz(root: Path) -> dict[int, float]:
    """Return the current clock of every core that has one, by the core's number."""
    clocks = {}
    for folder in _policies(root):
        values = (read_number(folder / name) for name in CURRENT_FILES)
        value = next((value for value in values if value), None)
        if value is not None:
            clocks[cpu_number(folder)] = value / 1000
    return clocks or _counted_clocks_mhz(root)


def _counted_clocks_mhz(root: Path) -> dict[int, float]:
    """Return the clocks of an x86 kernel without cpufreq, where the processor counts its cycles.

    Without the counters APERF and MPERF, which few virtual machines have, `cpu MHz` is what the time-stamp
    counter was calibrated to when the system started: a constant, and no measurement of anything.
    Source: Linux, arch/x86/kernel/cpu/proc.c and aperfmperf.c.
    """
    text = read_text(root / "proc/cpuinfo") or ""
    if not re.search(r"^flags\s*:.*\baperfmperf\b", text, re.MULTILINE):
        return {}
    cores = re.findall(r"^processor\s*:\s*(\d+)$.*?^cpu MHz\s*:\s*([\d.]+)$", text, re.MULTILINE | re.DOTALL)
    return {int(cpu): float(clock) for cpu, clock in cores}


def _policies(root: Path) -> list[Path]:
    return sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
