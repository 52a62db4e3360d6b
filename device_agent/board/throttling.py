"""What slows the board down, and what slowed it down between two moments.

Four places tell, and a board has one or two of them: a Raspberry Pi's firmware (`vcgencmd get_throttled`),
the thermal counters of x86, the over-current counters of a Jetson with JetPack 5 or later, and the cooling
devices of Linux. What a board does not have is absent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_agent.board.commands import run_tool
from device_agent.board.files import cpu_number, read_integer, read_text

# Bit n holds now; bit n + SINCE_BOOT held at some time since the board was started.
# Source: raspberrypi.com/documentation/computers/os.html, get_throttled.
FIRMWARE_BITS = {0: "under-voltage", 1: "arm frequency capped", 2: "throttled", 3: "soft temperature limit"}
SINCE_BOOT = 16

# Cooling devices that cool by slowing down, unlike fans, and alerts that only report that they do. Jetson's
# hot-surface-alert is left out: it warns, and changes no clock.
#   cpufreq-cpu0, devfreq-17000000.gpu     Linux since 5.12      (drivers/thermal/{cpufreq,devfreq}_cooling.c)
#   thermal-cpufreq-0, thermal-devfreq-0   before
#   idle-cpu0, thermal-idle-0              injected idle time     (drivers/thermal/cpuidle_cooling.c)
#   Processor, intel_powerclamp            x86: P- and T-states, injected idle time
#   cpu-throttle-alert, soc0-throttle-alert, gpu-balanced, tegra-heavy          Jetson
SLOWING = re.compile(
    r"(thermal-)?(cpufreq|devfreq|idle)(-.*)?|Processor|intel_powerclamp"
    r"|(.*-)?throttle-alert|.*[-_]balanced|tegra[-_]heavy"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleState:
    """What the board tells about throttling at one moment.

    Attributes:
        firmware_bits: A Raspberry Pi's `get_throttled`; None on other boards.
        counters: File and owner of each counter of throttling events, e.g. `core_throttle_count` of `cpu0`,
            with its value.
        cooling: Each kind of cooling device that cools by slowing down, with the strongest state that one of
            them is in; 0 while it is off.
    """

    firmware_bits: int | None = None
    counters: tuple[tuple[str, str, int], ...] = ()
    cooling: tuple[tuple[str, int], ...] = ()

    @property
    def active(self) -> tuple[str, ...]:
        """Names of what slows the board down right now."""
        return (
            *_bit_names(self.firmware_bits or 0),
            *(kind for kind, state in self.cooling if state > 0),
        )

    @property
    def since_boot(self) -> tuple[str, ...]:
        """Names of what the firmware remembers to have slowed the board down since it was started."""
        return _bit_names((self.firmware_bits or 0) >> SINCE_BOOT)

    @property
    def is_reported(self) -> bool:
        """Whether the board has anything that tells about throttling."""
        return self.firmware_bits is not None or bool(self.counters or self.cooling)


def read_throttling(root: Path = Path("/")) -> ThrottleState:
    """Return what the board tells now."""
    return ThrottleState(
        firmware_bits=_firmware_bits(root),
        counters=(*_thermal_counters(root), *_over_current_counters(root)),
        cooling=_cooling(root),
    )


def raised(before: ThrottleState, after: ThrottleState) -> tuple[str, ...]:
    """Return, a line each, what slowed the board down between two moments or at one of them.

    The firmware's memory is never cleared, so what it remembered before is found only while it lasts.
    """
    return (*_raised_bits(before, after), *_raised_counters(before, after), *_cooled(before, after))


def _raised_bits(before: ThrottleState, after: ThrottleState) -> Iterator[str]:
    if before.firmware_bits is None or after.firmware_bits is None:
        # One look failed: what holds now is known, what is new is not.
        first = last = before.firmware_bits or after.firmware_bits or 0
    else:
        first, last = before.firmware_bits, after.firmware_bits
    new = (last & ~first) >> SINCE_BOOT
    for bit, name in FIRMWARE_BITS.items():
        if (first | last | new) >> bit & 1:
            yield f"{name}: get_throttled went from {first:#x} to {last:#x}"


def _raised_counters(before: ThrottleState, after: ThrottleState) -> Iterator[str]:
    earlier = {(file, owner): value for file, owner, value in before.counters}
    largest: dict[str, tuple[int, str]] = {}
    for file, owner, value in after.counters:
        # A core that was taken offline in between starts from 0, and a new counter has no beginning.
        growth = value - earlier.get((file, owner), value)
        if growth > largest.get(file, (0, ""))[0]:
            largest[file] = growth, owner
    for file, (growth, owner) in largest.items():
        yield f"{file} of {owner} grew by {growth}"


def _cooled(before: ThrottleState, after: ThrottleState) -> Iterator[str]:
    first, last = dict(before.cooling), dict(after.cooling)
    for kind in dict.fromkeys((*first, *last)):
        states = first.get(kind, 0), last.get(kind, 0)
        if max(states) > 0:
            yield f"cooling device {kind} in state {states[0]} before and {states[1]} after"


def _bit_names(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in FIRMWARE_BITS.items() if bits >> bit & 1)


def _firmware_bits(root: Path) -> int | None:
    """Return the word in e.g. `throttled=0x50005`."""
    match = re.search(
        r"^throttled=0x([0-9a-fA-F]+)$", run_tool(root, "vcgencmd", "get_throttled") or "", re.M
    )
    return int(match.group(1), 16) if match else None


def _thermal_counters(root: Path) -> Iterator[tuple[str, str, int]]:
    """Source: Linux, arch/x86/kernel/cpu/mce/therm_throt.c; every core repeats its package's counter."""
    for path in sorted(
        root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"),
        key=lambda path: (path.name, cpu_number(path)),
    ):
        value = read_integer(path)
        if value is not None:
            yield path.name, f"cpu{cpu_number(path)}", value


def _over_current_counters(root: Path) -> Iterator[tuple[str, str, int]]:
    """Yield e.g. `sys/class/hwmon/hwmon3/oc3_event_cnt`; on an Orin oc1 is under-voltage.

    Source: NVIDIA's tegra23x-oc-event driver, and the Jetson Linux developer guide, "Over-current
    throttling". Events that `ocN_throt_en` says to throttle nothing do not count.
    """
    for path in sorted(root.glob("sys/class/hwmon/hwmon*/oc[0-9]*_event_cnt")):
        value = read_integer(path)
        throttles = read_integer(path.with_name(path.name.replace("event_cnt", "throt_en")))
        if value is not None and throttles != 0:
            yield path.name, read_text(path.parent / "name") or path.parent.name, value


def _cooling(root: Path) -> tuple[tuple[str, int], ...]:
    strongest: dict[str, int] = {}
    for folder in sorted(root.glob("sys/class/thermal/cooling_device*")):
        kind = read_text(folder / "type")
        state = read_integer(folder / "cur_state")
        if kind is not None and state is not None and SLOWING.fullmatch(kind):
            # intel_powerclamp is at -1 while it is off.
            strongest[kind] = max(state, strongest.get(kind, 0))
    return tuple(strongest.items())
