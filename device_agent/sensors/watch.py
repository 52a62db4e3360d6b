"""The power drawn right now, for those who watch a board rather than measure on it."""

from collections.abc import Sequence
from pathlib import Path

from device_agent.errors import SensorError
from device_agent.sensors import modelled
from device_agent.sensors.base import PowerMeter, PowerSource
from device_agent.sensors.catalogue import choose


class PowerWatch:
    """Reads a power source again and again. Its owner calls `close()`."""

    def __init__(self, root: Path, wanted: str, sources: Sequence[PowerSource]) -> None:
        """Open a source, the best where none is named; a board without one is watched without power.

        The formula knows nothing of the power drawn now: where that is the agent's own source, a sensor is watched.
        """
        wanted = "" if wanted == modelled.NAME else wanted
        self._meter: PowerMeter | None = None
        try:
            self._meter = choose(root, wanted, sources=sources).open(root)
        except SensorError:
            return

    def power_mw(self) -> float | None:
        """Return the power in milliwatts; None where nothing tells it, or a sensor fails this once."""
        if self._meter is None:
            return None
        try:
            return self._meter.read().power_mw
        except SensorError:
            return None

    def close(self) -> None:
        """Let go of the source."""
        if self._meter is not None:
            self._meter.close()
