"""What medians of several processes prove, and what they do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from example_measurement import measurement

from controller.core.finalists import Finalist, between_processes, differences, ranks


def finalist(name: str, *medians_ms: float, corrected: tuple[float, ...] | None = None) -> Finalist:
    return Finalist(name=name, medians_ms=medians_ms, drift_corrected_ms=corrected)


def test_finalist_is_compared_corrected_only_where_every_process_could_be_corrected():
    some = [
        replace(measurement("one", median_ms=2.0), drift_corrected_ms=1.9),
        measurement("two", median_ms=3.0),
    ]
    every = [replace(found, drift_corrected_ms=1.5) for found in some]

    assert Finalist.of("net", some) == finalist("net", 2.0, 3.0)
    assert Finalist.of("net", every) == finalist("net", 2.0, 3.0, corrected=(1.5, 1.5))


def test_interval_between_processes_is_students_on_logarithms():
    # Logarithms -0.1, 0, 0.1: deviation 0.1, and Student's t for 2 degrees of freedom is 4.302653.
    median, interval = between_processes([math.exp(-0.1), 1.0, math.exp(0.1)])

    half_width = 4.302653 * 0.1 / math.sqrt(3)
    assert median == 1.0
    assert (interval.low, interval.high) == pytest.approx(
        (math.exp(-half_width), math.exp(half_width)), rel=1e-6
    )


def test_interval_between_processes_holds_the_median_of_lopsided_processes():
    median, interval = between_processes([1.0] * 6 + [2.0] * 4)

    assert median == 1.0
    assert interval.low == 1.0


def test_one_process_gives_no_interval():
    with pytest.raises(ValueError, match="expected at least 2"):
        between_processes([1.0])


def test_clear_difference_is_real_and_said_in_percent_of_the_slower_ones_time():
    (found,) = differences([finalist("slow", 10.0, 10.3, 9.8), finalist("fast", 8.0, 8.1, 8.0)])

    assert found.real
    assert found.ratio == pytest.approx(1.249, abs=0.001)
    assert (
        found.text == "fast is faster than slow by 20 % (95 % interval 16 to 24 %, paired over 3 processes)"
    )


def test_narrow_interval_is_said_with_more_digits():
    (found,) = differences([finalist("fast", 8.0, 8.1, 7.9), finalist("slow", 10.0, 10.1, 9.9)])

    assert "by 20.0 % (95 % interval 19.5 to 20.5 %" in found.text


def test_difference_within_the_scatter_cannot_be_told():
    (found,) = differences([finalist("a", 10.0, 10.4, 9.6), finalist("b", 9.7, 10.5, 9.9)])

    assert not found.real
    assert found.text.startswith("a and b cannot be told apart (a took 0 % less, 95 % interval -")
    assert "paired over 3 processes, corrected p 0." in found.text


def test_what_slows_a_whole_round_down_cancels():
    calm = differences([finalist("a", 10.0, 10.1, 9.9), finalist("b", 11.0, 11.2, 10.9)])
    drifting = differences([finalist("a", 10.0, 20.2, 14.85), finalist("b", 11.0, 22.4, 16.35)])

    assert drifting[0].ratio == pytest.approx(calm[0].ratio)
    assert drifting[0].p_value == pytest.approx(calm[0].p_value)
    assert drifting[0].real


def test_corrected_medians_decide_where_both_have_them():
    raw = {"a": (10.0, 14.0, 12.0), "b": (12.0, 10.0, 14.0)}
    corrected = {"a": (9.0, 9.05, 8.95), "b": (9.9, 9.95, 9.85)}

    (both,) = differences([finalist(name, *raw[name], corrected=corrected[name]) for name in raw])
    (one,) = differences([finalist("a", *raw["a"], corrected=corrected["a"]), finalist("b", *raw["b"])])

    assert (both.basis, both.real) == ("drift_corrected_ms", True)
    assert both.text.endswith("paired over 3 processes, drift-corrected)")
    assert (one.basis, one.real) == ("latency_ms", False)


def test_correction_for_many_comparisons_is_holms():
    # Differences of logarithms by round, so that p is 0.01, 0.02 and 0.5 or so before the correction.
    found = differences(
        [finalist("a", 1.0, 1.0, 1.0), finalist("b", 1.10, 1.11, 1.12), finalist("c", 1.09, 1.13, 1.12)]
    )
    alone = [
        differences([finalist("x", *first), finalist("y", *second)])[0].p_value
        for first, second in (
            ((1.0, 1.0, 1.0), (1.10, 1.11, 1.12)),
            ((1.0, 1.0, 1.0), (1.09, 1.13, 1.12)),
            ((1.10, 1.11, 1.12), (1.09, 1.13, 1.12)),
        )
    ]

    assert alone[0] < alone[1] < alone[2]
    assert [pair.p_value for pair in found] == pytest.approx([3 * alone[0], 2 * alone[1], alone[2]])


def test_models_that_cannot_be_told_apart_share_a_rank():
    finalists = [
        finalist("slow", 20.0, 20.2, 19.8),
        finalist("one", 10.0, 10.4, 9.6),
        finalist("two", 9.7, 10.5, 9.9),
    ]

    assert ranks(finalists, differences(finalists)) == {"slow": 3, "one": 1, "two": 1}


def test_identical_medians_are_no_difference():
    (found,) = differences([finalist("a", 1.0, 2.0, 3.0), finalist("b", 1.0, 2.0, 3.0)])

    assert not found.real
    assert (found.ratio, found.p_value) == (1.0, 1.0)


def test_models_of_different_rounds_are_not_compared():
    with pytest.raises(ValueError, match="a has 3 processes and b 4"):
        differences([finalist("a", 1, 1, 1), finalist("b", 1, 1, 1, 1)])


def drawn(rng: np.random.Generator, latencies_ms: tuple[float, ...], rounds: int) -> list[Finalist]:
    """Return models measured in rounds that drift by 10 %, with 1 % of scatter between processes."""
    drift = rng.normal(0, 0.1, rounds)
    return [
        finalist(str(index), *(latency_ms * np.exp(drift + rng.normal(0, 0.01, rounds))))
        for index, latency_ms in enumerate(latencies_ms)
    ]


@pytest.mark.parametrize(("models", "rounds"), [(2, 3), (4, 3), (3, 6)])
def test_equal_models_are_called_different_in_at_most_one_of_twenty_trials(models: int, rounds: int):
    rng = np.random.default_rng(0)
    trials = 600

    false = sum(
        any(found.real for found in differences(drawn(rng, (5.0,) * models, rounds))) for _ in range(trials)
    )

    # 0.05 and three standard errors of a share of 600 trials.
    assert false / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_clear_differences_are_found_under_drift():
    rng = np.random.default_rng(1)
    trials = 200

    found = sum(differences(drawn(rng, (5.0, 6.0), 3))[0].real for _ in range(trials))

    assert found / trials > 0.95
