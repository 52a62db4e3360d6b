"""How long a search may go on."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from controller.core.errors import ConfigurationError
from controller.core.trial import Trial, TrialState

_MOST = 1e12
_CONFIRMING_S = 20.0  # one candidate of the front: ten seconds are timed at least, and test images judged
_THOROUGH = 4.0  # times as long as in the search, on average: boards wait for calm, and measure again
_CONFIRMING_SHARE = 0.25  # of a budget of time is kept for confirming the front at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When a search ends: after so many evaluated candidates, or so many seconds."""

    trials: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Return the budget written as a number of candidates, or a time with unit s, m or h.

        Raises:
            ConfigurationError: If text is neither.
        """
        match = re.fullmatch(r"(?P<number>\d+(\.\d+)?)(?P<unit>[smh]?)", text.strip())
        number = float(match["number"]) if match else 0.0
        if match is None or not 0 < number < _MOST or (not match["unit"] and number != int(number)):
            raise ConfigurationError(
                f"budget {text!r} is not understood; expected a number of candidates such as 200, or a time such as 30m or 2h"
            )
        if not match["unit"]:
            return cls(trials=int(number))
        return cls(seconds=number * {"s": 1, "m": 60, "h": 3600}[match["unit"]])

    def left_s(self, elapsed_s: float, told: Sequence[Trial], best: int) -> float:
        """Return the time that is left for candidates, without what confirming the front is likely to take.

        Args:
            elapsed_s: Spent by now.
            told: Candidates that are known: how calm the boards are tells more of how long one will take than what that
                one took before.
            best: How many of them are to be confirmed; the next may join them.

        Returns:
            Seconds, below 0 where it is over; infinite where the budget is no time.
        """
        if self.seconds is None:
            return math.inf
        kept_s = min((best + 1) * _each_s(told), _CONFIRMING_SHARE * self.seconds)
        return self.seconds - kept_s - elapsed_s

    def is_short(self, elapsed_s: float, told: Sequence[Trial], best: int) -> bool:
        """Return whether confirming the front is likely to take longer than the time that is left for it.

        Args:
            elapsed_s: Spent by now.
            told: Candidates that are known.
            best: How many are to be confirmed.
        """
        return self.seconds is not None and best * _each_s(told) > self.seconds - elapsed_s


def _each_s(told: Sequence[Trial]) -> float:
    """Return how long it is likely to take to confirm one candidate."""
    measuring_s = [trial.measuring_s for trial in told if trial.measuring_s]
    return _CONFIRMING_S + _THOROUGH * (statistics.fmean(measuring_s) if measuring_s else 0.0)


def counted(told: Sequence[Trial], epochs: int) -> float:
    """Return how many candidates count against a budget of them.

    A rejected one cost next to nothing, and one whose training was stopped its share of the epochs.
    """
    stopped = [trial for trial in told if trial.state is TrialState.STOPPED]
    others = sum(trial.state not in (TrialState.REJECTED, TrialState.STOPPED) for trial in told)
    return others + sum(trial.epochs for trial in stopped) / epochs
