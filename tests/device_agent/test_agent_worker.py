import ast
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent import worker
from device_agent.measuring.latency import count_outliers, summarise

SEARCH = worker.RULES["search"]
FULL = worker.RULES["full"]
SOURCE = Path(worker.__file__).read_text()

latencies = st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1, max_size=200)


def test_worker_parses_as_python_3_6():
    ast.parse(SOURCE, feature_version=(3, 6))


def test_worker_imports_only_the_standard_library_numpy_and_its_runtimes():
    modules = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module.split(".")[0])
    assert modules - sys.stdlib_module_names == {"numpy", "onnxruntime", "torch"}


def test_median_interval_of_equal_blocks_is_a_point():
    assert worker.median_interval([1, 2, 3, 4] * 16) == (2.5, 2.5)


def test_median_interval_of_a_ramp():
    # 16 blocks of 4 have the medians 2.5, 6.5 ... 62.5: deviation 4 * sqrt(22.667), over sqrt(16), times 2.131.
    low, high = worker.median_interval(range(1, 65))
    assert (low, high) == (pytest.approx(22.354411), pytest.approx(42.645589))


def test_median_interval_reaches_no_further_than_the_samples():
    """Block medians of 4.5 and, two, of 32: a half-width of 5.004 on either side of 5, where no sample is below 4."""
    samples = [4.0, 5.0] * 28 + [32.0] * 8
    assert worker.median_interval(samples) == (4.0, pytest.approx(10.004141))
    assert worker.relative_half_width(samples) == pytest.approx(5.004141 / 5)


def test_median_interval_of_few_samples_is_their_range():
    assert worker.median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


@given(latencies)
def test_interval_contains_the_median(samples):
    low, high = worker.median_interval(samples)
    assert min(samples) <= low <= worker.median(samples) <= high <= max(samples)


@given(latencies)
def test_summary_is_ordered(samples):
    summary = summarise(samples)
    assert summary.min_ms <= summary.median_ms <= summary.max_ms
    assert summary.min_ms <= summary.mean_ms <= summary.max_ms
    assert summary.median_ci_low_ms <= summary.median_ms <= summary.median_ci_high_ms
    assert summary.mild_outliers + summary.severe_outliers < len(samples)


