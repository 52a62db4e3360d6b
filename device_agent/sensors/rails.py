"""Meters made of kernel files, each a whole number in a unit that the driver's documentation names."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import SensorError
from device_agent.sensors.base import Reading

# Nothing that this agent runs on draws less or more; a wrong unit or shunt is off by a factor of 1,000.
PLAUSIBLE_MW = (1.0, 1e6)


def read_value(path: Path, *, grant: str = "") -> int:
    """Return the whole number that a kernel file holds.

    Args:
        path: The file.
        grant: How to give the agent the right to read it; empty for a plain chmod.

    Raises:
        SensorError: If it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except PermissionError as error:
        grant = grant or f"sudo chmod a+r {path}"
        raise SensorError(f"no right to read {path}; run the agent as root or grant it: {grant}") from error
    except OSError as error:
        raise SensorError(
            f"cannot read {path}: {error.strerror}; check that the sensor is still connected (dmesg tells)"
        ) from error
    try:
        return int(text)
    except ValueError as error:
        raise SensorError(
            f"{path} holds {text!r}; expected a whole number; update the kernel or its driver"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """A supply line. Its power is the product of some files, e.g. millivolts times milliamperes.

    Attributes:
        name: As the board labels it.
        factors: The files.
        to_mw: What their product must be multiplied by to be milliwatts.
    """

    name: str
    factors: tuple[Path, ...]
    to_mw: float

    def power_mw(self) -> float:
        """Return the rail's power now; negative where its current flows backwards.

        Raises:
            SensorError: If a file cannot be read.
        """
        return math.prod(read_value(path) for path in self.factors) * self.to_mw


class RailMeter:
    """Adds up rails.

    A shunt may be wired in either direction and drivers differ in the sign of a current, so what counts is
    the magnitude. But a sign that changes half-way means that something is charged, too: no measure of load.
    """

    def __init__(
        self,
        rails: Sequence[Rail],
        covers: str,
        *,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what to read.

        Args:
            rails: At least one.
            covers: What they add up to, for a person.
            check: Called before each reading; raises SensorError where a reading would mean nothing.
            clock: Monotonic time in seconds.
        """
        self.covers = covers
        self._rails = tuple(rails)
        self._check = check
        self._clock = clock
        self._sign = 0.0

    def read(self) -> Reading:
        """Return the sum of the rails.

        Raises:
            SensorError: If a rail cannot be read, or the sum is nothing a running board can draw.
        """
        self._check()
        before_s = self._clock()
        total_mw = math.fsum(rail.power_mw() for rail in self._rails)
        # Each file is a transfer on the I2C bus; together they stand for the middle of the time they took.
        time_s = (before_s + self._clock()) / 2
        return Reading(time_s=time_s, power_mw=self._drawn_mw(total_mw))

    def close(self) -> None:
        """Do nothing: every reading opens its files anew."""

    def _drawn_mw(self, total_mw: float) -> float:
        low, high = PLAUSIBLE_MW
        if not low <= abs(total_mw) <= high:
            raise SensorError(
                f"{self.covers} reads {total_mw:g} mW; expected {low:g} to {high:g}; check that its shunt"
                " is in the supply line and that its resistance is set"
            )
        sign = math.copysign(1.0, total_mw)
        if self._sign not in (0.0, sign):
            raise SensorError(
                f"{self.covers} reversed its direction to {total_mw:g} mW; expected a load alone; measure"
                " where no battery is charged"
            )
        self._sign = sign
        return abs(total_mw)
