"""What this board is like when nothing disturbs it: learnt from its own jobs, kept between starts of the agent."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# One definition for both sides: the worker decides by these when to pause, the agent what it learns.
from device_agent.worker import SLOWER_SHARE, fast_edge, quantile

logger = logging.getLogger(__name__)

BASELINES_FILE = "baselines.json"
REMEMBERED = 40
# So many readings in a row that are all slower than usual: the board has become slower for good.
LASTING = 10
# Disturbances only ever make a board slower. On a shared virtual machine, whose speed wandered by 15 %, the fastest
# quarter's edge was one by which a fifth of jobs were too fast; by this share's 4 to 6 %.
USUAL_SHARE = 0.10
# Some boards have a slower state for seconds to minutes, in which the reference model takes 30 to 45 % longer (a
# virtual machine whose two processors share one core for a while).
STATE_SHARE = 0.10
# The clock that most jobs ran at, and that some ran a little above.
CLOCK_SHARE = 0.75
# A board that has not worked for so long is as cool as it gets where it stands.
IDLE_S = 300.0
SAVE_STEP_C = 1.0


class Baselines:
    """Recent readings by a key that names what they depend on. May be used from any thread."""

    def __init__(self, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """Read what an earlier agent learnt; without a path nothing is kept.

        A file that cannot be read is started anew: what it held is learnt again within a few jobs.

        Args:
            path: The file.
            clock: Seconds since the epoch, so that a new process knows when an earlier one has worked.
        """
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._readings: dict[str, list[float]] = {}
        self._idle_temperature_c: float | None = None
        self._saved_temperature_c: float | None = None
        self._worked_at_s: float | None = None
        if path is None or not path.exists():
            return
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self._readings = {
                key: [float(value) for value in values] for key, values in kept["readings"].items()
            }
            self._idle_temperature_c = _number(kept["idle_temperature_c"])
            self._worked_at_s = _number(kept["worked_at_s"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("cannot read the baselines in '%s', learning them anew: %s", path, error)
            self._readings, self._idle_temperature_c = {}, None

    def note_work(self) -> None:
        """Remember that the board has worked until now."""
        with self._lock:
            self._worked_at_s = self._clock()
            self._save()

    def learn_canary(self, key: str, latency_ms: float) -> None:
        """Remember what the reference model took in a job."""
        self._learn(f"canary_ms {key}", latency_ms)

    def canary_ms(self, key: str) -> float | None:
        """Return what the reference model takes on this board when nothing disturbs it."""
        with self._lock:
            values = self._readings.get(f"canary_ms {key}")
            if not values:
                return None
            usual_ms, lasting = _usual(values), values[-LASTING:]
            became_slower = len(lasting) == LASTING and min(lasting) > (1 + SLOWER_SHARE) * usual_ms
            return _usual(lasting) if became_slower else usual_ms

    def learn_clock(self, key: str, clock_mhz: float) -> None:
        """Remember the clock under load in a job."""
        self._learn(f"clock_mhz {key}", clock_mhz)

    def clock_mhz(self, key: str) -> float | None:
        """Return the clock that this board has under load when nothing slows it down."""
        with self._lock:
            values = self._readings.get(f"clock_mhz {key}")
            return quantile(values, CLOCK_SHARE) if values else None

    def idle_temperature_c(self, now_c: float, *, quiet: bool = True) -> float:
        """Return the temperature of the idle board, given its present one.

        A board that has rested is at its idle temperature, whatever it was on a colder day; otherwise the
        lowest that was seen since counts.

        Args:
            now_c: Present temperature in °C.
            quiet: Whether the board had nothing to do lately, whoever might have asked for it.
        """
        with self._lock:
            known = self._idle_temperature_c
            if known is None or now_c < known or (quiet and self._rested()):
                self._idle_temperature_c = now_c
                # It is asked several times a second, and sensors scatter by parts of a degree.
                if self._saved_temperature_c is None or abs(now_c - self._saved_temperature_c) >= SAVE_STEP_C:
                    self._save()
            assert self._idle_temperature_c is not None
            return self._idle_temperature_c

    def _rested(self) -> bool:
        if self._worked_at_s is None:
            return True
        # Work in the future was noted by a clock that has been set since: it tells nothing.
        return not 0 <= self._clock() - self._worked_at_s < IDLE_S

    def _learn(self, key: str, value: float) -> None:
        with self._lock:
            self._readings[key] = [*self._readings.get(key, []), value][-REMEMBERED:]
            self._save()

    def _save(self) -> None:
        if self._path is None:
            return
        self._saved_temperature_c = self._idle_temperature_c
        kept = {
            "readings": self._readings,
            "idle_temperature_c": self._idle_temperature_c,
            "worked_at_s": self._worked_at_s,
        }
        partial = self._path.with_suffix(".part")
        try:
            partial.write_text(json.dumps(kept), encoding="utf-8")
            partial.replace(self._path)
        except OSError as error:
            # A full disk must not fail a measurement; what is in memory goes on.
            logger.warning("cannot keep the baselines in '%s': %s", self._path, error.strerror)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def in_fast_state(readings: Sequence[float]) -> list[float]:
    """Return those latencies that were taken while the board was in its fastest state, in order; all where it has one.

    Of fewer than five even one is believed to show it: nothing makes a board faster than it is.
    """
    bound = (1 + STATE_SHARE) * fast_edge(readings)
    return [reading for reading in readings if reading <= bound]


def _usual(readings: Sequence[float]) -> float:
    return quantile(in_fast_state(readings), USUAL_SHARE)


def _number(value: object) -> float | None:
    if value is None or isinstance(value, (int, float)):
        return value
    raise ValueError(f"{value!r} where a number was expected")