def test_summary_of_known_samples():
    summary = summarise([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (summary.median_ms, summary.mean_ms, summary.min_ms, summary.max_ms, summary.mad_ms) == (
        3.0,
        4.0,
        1.0,
        10.0,
        1.0,
    )
    assert summary.samples == 5


@pytest.mark.parametrize(
    ("count", "has_p90", "has_p99"),
    [(63, False, False), (64, True, False), (661, True, False), (662, True, True)],
)
def test_percentiles_need_enough_samples(count, has_p90, has_p99):
    summary = summarise([float(value) for value in range(count)])
    assert (summary.p90_ms is not None, summary.p99_ms is not None) == (has_p90, has_p99)


def test_percentiles_interpolate():
    summary = summarise([float(value) for value in range(1001)])
    assert (summary.p90_ms, summary.p99_ms) == (900.0, 990.0)


def test_outliers_are_counted_by_tukeys_fences():
    # Quartiles 10 and 20: fences at -5 and 35, -20 and 50.
    assert count_outliers([10, 10, 15, 20, 20]) == (0, 0)
    assert count_outliers([10] * 10 + [15] * 10 + [20] * 10 + [36, 51]) == (1, 1)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_warm_up_needs_its_time_before_its_cap_counts():
    rule = worker.WarmUp(FULL)
    assert not rule.over([100] * 1000, elapsed_s=0.99)
    assert rule.over([100] * 1000, elapsed_s=1.0)
    assert not rule.capped


def test_warm_up_goes_on_while_latencies_fall():
    rule = worker.WarmUp(SEARCH)
    assert not rule.over([200] * 20 + [100] * 20, elapsed_s=0.5)
    assert rule.over([200] * 20 + [100] * 40, elapsed_s=0.6)
    assert not rule.capped


def test_warm_up_of_unsettled_latencies_ends_at_the_cap_and_says_so():
    rule = worker.WarmUp(SEARCH)
    falling = list(range(1300, 1000, -1))
    assert not rule.over([value**2 for value in falling[:295]], elapsed_s=2.0)
    assert rule.over([200, 100] * 130 + [200] * 20 + [100] * 20, elapsed_s=2.0)
    assert rule.capped


def test_warm_up_that_settled_by_its_cap_is_not_flagged():
    rule = worker.WarmUp(SEARCH)
    assert rule.over([200] * 261 + [100] * 40, elapsed_s=2.0)
    assert not rule.capped


def test_windows_of_steady_noise_agree():
    # The two windows' MADs, 0.25 and 0.5 % of the median, are as far apart as steady series show them.
    assert worker.windows_agree([9975, 10025] * 10 + [9950, 10050] * 10)


def test_windows_of_different_spread_disagree():
    assert not worker.windows_agree([10000] * 20 + [8000, 12000] * 10)


def test_warm_up_of_a_slow_model_runs_three_times():
    rule = worker.WarmUp(SEARCH)
    assert not rule.over([10**10] * 2, elapsed_s=20.0)
    assert rule.over([10**10] * 3, elapsed_s=30.0)
    assert rule.capped


def test_sampling_stops_after_two_narrow_checks():
    rule = worker.Sampling(SEARCH)
    assert not rule.over([100] * 64, elapsed_s=0.9)
    assert not rule.over([100] * 96, elapsed_s=1.0)
    assert not rule.over([100] * 100, elapsed_s=1.0)
    assert rule.over([100] * 128, elapsed_s=1.1)
    assert rule.reached


def test_sampling_needs_the_narrow_checks_in_a_row():
    rule = worker.Sampling(SEARCH)
    wide = [100] * 64 + [300] * 64
    assert not rule.over([100] * 96, elapsed_s=1.0)
    assert not rule.over(wide, elapsed_s=1.1)
    assert not rule.over([100] * 160, elapsed_s=1.2)
    assert rule.over([100] * 192, elapsed_s=1.3)


def test_sampling_of_a_wide_series_ends_at_the_cap_and_says_so():
    rule = worker.Sampling(FULL)
    series = [100] * 2500 + [300] * 2500
    assert not rule.over(series[1:], elapsed_s=50.0)
    assert rule.over(series, elapsed_s=50.0)
    assert not rule.reached


def test_sampling_needs_its_time_before_its_cap_counts():
    rule = worker.Sampling(FULL)
    assert not rule.over([100] * 8000, elapsed_s=9.9)
    assert rule.over([100] * 8001, elapsed_s=10.0)
    assert rule.reached


def test_sampling_ends_at_a_limit_of_its_own_settled_or_not():
    series = [100] * 400 + [300] * 400
    assert not worker.Sampling(FULL, limit_s=5.0).over(series, elapsed_s=4.9)
    rule = worker.Sampling(FULL, limit_s=5.0)
    assert rule.over(series, elapsed_s=5.0)
    assert not rule.reached


def test_sampling_of_a_slow_model_takes_six_samples():
    rule = worker.Sampling(SEARCH)
    assert not rule.over([10**11] * 5, elapsed_s=500.0)
    assert rule.over([10**11] * 6, elapsed_s=600.0)
    assert not rule.reached


def test_relative_half_width_of_few_samples_is_infinite():
    assert worker.relative_half_width([1.0] * 15) == math.inf


@pytest.mark.parametrize(
    ("declared", "given", "resolved"),
    [
        (["batch", 3, 8, 8], None, [1, 3, 8, 8]),
        ([None, 3], None, [1, 3]),
        ([4, 3], None, [4, 3]),
        (["batch", 3, "h", "w"], [2, 3, 5, 7], [2, 3, 5, 7]),
        ([], [2, 2], [2, 2]),
    ],
)
def test_shape_is_resolved(declared, given, resolved):
    assert worker.resolve_shape(worker.Input("x", "float32", declared), given, 1) == resolved


@pytest.mark.parametrize(
    ("declared", "given", "kind", "message"),
    [
        (
            ["n", 3, "h", 8],
            None,
            "open_shape",
            r"input 'x' has open axes in \[n, 3, h, 8\]; give its full shape",
        ),
        ([1, 3], [1, 4], "invalid_spec", r"gives 'x' the shape \[1, 4\]; the model declares \[1, 3\]"),
        ([1, 3], [1, 3, 1], "invalid_spec", r"the model declares \[1, 3\]"),
        (None, None, "open_shape", r"the model declares no shape for its input 'x'; give it"),
        ([1, -5], None, "invalid_shape", r"declares the shape \[1, -5\] for its input 'x'"),
        (["n", 0], [2, 0], "invalid_shape", r"every size must be at least 1"),
    ],
)
def test_shape_that_cannot_be_resolved_is_refused(declared, given, kind, message):
    with pytest.raises(worker.JobError, match=message) as caught:
        worker.resolve_shape(worker.Input("x", "float32", declared), given, 1)
    assert caught.value.kind == kind


def test_batch_size_fills_an_open_first_axis():
    assert worker.resolve_shape(worker.Input("x", "float32", ["batch", 3]), None, 8) == [8, 3]


def test_batch_size_that_the_model_contradicts_is_refused():
    with pytest.raises(
        worker.JobError, match="batch_size is 8, but the model fixes the first axis of 'x' to 1"
    ):
        worker.resolve_shape(worker.Input("x", "float32", [1, 3]), None, 8)
