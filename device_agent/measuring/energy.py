"""The energy pass: idle, then inferences, then idle again, while a power meter is read.

Energy is the integral of power over the inferences (trapezoids), or the difference of a counter where the
meter has one; divided by their number it is gross. Net leaves out what the board draws anyway: its mean power
while idle, before and after. The meter is read at the same pace throughout, so what reading costs cancels.

Source: Zeus (energy windows, counters before sampled power); the blocks are those of the latency's interval.
"""

import math
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from device_agent.benchmark import EnergyReading
from device_agent.errors import SensorError
from device_agent.sensors.base import PowerMeter, PowerSource, Reading

IDLE_S = 5.0
# The board's clock, its fan and meters that average over a second still show the load before.
SETTLE_S = 1.0
ACTIVE_S = 10.0
# What a pass takes with a sensor that is fast enough; some more for the looks around it.
PASS_S = 2 * (SETTLE_S + IDLE_S) + ACTIVE_S + 3.0
MIN_UPDATES = 50
MAX_ACTIVE_S = 60.0

INTERVAL_S = 0.02
MAX_INTERVAL_S = 0.5
# Reading may take a twentieth of the time: where a reading is a process of its own, it costs power, too.
IDLE_PER_READ = 20
# Two readings further apart than this say nothing of the power between them.
MAX_GAP_S = 2.0

BLOCK_S = 1.0
STANDARD_ERRORS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceWindow:
    """When a series of inferences began and ended, on the clock of `time.monotonic`, and how many they were."""

    begin_s: float
    end_s: float
    inferences: int


def integrate(readings: Sequence[Reading], begin_s: float, end_s: float) -> float:
    """Return the energy between two times in millijoules; between readings both are interpolated.

    Args:
        readings: In order of time, at least one at or before `begin_s` and one at or after `end_s`.
        begin_s: Begin, on the clock of the readings.
        end_s: End, after the begin.

    Raises:
        ValueError: If the readings do not cover the window.
    """
    if not begin_s < end_s or not readings or readings[0].time_s > begin_s or readings[-1].time_s < end_s:
        covered = f"{readings[0].time_s:g} to {readings[-1].time_s:g} s" if readings else "nothing"
        raise ValueError(f"the window {begin_s:g} to {end_s:g} s is not within the readings, {covered}")
    if readings[0].energy_mj is not None:
        return _energy_at(readings, end_s) - _energy_at(readings, begin_s)
    inner = [(reading.time_s, reading.power_mw) for reading in readings if begin_s < reading.time_s < end_s]
    points = [(begin_s, _power_at(readings, begin_s)), *inner, (end_s, _power_at(readings, end_s))]
    return math.fsum(
        (time_s - last_s) * (power + last_power) / 2
        for (last_s, last_power), (time_s, power) in pairwise(points)
    )


