"""How the board is doing, a sample at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import psutil

from device_agent.board.conditions import Conditions, read_conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySample:
    """The board at one moment.

    `cpu_percent` covers all cores since the sample before; None at first. `power_mw` is None where no power
    source can be read.
    """

    time: datetime
    conditions: Conditions
    cpu_percent: float | None
    queued_jobs: int
    power_mw: float | None = None


class TelemetrySampler:
    """Takes the samples of one watcher.

    Args:
        root: Where the board's files are.
        read_power: Returns the power drawn now in milliwatts, or None; left out where nobody measures it.
    """

    def __init__(self, root: Path = Path("/"), read_power: Callable[[], float | None] | None = None) -> None:
        self._root = root
        self._read_power = read_power
        self._last: tuple[float, float] | None = None

    def sample(self, queued_jobs: int) -> TelemetrySample:
        """Return the board's state now."""
        return TelemetrySample(
            time=datetime.now(timezone.utc),
            conditions=read_conditions(self._root, with_power_mode=False),
            cpu_percent=self._cpu_percent(),
            queued_jobs=queued_jobs,
            power_mw=self._read_power() if self._read_power is not None else None,
        )

    def _cpu_percent(self) -> float | None:
        times = psutil.cpu_times()
        total_s = sum(times)
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        last, self._last = self._last, (total_s, idle_s)
        if last is None or total_s <= last[0]:
            return None
        busy_share = 1 - (idle_s - last[1]) / (total_s - last[0])
        return 100 * min(max(busy_share, 0.0), 1.0)
