"""What the reference model's turns say of the samples between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_results import worker_result

from device_agent.benchmark import CanaryReading
from device_agent.measuring.canary import canary_at_best_ms, canary_reading, drift_corrected_ms
from device_agent.measuring.worker_result import WorkerResult


def turns(*latencies_ms: float) -> tuple[tuple[float, ...], ...]:
    """Turns of the reference model with these medians, each with an outlier above and below."""
    return tuple((latency_ms, 0.1, latency_ms, 90.0, latency_ms) for latency_ms in latencies_ms)


def corrected_ms(result: WorkerResult, baseline_ms: float | None) -> float | None:
    return drift_corrected_ms(result, canary_reading(result, baseline_ms))


def test_reading_is_the_first_and_the_last_turn():
    result = worker_result(canary_turns_ms=turns(2.0, 3.0, 4.0))
    assert canary_reading(result, 2.5) == CanaryReading(
        before_ms=2.0, after_ms=4.0, median_ms=3.0, baseline_ms=2.5
    )


def test_latency_of_the_reference_model_is_the_median_over_its_turns():
    assert (
        canary_reading(worker_result(canary_turns_ms=turns(2.0, 9.0, 2.2, 2.1, 2.3)), None).median_ms == 2.2
    )


def test_job_without_the_reference_model_has_no_reading():
    result = worker_result(canary_turns_ms=())
    assert canary_reading(result, 2.0) is None
    assert corrected_ms(result, 2.0) is None


def test_without_a_baseline_nothing_is_corrected():
    assert corrected_ms(worker_result(), None) is None


@given(st.lists(st.floats(min_value=0.01, max_value=1e4), min_size=60, max_size=60))
def test_constant_reference_model_leaves_the_median_as_it_is(samples: list[float]):
    result = worker_result(samples_ms=tuple(samples), canary_turns_ms=turns(2.0, 2.0, 2.0))
    ordered = sorted(samples)
    assert corrected_ms(result, 2.0) == pytest.approx((ordered[29] + ordered[30]) / 2)


def test_samples_of_a_turn_are_scaled_by_the_reference_turns_around_it():
    # Around the second turn the reference model takes (2.0 + 2.1) / 2 = 2.05 ms.
    result = worker_result(
        samples_ms=(10.0,) * 29 + (12.3,) * 31, turn_ends=(29, 60), canary_turns_ms=turns(2.0, 2.0, 2.1)
    )
    assert corrected_ms(result, 2.0) == pytest.approx(12.0)


def test_every_turn_has_its_own_scale():
    result = worker_result(
        samples_ms=(10.0, 30.0, 10.0), turn_ends=(1, 2, 3), canary_turns_ms=turns(1.9, 2.1, 2.1, 1.9)
    )
    # 10 * 2 / 2, 30 * 2 / 2.1, 10 * 2 / 2.
    assert corrected_ms(result, 2.0) == pytest.approx(10.0)


def test_board_that_is_faster_than_its_baseline_is_corrected_upwards():
    assert corrected_ms(worker_result(canary_turns_ms=turns(1.9, 1.9, 1.9)), 2.0) == pytest.approx(
        10 * 2 / 1.9
    )


def test_turns_far_from_the_baseline_do_not_count():
    # Near it are the first and the last turn, of four; of the others, which were at half the speed, nothing can be said.
    result = worker_result(
        samples_ms=(10.0,) * 10 + (50.0,) * 40 + (10.2,) * 10,
        turn_ends=(10, 30, 50, 60),
        canary_turns_ms=turns(2.0, 2.0, 4.0, 2.0, 2.0),
    )
    assert corrected_ms(result, 2.0) == pytest.approx(10.1)


@pytest.mark.parametrize(("near_ms", "known"), [(2.19, True), (1.81, True), (2.21, False), (1.79, False)])
def test_a_quarter_of_the_turns_must_be_within_a_tenth_of_the_baseline(near_ms: float, known: bool):
    result = worker_result(turn_ends=(15, 30, 45, 60), canary_turns_ms=turns(near_ms, near_ms, 9.0, 9.0, 9.0))
    assert (corrected_ms(result, 2.0) is not None) == known


def test_fewer_turns_do_not_stand_for_all():
    result = worker_result(
        turn_ends=(10, 20, 30, 40, 60), canary_turns_ms=turns(2.0, 2.0, 4.0, 4.0, 4.0, 4.0)
    )
    assert corrected_ms(result, 2.0) is None


def test_turns_of_different_length_keep_their_samples_apart():
    # 50 samples before the board slowed down, and 10 after.
    result = worker_result(
        samples_ms=(10.0,) * 50 + (10.8,) * 10, turn_ends=(50, 60), canary_turns_ms=turns(2.0, 2.0, 2.16)
    )
    assert corrected_ms(result, 2.0) == 10.0
    half = worker_result(
        samples_ms=(10.0,) * 10 + (10.4,) * 50, turn_ends=(10, 60), canary_turns_ms=turns(2.0, 2.0, 2.16)
    )
    assert corrected_ms(half, 2.0) == pytest.approx(10.0)


# --- pauses: stretches without samples


def paused() -> WorkerResult:
    """A slow turn of the reference model behind the first stretch, a pause, and two calm stretches."""
    return worker_result(
        samples_ms=(14.0,) * 10 + (10.0,) * 50,
        turn_ends=(10, 10, 40, 60),
        canary_turns_ms=turns(2.0, 2.8, 2.0, 2.0, 2.0),
    )


def test_turn_between_two_pauses_speaks_for_no_sample():
    result = worker_result(turn_ends=(0, 30, 60), canary_turns_ms=turns(9.0, 2.0, 2.2, 2.4))
    assert canary_reading(result, 2.0) == CanaryReading(
        before_ms=2.0, after_ms=2.4, median_ms=2.2, baseline_ms=2.0
    )


def test_turn_before_a_pause_speaks_for_the_samples_before_it():
    assert canary_reading(paused(), 2.0).median_ms == 2.0
    assert canary_reading(worker_result(turn_ends=(60, 60), canary_turns_ms=turns(2.0, 3.0, 2.0)), 2.0) == (
        CanaryReading(before_ms=2.0, after_ms=3.0, median_ms=2.5, baseline_ms=2.0)
    )


def test_pause_is_no_turn_that_counts():
    # Of three turns with samples two were near the baseline.
    assert corrected_ms(paused(), 2.0) == pytest.approx(10.0)
    # A pause ahead of a single turn that was not near makes it no smaller a share.
    far = worker_result(turn_ends=(0, 60), canary_turns_ms=turns(2.0, 2.0, 2.8))
    assert corrected_ms(far, 2.0) is None


# --- what is learnt of the board


def test_slower_state_is_not_learnt_as_the_board_s_speed():
    assert canary_at_best_ms(worker_result(canary_turns_ms=turns(2.9, 2.0, 2.8, 2.02, 2.04))) == 2.02


def test_of_a_board_with_one_state_the_median_is_learnt():
    assert canary_at_best_ms(worker_result(canary_turns_ms=turns(2.1, 2.0, 2.2, 2.15, 2.05))) == 2.1
