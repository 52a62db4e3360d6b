"""The power management chip of a Raspberry Pi 5, through its firmware.

    $ vcgencmd pmic_read_adc
     3V7_WL_SW_A current(0)=0.00195186A
       3V3_SYS_A current(1)=0.12687090A
      VDD_CORE_A current(7)=0.56259000A
     3V7_WL_SW_V volt(8)=3.70720000V
       3V3_SYS_V volt(9)=3.32580900V
      VDD_CORE_V volt(15)=0.76798460V
         EXT5V_V volt(24)=5.14158000V
          BATT_V volt(25)=3.28033900V
    (12 rails have both lines; EXT5V and BATT, the input and the clock's battery, have no current)

There is no total. Added up are the rails, V × A: what the chip's converters deliver. Their own losses are not
in it, nor is anything that hangs at 5 V directly: USB, HATs, the fan. Whoever compared a Pi with a meter in
its supply may give the straight line that they found, as JSON: {"slope": 1.15, "intercept_mw": 590}, so that
power = slope × sum + intercept. It is named wherever its figures are.

Source: Raspberry Pi Ltd, white paper "Extra PMIC features on Raspberry Pi 4, Raspberry Pi 5, and
Compute Module 4"; github.com/raspberrypi/utils, vcgencmd.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.board.commands import find_tool, run_tool
from device_agent.board.files import read_text
from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, Reading, Scope, SensorMissingError, trial_reading
from device_agent.sensors.json_file import read_numbers

TOOL = ("vcgencmd", "pmic_read_adc")
OLDER = re.compile(r"Raspberry Pi (?!(?:Compute Module )?5)")
LINE = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+\.\d+)[AV]\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCalibration:
    """A straight line from the sum of the rails to the supply's power; `file` is where it comes from."""

    slope: float
    intercept_mw: float
    file: str

    def __str__(self) -> str:
        """Return the line for a person."""
        return f"{self.slope:g} × sum of rails {self.intercept_mw:+g} mW ({self.file})"


def read_calibration(path: Path) -> LinearCalibration:
    """Return the calibration that a user wrote down.

    Raises:
        SensorError: If the file holds none.
    """
    numbers = read_numbers(path, ("slope", "intercept_mw"))
    if numbers["slope"] <= 0:
        raise SensorError(f"{path} has slope = {numbers['slope']:g}; expected a positive number")
    return LinearCalibration(slope=numbers["slope"], intercept_mw=numbers["intercept_mw"], file=path.name)


def older_pi(root: Path) -> str | None:
    """Return the model's name where the board is a Raspberry Pi without this chip; None elsewhere."""
    model = read_text(root / "proc/device-tree/model")
    return model if model is not None and OLDER.match(model) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RaspberryPiPmic:
    """The rails of a Raspberry Pi 5, straightened by a line if one is given."""

    line: LinearCalibration | None = None
    name: str = field(default="pi-pmic", init=False)
    scope: Scope = field(default=Scope.BOARD, init=False)

    @property
    def calibration(self) -> str:
        """The line for a person; empty for none."""
        return "" if self.line is None else str(self.line)

    def absent_reason(self, root: Path) -> str | None:
        """Return why there is no reading; None where there is one."""
        return trial_reading(self, root)

    def open(self, root: Path) -> PowerMeter:
        """Return a meter of all rails.

        Raises:
            SensorMissingError: If this is no Raspberry Pi, or one that is too old.
            SensorError: If its firmware does not answer.
        """
        older = older_pi(root)
        if older is not None:
            raise SensorMissingError(
                f"a {older} has no power sensor of its own; a Raspberry Pi 5 has one; add an INA219 or INA226"
                " in the supply line"
            )
        if find_tool(root, TOOL[0]) is None:
            raise SensorMissingError(
                f"no {TOOL[0]} below {root / 'usr/bin'}; on a Raspberry Pi 5: sudo apt install raspi-utils;"
                " elsewhere add an INA226 in the supply line"
            )
        rails = _rails_mw(root)
        if not rails:
            raise SensorError(
                f"{' '.join(TOOL)} tells no rails; expected 12; update the firmware: sudo rpi-eeprom-update -a"
            )
        return PmicMeter(root, frozenset(rails), self.line)


class PmicMeter:
    """Runs the tool for every reading, some milliseconds of one core each."""

    def __init__(
        self,
        root: Path,
        rails: frozenset[str],
        line: LinearCalibration | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.covers = f"{len(rails)} PMIC rails, without USB and other 5 V loads"
        self._root = root
        self._rails = rails
        self._line = line
        self._clock = clock

    def read(self) -> Reading:
        """Return the sum of all rails, calibrated.

        Raises:
            SensorError: If the firmware does not answer, or leaves out a rail.
        """
        before_s = self._clock()
        rails = _rails_mw(self._root)
        time_s = (before_s + self._clock()) / 2
        if rails.keys() != self._rails:
            gone = ", ".join(sorted(self._rails ^ rails.keys()))
            raise SensorError(
                f"{' '.join(TOOL)} now differs in {gone}; run it by hand, and restart the board"
            )
        power_mw = sum(rails.values())
        if self._line is not None:
            power_mw = self._line.slope * power_mw + self._line.intercept_mw
        if power_mw <= 0:
            raise SensorError(
                f"the rails add up to {power_mw:g} mW; expected more than 0; check the calibration"
            )
        return Reading(time_s=time_s, power_mw=power_mw)

    def close(self) -> None:
        """Do nothing: every reading is a process of its own."""


def _rails_mw(root: Path) -> dict[str, float]:
    """Return the power of each rail that has a current and a voltage."""
    text = run_tool(root, *TOOL)
    if text is None:
        raise SensorError(
            f"{' '.join(TOOL)} fails; run it by hand, and give the agent's user the right to /dev/vcio:"
            " sudo usermod -aG video USER"
        )
    values = {(rail, unit): float(value) for rail, unit, value in LINE.findall(text)}
    return {
        rail: 1000 * current * values[rail, "V"]
        for (rail, unit), current in values.items()
        if unit == "A" and (rail, "V") in values
    }
