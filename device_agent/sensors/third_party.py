"""Power sources that other packages bring, and what keeps the agent safe from them.

Each is the entry point of a distribution, in the group `edgenas.sensors`, and names a class or a function that takes
nothing and returns a `PowerSource`. Whatever a stranger's package raises becomes a SensorError: it costs the energy
of a job, and neither its latency nor the agent.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, PowerSource, Reading, Scope

logger = logging.getLogger(__name__)

ENTRY_POINTS = "edgenas.sensors"


def third_party_sources() -> tuple[PowerSource, ...]:
    """Return the sources of all entry points; of one that cannot be made, one that says why."""
    return tuple(map(_source, entry_points(group=ENTRY_POINTS)))


def _source(entry: EntryPoint) -> PowerSource:
    try:
        made: PowerSource = entry.load()()
        return ThirdPartySource(
            name=made.name,
            scope=Scope(made.scope),
            calibration=made.calibration,
            where=entry.value,
            source=made,
        )
    except Exception as error:
        return BrokenSource(name=entry.name, reason=str(_failure(entry.value, error)))


def _failure(where: str, error: Exception) -> SensorError:
    logger.warning("the power source %s fails", where, exc_info=error)
    text = " ".join(repr(error).split())
    return SensorError(f"{where} fails with {text}; update the package that brings it, or remove it")


@contextlib.contextmanager
def _failing_as_a_sensor(where: str) -> Iterator[None]:
    try:
        yield
    except SensorError:
        raise
    except Exception as error:
        raise _failure(where, error) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdPartySource:
    """A third party's source.

    Attributes:
        where: Module and name, for a person.
        source: What that made.
    """

    name: str
    scope: Scope
    calibration: str
    where: str
    source: PowerSource

    def absent_reason(self, root: Path) -> str | None:
        """Return why it cannot be read, or how it fails."""
        try:
            return self.source.absent_reason(root)
        except Exception as error:
            return str(_failure(self.where, error))

    def open(self, root: Path) -> PowerMeter:
        """Return a meter, or raise SensorError."""
        with _failing_as_a_sensor(self.where):
            meter = self.source.open(root)
            return ThirdPartyMeter(covers=meter.covers, where=self.where, meter=meter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdPartyMeter:
    """A third party's source that is being read."""

    covers: str
    where: str
    meter: PowerMeter

    def read(self) -> Reading:
        """Return a fresh reading, or raise SensorError."""
        with _failing_as_a_sensor(self.where):
            return self.meter.read()

    def close(self) -> None:
        """Free what it holds, or raise SensorError."""
        with _failing_as_a_sensor(self.where):
            self.meter.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenSource:
    """Stands for a third party's source that cannot even be made."""

    name: str
    reason: str
    scope: Scope = field(default=Scope.BOARD, init=False)
    calibration: str = field(default="", init=False)

    def absent_reason(self, root: Path) -> str | None:
        """Return why."""
        return self.reason

    def open(self, root: Path) -> PowerMeter:
        """Raise SensorError."""
        raise SensorError(self.reason)
