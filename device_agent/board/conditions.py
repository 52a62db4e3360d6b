"""The state of the board around a measurement, read below a root path."""

from dataclasses import dataclass
from pathlib import Path

from device_agent.board.clock import mean_clock_mhz
from device_agent.board.commands import run_tool
from device_agent.board.files import find_number, find_text, read_number, read_text
from device_agent.board.limits import memory_headroom_bytes
from device_agent.board.throttling import ThrottleState, read_throttling

# Zones whose sensor is off report values such as -274 °C: nothing a running board can have.
PLAUSIBLE_C = range(-40, 151)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the board tells about itself at one moment; what it cannot tell is None.

    Attributes:
        temperature_c: Of the hottest zone.
        clock_mhz: Mean of the cores; on a Raspberry Pi as its firmware measures it.
        governor: Of the first core.
        cpu_pressure_percent: Share of ten seconds in which some task waited for a CPU;
            `memory_pressure_percent` for memory.
        expected_clock_mhz: What the clock should be under load; reading the board does not tell it.
        throttling: Names of what slows the board down right now; empty where nothing does.
        power_mode: A Jetson's, e.g. "MAXN".
    """

    temperature_c: float | None = None
    clock_mhz: float | None = None
    governor: str | None = None
    load_average_1min: float | None = None
    available_memory_bytes: int | None = None
    cpu_pressure_percent: float | None = None
    expected_clock_mhz: float | None = None
    throttling: tuple[str, ...] = ()
    power_mode: str | None = None
    memory_pressure_percent: float | None = None


def read_conditions(
    root: Path = Path("/"), *, with_power_mode: bool = True, throttled: ThrottleState | None = None
) -> Conditions:
    """Return the conditions now, from the kernel's files and the vendor's programs below `root`.

    Args:
        root: Where the board's files are read.
        with_power_mode: It changes when somebody changes it, and asking for it starts a program: who reads often
            leaves it out.
        throttled: The board's throttling, where that was just read.
    """
    throttled = throttled or read_throttling(root)
    return Conditions(
        temperature_c=read_temperature_c(root),
        clock_mhz=mean_clock_mhz(root),
        governor=governor(root),
        load_average_1min=read_load_average(root),
        available_memory_bytes=available_memory_bytes(root),
        cpu_pressure_percent=_pressure_percent(root, "cpu"),
        throttling=throttled.active,
        power_mode=power_mode(root) if with_power_mode else None,
        memory_pressure_percent=_pressure_percent(root, "memory"),
    )


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return what a new process could be given without swapping, within the limits of the agent's own cgroups."""
    kib = find_number(r"^MemAvailable:\s*(\d+) kB", read_text(root / "proc/meminfo"))
    known = [None if kib is None else int(kib) * 1024, memory_headroom_bytes(root)]
    return min((available for available in known if available is not None), default=None)


def governor(root: Path = Path("/")) -> str | None:
    """Return the governor of the first core; None without cpufreq."""
    return read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def power_mode(root: Path = Path("/")) -> str | None:
    """Return a Jetson's power mode; None on other boards.

    `nvpmodel -q` prints `NV Power Mode: MODE_15W_6CORE`, then the mode's number on a line of its own; some
    releases tell of the fan first.
    """
    return find_text(r"^NV Power Mode: *(\S+)", run_tool(root, "nvpmodel", "-q"))


def zone_temperatures_c(root: Path = Path("/")) -> tuple[float, ...]:
    """Return the plausible temperatures of the thermal zones."""
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))
    readings = [value / 1000 for value in map(read_number, zones) if value is not None]
    return tuple(value for value in readings if PLAUSIBLE_C.start <= value < PLAUSIBLE_C.stop)


def read_temperature_c(root: Path) -> float | None:
    """Return the temperature of the hottest zone in °C; None where no zone tells a plausible one."""
    return max(zone_temperatures_c(root), default=None)


def read_load_average(root: Path) -> float | None:
    """Return how many tasks ran or waited to run, on average over the last minute; None where nobody tells."""
    return find_number(r"^(\S+)", read_text(root / "proc/loadavg"))


def _pressure_percent(root: Path, resource: str) -> float | None:
    return find_number(r"^some avg10=(\S+)", read_text(root / f"proc/pressure/{resource}"))
