"""The state of the board around a measurement, read from the kernel's files below a root path."""

import re
from dataclasses import dataclass
from pathlib import Path

# Zones whose sensor is off report values such as -274 °C: nothing a running board can have.
PLAUSIBLE_C = range(-40, 151)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What the board tells about itself at one moment; what it cannot tell is None.

    `temperature_c` is of the hottest zone, `clock_mhz` the mean of the cores, `governor` of the first core;
    `cpu_pressure_percent` is the share of ten seconds in which some task waited for a CPU.
    """

    temperature_c: float | None = None
    clock_mhz: float | None = None
    governor: str | None = None
    load_average_1min: float | None = None
    available_memory_bytes: int | None = None
    cpu_pressure_percent: float | None = None


def read_conditions(root: Path = Path("/")) -> Conditions:
    """Return the conditions now, from `proc` and `sys` below `root`."""
    return Conditions(
        temperature_c=_temperature_c(root),
        clock_mhz=_clock_mhz(root),
        governor=read_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load_average_1min=_load_average(root),
        available_memory_bytes=_available_memory_bytes(root),
        cpu_pressure_percent=_cpu_pressure_percent(root),
    )


def read_text(path: Path) -> str | None:
    """Return a kernel file's text without surrounding blanks and NULs; None where there is none to read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Absent, or a sensor that answers with EAGAIN or ENODATA: either way the board does not tell.
        return None
    return text.strip("\0 \t\n") or None


def read_number(path: Path) -> float | None:
    """Return the number that a kernel file holds; None where there is none."""
    return _number(read_text(path))


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return None
    return float(text)


def _first_group(pattern: str, text: str | None) -> float | None:
    match = re.search(pattern, text or "", re.MULTILINE)
    return _number(match.group(1)) if match else None


def _temperature_c(root: Path) -> float | None:
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))
    readings = [value / 1000 for value in map(read_number, zones) if value is not None]
    plausible = [value for value in readings if PLAUSIBLE_C.start <= value < PLAUSIBLE_C.stop]
    return max(plausible, default=None)


def _clock_mhz(root: Path) -> float | None:
    files = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    clocks = [value / 1000 for value in map(read_number, files) if value is not None]
    if not clocks:
        # Virtual machines have no cpufreq, but x86 kernels still print a clock.
        text = read_text(root / "proc/cpuinfo") or ""
        clocks = [
            float(value) for value in re.findall(r"^cpu MHz\s*:\s*(\d+(?:\.\d+)?)$", text, re.MULTILINE)
        ]
    return sum(clocks) / len(clocks) if clocks else None


def _load_average(root: Path) -> float | None:
    return _first_group(r"^(\S+)", read_text(root / "proc/loadavg"))


def _available_memory_bytes(root: Path) -> int | None:
    kib = _first_group(r"^MemAvailable:\s*(\d+) kB", read_text(root / "proc/meminfo"))
    return None if kib is None else int(kib) * 1024


def _cpu_pressure_percent(root: Path) -> float | None:
    return _first_group(r"^some avg10=(\S+)", read_text(root / "proc/pressure/cpu"))
