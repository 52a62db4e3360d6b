"""The energy counters of x86 processors (RAPL), through the kernel's powercap class.

    $ cd /sys/class/powercap; grep . intel-rapl:?/{name,energy_uj,max_energy_range_uj}
    intel-rapl:0/name:package-0
    intel-rapl:0/energy_uj:118294520413              µJ, root only
    intel-rapl:0/max_energy_range_uj:262143328850    µJ, then it starts from 0 again
    intel-rapl:1/name:psys

AMD processors appear under the same names. Added up are the packages: `intel-rapl:N:M` are parts of package N
(core, uncore) or not in it (dram, which is therefore not covered), and `intel-rapl-mmio` shows package 0 a
second time. `psys` is to cover the whole platform, but what is wired to it differs from maker to maker, it
reads 0 on some processors and nothing tells; so it is a source of its own, `rapl-psys`, below the packages.

The counter moves about every millisecond. Since CVE-2020-8694 (PLATYPUS) only root may read it.

Source: docs.kernel.org/power/powercap/powercap.html; Intel SDM volume 3, section 15.10.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.files import read_text
from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, Reading, Scope, SensorMissingError, trial_reading
from device_agent.sensors.rails import read_value

GRANT = (
    "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj, and for every boot the udev rule"
    ' SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", RUN+="/bin/chmod a+r /sys/%p/energy_uj"'
)
# Shorter stretches would mostly show the counter's own steps of a millisecond.
MIN_STRETCH_S = 0.05
STANDSTILL_S = 1.0
# A counter that was reset looks like one that wrapped, but for a leap that no processor can draw.
LEAP_MW = 1e6
STEP_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Rapl:
    """Counters of the zones of one kind.

    Attributes:
        zones: Pattern of the zones' names.
        clock: Monotonic time in seconds.
        wait: Waits so many seconds.
    """

    name: str
    scope: Scope
    zones: str
    calibration: str = field(default="", init=False)
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter that counts from now on.

        Raises:
            SensorMissingError: If the processor or the kernel has no such counter.
            SensorError: If it cannot be read.
        """
        folders = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
        zones = {
            name: folder
            for folder in folders
            if folder.name.count(":") == 1
            and re.fullmatch(self.zones, name := read_text(folder / "name") or "")
        }
        if not zones:
            raise SensorMissingError(
                f"no {self.name} counter below {root / 'sys/class/powercap'}; x86 processors have it outside of"
                " virtual machines: sudo modprobe intel_rapl_msr"
            )
        return RaplMeter(list(zones.values()), " + ".join(zones), clock=self.clock, wait=self.wait)


PACKAGES = Rapl(name="rapl", scope=Scope.SOC, zones=r"package-\d+(-die-\d+)?")
PSYS = Rapl(name="rapl-psys", scope=Scope.BOARD, zones="psys")


class RaplMeter:
    """Adds up counters since it was made; power is the mean over the stretch since an earlier reading."""

    def __init__(
        self,
        folders: Sequence[Path],
        covers: str,
        *,
        clock: Callable[[], float],
        wait: Callable[[float], None],
    ) -> None:
        """Take the zones' folders and start to count.

        Raises:
            SensorError: If a counter cannot be read.
        """
        self.covers = covers
        self._clock = clock
        self._wait = wait
        self._counters = [_Counter(folder) for folder in folders]
        start = Reading(time_s=clock(), power_mw=0.0, energy_mj=0.0)
        self._anchor = start
        self._last = start
        self._moved_s = start.time_s
        self._started = False

    def read(self) -> Reading:
        """Return the energy since the meter was made.

        Raises:
            SensorError: If a counter cannot be read, stands still or was reset.
        """
        if not self._started:
            self._wait(max(0.0, self._anchor.time_s + MIN_STRETCH_S - self._clock()))
        energy_mj = sum(counter.energy_mj() for counter in self._counters)
        now_s = self._clock()
        self._check(energy_mj, now_s)
        stretch_s = now_s - self._anchor.time_s
        if stretch_s < MIN_STRETCH_S and self._started:
            self._last = Reading(time_s=now_s, power_mw=self._last.power_mw, energy_mj=energy_mj)
        else:
            power_mw = (energy_mj - _energy_mj(self._anchor)) / stretch_s
            self._last = self._anchor = Reading(time_s=now_s, power_mw=power_mw, energy_mj=energy_mj)
        self._started = True
        return self._last

    def close(self) -> None:
        """Do nothing: every reading opens its files anew."""

    def _check(self, energy_mj: float, now_s: float) -> None:
        last_mj, last_s = _energy_mj(self._last), self._last.time_s
        if energy_mj > last_mj:
            self._moved_s = now_s
        elif now_s - self._moved_s > (STANDSTILL_S if self._started else 0.0):
            raise SensorError(
                f"the counter of {self.covers} stands still for {now_s - self._moved_s:.2f} s; this machine does"
                " not count its energy; use another power source"
            )
        if energy_mj - last_mj > LEAP_MW * (now_s - last_s + STEP_S):
            raise SensorError(
                f"the counter of {self.covers} leapt by {energy_mj - last_mj:.0f} mJ in {now_s - last_s:.2f} s;"
                " it was reset meanwhile (did the machine sleep?); measure again"
            )


def _energy_mj(reading: Reading) -> float:
    return reading.energy_mj or 0.0


class _Counter:
    """One counter, from 0 on and without its wraps. It must be read more often than it wraps."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range_uj = read_value(folder / "max_energy_range_uj")
        self._last_uj = read_value(self._file, grant=GRANT)
        self._counted_uj = 0

    def energy_mj(self) -> float:
        """Return the energy since the counter was made."""
        value_uj = read_value(self._file, grant=GRANT)
        step_uj = value_uj - self._last_uj
        self._counted_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = value_uj
        return self._counted_uj / 1000
