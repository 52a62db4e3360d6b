"""Statistics of one series of latencies."""

import math
from collections.abc import Sequence

from device_agent.benchmark import GroupedLatency, LatencySummary

# One definition for both sides: the worker decides by these when to stop, the agent reports them.
from device_agent.worker import median, median_interval, quantile

# A percentile is reported once enough samples lie beyond it to bound it with 99 % confidence.
# Source: MLPerf Inference, single-stream early stopping.
P90_MIN_SAMPLES = 64
P99_MIN_SAMPLES = 662


def summarise_groups(group_ms: Sequence[float], inferences_per_group: int) -> GroupedLatency:
    """Return the statistics of one inference from the times of whole groups, shape (n_groups,)."""
    each = [value / inferences_per_group for value in group_ms]
    low, high = median_interval(each)
    return GroupedLatency(
        median_ms=median(each),
        median_ci_low_ms=low,
        median_ci_high_ms=high,
        inferences_per_group=inferences_per_group,
        groups=len(each),
    )


def summarise(samples_ms: Sequence[float]) -> LatencySummary:
    """Return the statistics of a series. Outliers are counted, never removed.

    Args:
        samples_ms: Latencies in the order they were taken, shape (n_samples,), at least one.

    Raises:
        ValueError: If there is no sample.
    """
    if not samples_ms:
        raise ValueError("no samples to summarise; expected at least one latency")
    ordered = sorted(samples_ms)
    middle = median(ordered)
    low, high = median_interval(samples_ms)
    mild, severe = count_outliers(ordered)
    return LatencySummary(
        median_ms=middle,
        median_ci_low_ms=low,
        median_ci_high_ms=high,
        # fsum rounds once; clamping repairs the last bit that the division may still lose.
        mean_ms=min(max(math.fsum(ordered) / len(ordered), ordered[0]), ordered[-1]),
        min_ms=ordered[0],
        max_ms=ordered[-1],
        mad_ms=median([abs(sample - middle) for sample in ordered]),
        p90_ms=quantile(ordered, 0.90) if len(ordered) >= P90_MIN_SAMPLES else None,
        p99_ms=quantile(ordered, 0.99) if len(ordered) >= P99_MIN_SAMPLES else None,
        mild_outliers=mild,
        severe_outliers=severe,
        samples=len(ordered),
    )


def count_outliers(samples: Sequence[float]) -> tuple[int, int]:
    """Return how many samples are mild and how many are severe outliers by Tukey's fences.

    A sample is mild between 1.5 and 3 interquartile ranges outside the quartiles, severe beyond.
    """
    severe = len(severe_outliers(samples))
    return len(_beyond(samples, 1.5)) - severe, severe


def severe_outliers(samples: Sequence[float]) -> list[float]:
    """Return those samples that are more than 3 interquartile ranges outside the quartiles, in order."""
    return _beyond(samples, 3.0)


def _beyond(samples: Sequence[float], ranges: float) -> list[float]:
    """Return the samples more than so many interquartile ranges outside the quartiles, in order."""
    lower, upper = quantile(samples, 0.25), quantile(samples, 0.75)
    reach = ranges * (upper - lower)
    return [sample for sample in samples if not lower - reach <= sample <= upper + reach]
