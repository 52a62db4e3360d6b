"""What every power source offers.

A source is where a board's power might be read; a meter is a source that was opened for one measurement.
Every source reads below a root path, so that a test can point it at a tree of its own.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from device_agent.errors import SensorError


class SensorMissingError(SensorError):
    """The board has no such sensor: nothing is there that could be made to work."""


class Scope(Enum):
    """What a reading covers: a chip, a module with its memory, all that the supply delivers, or a GPU card."""

    SOC = "soc"
    BOARD = "board"
    INPUT = "input"
    GPU = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading.

    Attributes:
        time_s: On the clock of `time.monotonic`, when the value was read.
        power_mw: Power at that time, in milliwatts, positive while power is drawn.
        energy_mj: Energy since the meter was opened, in millijoules, where the source counts energy; None
            where it tells power alone. Never decreases: wrap-around is undone.
    """

    time_s: float
    power_mw: float
    energy_mj: float | None = None


class PowerMeter(Protocol):
    """A source that is being read. Its owner calls `close()`.

    Attributes:
        covers: What exactly is read, for a person, e.g. `VDD_IN` or `package-0 + package-1`.
    """

    @property
    def covers(self) -> str: ...  # noqa: D102 (described above)

    def read(self) -> Reading:
        """Return a fresh reading.

        Raises:
            SensorError: If the sensor gives none, in one line with what to do.
        """
        ...

    def close(self) -> None:
        """Free what the meter holds."""
        ...


class PowerSource(Protocol):
    """Somewhere that a board's power might be read.

    Attributes:
        name: What a user asks for, e.g. `ina2xx`.
        scope: What its readings cover.
        calibration: The correction applied to its readings; empty for none.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 (described above)

    @property
    def scope(self) -> Scope: ...  # noqa: D102

    @property
    def calibration(self) -> str: ...  # noqa: D102

    def absent_reason(self, root: Path) -> str | None:
        """Return why this source cannot be read below `root` and what to do; None where it can."""
        ...

    def open(self, root: Path) -> PowerMeter:
        """Return a meter.

        Raises:
            SensorMissingError: If the board has no such sensor.
            SensorError: If it has one that cannot be read.
        """
        ...


def trial_reading(source: PowerSource, root: Path) -> str | None:
    """Return why a source gives no reading; None where it gives one. Nothing else proves that it will."""
    try:
        meter = source.open(root)
        try:
            meter.read()
        finally:
            meter.close()
    except SensorError as error:
        return str(error)
    return None