class EnergyPass:
    """Reads a meter through one energy pass. The caller runs the inferences and says when they were.

    In order: `idle()`, `sample_while(...)` during the inferences, `idle()`, `result(...)`. To find how many
    inferences are enough, ask `wants_more(begin_s)`. Each of the first three raises SensorError when the meter
    fails: there is no figure from half a pass.
    """

    def __init__(
        self,
        meter: PowerMeter,
        *,
        deadline_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take an open meter, which stays its owner's to close.

        Args:
            meter: What to read.
            deadline_s: When the pass must be over, on that clock; a slow sensor then has too few values.
            clock: Monotonic time in seconds, the meter's own.
            wait: Waits so many seconds; what it raises ends the pass, e.g. to cancel it.
        """
        self._meter = meter
        self._deadline_s = deadline_s
        self._clock = clock
        self._wait = wait
        self._readings: list[Reading] = []
        # When the sensor gave a new value: one that it repeats is not new.
        self._updates_s: list[float] = []
        self._idle_windows: list[tuple[float, float]] = []

    def idle(self) -> None:
        """Let the board settle, then read the meter for the time of one idle window."""
        settled_s = self._clock() + SETTLE_S
        end_s = settled_s + IDLE_S
        self.sample_while(lambda: self._clock() < end_s)
        self._idle_windows.append((settled_s, end_s))

    def sample_while(self, running: Callable[[], bool]) -> None:
        """Read the meter until `running` is False, and once more then: the window needs an end to it."""
        goes_on = True
        while goes_on:
            goes_on = running()
            before_s = self._clock()
            self._take(self._meter.read())
            took_s = self._clock() - before_s
            if goes_on:
                self._wait(min(MAX_INTERVAL_S, max(INTERVAL_S, IDLE_PER_READ * took_s)))

    def wants_more(self, begin_s: float) -> bool:
        """Tell whether inferences that began then have to go on, for the sensor's sake; at most for 60 s."""
        now_s = self._clock()
        if now_s - begin_s >= MAX_ACTIVE_S or now_s + SETTLE_S + IDLE_S + MAX_INTERVAL_S >= self._deadline_s:
            return False
        return now_s - begin_s < ACTIVE_S or self._updates(begin_s, now_s) < MIN_UPDATES

    def result(self, window: InferenceWindow, source: PowerSource) -> EnergyReading:
        """Return the energy of one inference.

        Args:
            window: The inferences, between two idle windows.
            source: Where the meter comes from.

        Raises:
            SensorError: If the readings do not support a figure, in one line with the reason.
        """
        begin_s, end_s = window.begin_s, window.end_s
        duration_s = end_s - begin_s
        updates = self._updates(begin_s, end_s)
        _check_window(window, updates, source.name)
        self._check_gaps([*self._idle_windows, (begin_s, end_s)])
        gross_mj = integrate(self._readings, begin_s, end_s)
        idle_mw, error_mw = self._idle_power()
        active_mw = gross_mj / duration_s
        if active_mw - idle_mw <= STANDARD_ERRORS * error_mw:
            raise SensorError(
                f"inference does not draw measurably more than idle: {active_mw:.0f} mW after"
                f" {idle_mw:.0f} ± {STANDARD_ERRORS * error_mw:.0f} mW by {source.name};"
                " quiet the board, or measure closer to the processor"
            )
        return EnergyReading(
            gross_mj=gross_mj / window.inferences,
            net_mj=(gross_mj - idle_mw * duration_s) / window.inferences,
            idle_mw=idle_mw,
            active_mw=active_mw,
            source=source.name,
            scope=source.scope.value,
            updates_per_s=updates / duration_s,
            inferences=window.inferences,
            calibration=source.calibration,
            covers=self._meter.covers,
        )

    def _take(self, reading: Reading) -> None:
        if self._readings and _value(reading) != _value(self._readings[-1]):
            self._updates_s.append(reading.time_s)
        self._readings.append(reading)

    def _updates(self, begin_s: float, end_s: float) -> int:
        return bisect_right(self._updates_s, end_s) - bisect_right(self._updates_s, begin_s)

    def _idle_power(self) -> tuple[float, float]:
        """Return the mean idle power and its standard error, both in milliwatts.

        From the means of blocks of a second, since one reading resembles the next. Where the board idles
        differently after than before, half of the difference is the error at least.
        """
        if len(self._idle_windows) < 2:
            raise SensorError("the board was not seen idle before and after the inferences; measure again")
        means = [
            [_mean_mw(self._readings, *block) for block in _blocks(*idle)] for idle in self._idle_windows
        ]
        blocks = [mean for window in means for mean in window]
        first_mw, last_mw = (math.fsum(window) / len(window) for window in (means[0], means[-1]))
        standard_error_mw = statistics.stdev(blocks) / math.sqrt(len(blocks))
        return statistics.fmean(blocks), max(standard_error_mw, abs(last_mw - first_mw) / 2)

    def _check_gaps(self, windows: Sequence[tuple[float, float]]) -> None:
        if self._readings[0].energy_mj is not None:
            # The counter goes on meanwhile.
            return
        for last, reading in pairwise(self._readings):
            gap_s = reading.time_s - last.time_s
            if gap_s > MAX_GAP_S and any(
                last.time_s < end_s and reading.time_s > begin_s for begin_s, end_s in windows
            ):
                raise SensorError(
                    f"the power meter was not read for {gap_s:.1f} s; expected {MAX_GAP_S:g} s at most; stop"
                    " what else runs on the board"
                )


def _check_window(window: InferenceWindow, updates: int, source: str) -> None:
    duration_s = window.end_s - window.begin_s
    if window.inferences < 1 or duration_s < ACTIVE_S:
        raise SensorError(
            f"{window.inferences} inferences in {duration_s:.1f} s; expected at least 1 in {ACTIVE_S:g} s;"
            " measure again"
        )
    if updates < MIN_UPDATES:
        raise SensorError(
            f"{source} gave {updates} new values in {duration_s:.0f} s; expected {MIN_UPDATES}; use a faster"
            " sensor, e.g. an INA226"
        )


def _blocks(begin_s: float, end_s: float) -> list[tuple[float, float]]:
    count = max(1, round((end_s - begin_s) / BLOCK_S))
    width_s = (end_s - begin_s) / count
    return [(begin_s + index * width_s, begin_s + (index + 1) * width_s) for index in range(count)]


def _mean_mw(readings: Sequence[Reading], begin_s: float, end_s: float) -> float:
    return integrate(readings, begin_s, end_s) / (end_s - begin_s)


def _value(reading: Reading) -> float:
    return reading.power_mw if reading.energy_mj is None else reading.energy_mj


def _power_at(readings: Sequence[Reading], time_s: float) -> float:
    return _interpolated(readings, time_s, lambda reading: reading.power_mw)


def _energy_at(readings: Sequence[Reading], time_s: float) -> float:
    return _interpolated(readings, time_s, _value)


def _interpolated(readings: Sequence[Reading], time_s: float, value: Callable[[Reading], float]) -> float:
    after = bisect_left(readings, time_s, key=lambda reading: reading.time_s)
    if readings[after].time_s == time_s:
        return value(readings[after])
    left, right = readings[after - 1], readings[after]
    share = (time_s - left.time_s) / (right.time_s - left.time_s)
    return value(left) + share * (value(right) - value(left))
