"""Which of several models is really faster on a device, told from medians of several fresh processes.

A process settles once where its memory lies and which cores it prefers, so the scatter inside one process
says little about the next. What is compared is therefore one median a process. The models take turns in
rounds, and two of them are compared within each round: what slows a whole round down cancels.

What three rounds can tell. Logarithms of medians are taken to be normal, and a t-distribution pays for not
knowing their scatter: with 3 processes it has 2 degrees of freedom, and the interval reaches 2.5 standard
deviations either way. Where the paired differences of two models scatter by 1 %, a difference of 2.5 % can be
told; of five models, whose ten comparisons share one error, the first needs 8 %. Smaller differences stay
undecided although they may be real; more rounds tell them apart: with 6 it is 1 % and 2 %. Normality cannot
be checked on 3 values. Scatter with heavier tails makes the test miss differences rather than invent them,
but a disturbance that falls on one model in every round looks like a difference: that is what flags are for.
No scatter is shared between models, since a small one may scatter more than a large one.

Among k models there are k (k - 1) / 2 comparisons. Each interval is a 95 % interval of its own; a difference
is called real where Holm's procedure over all of them rejects equality, so that the chance of calling any
difference real where there is none is at most 5 %.

Source: Holm 1979, A simple sequentially rejective multiple test procedure; Kalibera and Jones 2013, Rigorous
benchmarking in reasonable time, sections 6 and 9 (we differ: Student's t on logarithms instead of bootstrap).
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from controller.core.measurement import Measurement

CONFIDENCE = 0.95

RAW = "latency_ms"
DRIFT_CORRECTED = "drift_corrected_ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """One model's medians, one a process, in the order of the rounds.

    Attributes:
        name: What the model is called.
        medians_ms: As measured.
        drift_corrected_ms: At the canary's baseline speed; None where any process lacks it.
    """

    name: str
    medians_ms: tuple[float, ...]
    drift_corrected_ms: tuple[float, ...] | None

    @classmethod
    def of(cls, name: str, measured: Sequence[Measurement]) -> "Finalist":
        """Return the medians to compare a model by, from one measurement a process."""
        known = [found.drift_corrected_ms for found in measured if found.drift_corrected_ms is not None]
        return cls(
            name=name,
            medians_ms=tuple(found.latency.median_ms for found in measured),
            drift_corrected_ms=tuple(known) if len(known) == len(measured) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two models compare, paired by round.

    Attributes:
        first: The one whose time stands above in the ratio.
        second: The one below.
        ratio: Time of first over time of second, geometric mean over rounds.
        interval: Of the ratio, for this pair alone.
        p_value: Of equality, corrected for all comparisons on the device.
        real: Whether they differ at the 5 % level, corrected.
        basis: Which medians were compared: `latency_ms` or `drift_corrected_ms`.
        processes: Pairs compared.
    """

    first: str
    second: str
    ratio: float
    interval: Interval
    p_value: float
    real: bool
    basis: str
    processes: int

    @property
    def text(self) -> str:
        """The result as a sentence; "faster by 12 %" means 12 % less time."""
        fast, slow, ratio, interval = self.first, self.second, self.ratio, self.interval
        if ratio > 1:
            fast, slow, ratio = slow, fast, 1 / ratio
            interval = Interval(low=1 / interval.high, high=1 / interval.low)
        less, least, most = _percents(1 - ratio, 1 - interval.high, 1 - interval.low)
        how = f"paired over {self.processes} processes"
        if self.basis == DRIFT_CORRECTED:
            how += ", drift-corrected"
        if self.real:
            return f"{fast} is faster than {slow} by {less} % (95 % interval {least} to {most} %, {how})"
        measured = f"{fast} took {less} % less, 95 % interval {least} to {most} %, {how}"
        return f"{fast} and {slow} cannot be told apart ({measured}, corrected p {self.p_value:.2g})"


def between_processes(medians_ms: Sequence[float]) -> tuple[float, Interval]:
    """Return the median over processes and an interval of the typical process.

    Args:
        medians_ms: One positive median a process, at least two.

    Returns:
        The median, and a t-interval on the logarithms, stretched where it would not hold the median.

    Raises:
        ValueError: If there are fewer than two.
    """
    mean, half_width, _ = _t_interval(np.log(medians_ms))
    median = statistics.median(medians_ms)
    low, high = math.exp(mean - half_width), math.exp(mean + half_width)
    return median, Interval(low=min(low, median), high=max(high, median))


def differences(finalists: Sequence[Finalist]) -> list[Difference]:
    """Return how each model compares with each later one.

    Args:
        finalists: Measured in the same rounds, at least two of them.

    Raises:
        ValueError: If they were measured in different numbers of rounds, or in fewer than two.
    """
    pairs = list(itertools.combinations(finalists, 2))
    compared = [_compare(first, second) for first, second in pairs]
    corrected = _holm([p_value for _, _, p_value, _ in compared])
    return [
        Difference(
            first=first.name,
            second=second.name,
            ratio=ratio,
            interval=interval,
            p_value=p_value,
            real=p_value <= 1 - CONFIDENCE,
            basis=basis,
            processes=len(first.medians_ms),
        )
        for (first, second), (ratio, interval, _, basis), p_value in zip(
            pairs, compared, corrected, strict=True
        )
    ]


def ranks(finalists: Sequence[Finalist], found: Sequence[Difference]) -> Mapping[str, int]:
    """Return each model's rank: one more than the number of models that are really faster.

    Models that cannot be told apart may share a rank; none stands behind another by chance alone.
    """
    behind = [
        difference.first if difference.ratio > 1 else difference.second
        for difference in found
        if difference.real
    ]
    return {finalist.name: 1 + behind.count(finalist.name) for finalist in finalists}


def _compare(first: Finalist, second: Finalist) -> tuple[float, Interval, float, str]:
    """Return ratio, its interval, the uncorrected p-value, and which medians they come from."""
    above, below, basis = first.medians_ms, second.medians_ms, RAW
    if first.drift_corrected_ms is not None and second.drift_corrected_ms is not None:
        above, below, basis = first.drift_corrected_ms, second.drift_corrected_ms, DRIFT_CORRECTED
    if len(above) != len(below):
        raise ValueError(f"{first.name} has {len(above)} processes and {second.name} {len(below)}")
    mean, half_width, p_value = _t_interval(np.log(above) - np.log(below))
    interval = Interval(low=math.exp(mean - half_width), high=math.exp(mean + half_width))
    return math.exp(mean), interval, p_value, basis


def _t_interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Return mean, half-width of its 95 % interval, and the p-value of a mean of zero."""
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} process is too few for an interval; expected at least 2")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(count)
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    if error == 0.0:
        return mean, 0.0, 1.0 if mean == 0.0 else 0.0
    return mean, half_width, float(2 * stats.t.sf(abs(mean) / error, count - 1))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected so that comparing each with 5 % keeps the chance of any false one at 5 %."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def _percents(share: float, low: float, high: float) -> tuple[str, str, str]:
    """Return a share and its interval in percent, with as many digits as the interval is worth."""
    width = 100 * (high - low)
    digits = 0 if width >= 4 else 1 if width >= 0.4 else 2
    # Adding zero makes a negative zero positive.
    shown = [f"{round(100 * value, digits) + 0.0:.{digits}f}" for value in (share, low, high)]
    return shown[0], shown[1], shown[2]
