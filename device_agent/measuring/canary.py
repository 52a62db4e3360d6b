"""What the reference model, which takes turns with the model that is measured, says of a job."""

import functools
import hashlib
import itertools
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from device_agent.benchmark import CanaryReading
from device_agent.measuring.baselines import in_fast_state
from device_agent.measuring.worker_result import WorkerResult
from device_agent.worker import median

CANARY_FILE = Path(__file__).with_name("canary.onnx")
# Up to here networks follow the reference model closely enough for a ratio to correct them. Where waking a thread
# cost more, it took 30 % longer, mobilenet_v2 50 %, and resnet18 3 %.
NEAR_SHARE = 0.10
NEAR_LEAST_SHARE = 0.25


@functools.cache
def canary_digest() -> str:
    """Return a few letters that tell one reference model from another."""
    return hashlib.sha256(CANARY_FILE.read_bytes()).hexdigest()[:8]


def canary_turns_ms(result: WorkerResult) -> list[float]:
    """Return what the reference model took in each of its turns."""
    return [median(turn) for turn in result.canary_turns_ms]


def canary_at_best_ms(result: WorkerResult) -> float:
    """Return what the reference model took while the board was in the fastest state that it was in meanwhile."""
    return median(in_fast_state(canary_turns_ms(result)))


def canary_reading(result: WorkerResult, baseline_ms: float | None) -> CanaryReading | None:
    """Return what the reference model took; None where it did not run."""
    if not result.canary_turns_ms:
        return None
    # A turn that stands between pauses tells nothing of any sample.
    lengths = [0, *_turn_lengths(result), 0]
    beside_samples = [before + behind > 0 for before, behind in pairwise(lengths)]
    turns = list(itertools.compress(canary_turns_ms(result), beside_samples))
    return CanaryReading(
        before_ms=turns[0], after_ms=turns[-1], median_ms=median(turns), baseline_ms=baseline_ms
    )


def drift_corrected_ms(result: WorkerResult, canary: CanaryReading | None) -> float | None:
    """Return the median latency as it would have been at the reference model's baseline speed.

    Every turn's samples are scaled by what the reference model took right before and after that turn: a
    board's speed changes within a second where it is shared. Networks feel a large change differently, so
    only turns in which the board was near its baseline count; None where they are less than a quarter.
    """
    if canary is None or canary.baseline_ms is None:
        return None
    turns = canary_turns_ms(result)
    corrected: list[float] = []
    begin, near_turns = 0, 0
    for end, *around_ms in zip(result.turn_ends, turns, turns[1:], strict=False):
        near = all(abs(turn_ms / canary.baseline_ms - 1) <= NEAR_SHARE for turn_ms in around_ms)
        if end > begin and near:
            scale = canary.baseline_ms / fmean(around_ms)
            corrected += [scale * sample for sample in result.samples_ms[begin:end]]
            near_turns += 1
        begin = end
    sampled_turns = sum(length > 0 for length in _turn_lengths(result))
    return median(corrected) if near_turns >= NEAR_LEAST_SHARE * sampled_turns else None


def _turn_lengths(result: WorkerResult) -> list[int]:
    """Return how many samples each of the model's turns has."""
    return [end - begin for begin, end in pairwise((0, *result.turn_ends))]
