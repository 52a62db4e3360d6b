from dataclasses import replace

import pytest
from example_measurement import complete_measurement, measurement

from controller.core.measurement import Canary
from controller.core.objective import METRICS, Source


def test_measurement_gives_its_figures_by_metric():
    assert measurement("one").metrics == {
        "latency_ms": 3.21,
        "latency_ms_p90": 3.5,
        "peak_memory_mb": 0.0002,
        "load_ms": 12.0,
        "first_inference_ms": 8.0,
    }


def test_measured_energy_is_a_figure():
    assert replace(measurement("one"), energy_mj=1.5).metrics["energy_mj"] == 1.5


def test_measured_zero_is_a_figure():
    assert replace(measurement("one"), energy_mj=0.0).metrics["energy_mj"] == 0.0


def test_figure_that_nobody_measured_is_absent():
    unmeasured = replace(measurement("one").latency, p90_ms=None)
    assert "latency_ms_p90" not in replace(measurement("one"), latency=unmeasured).metrics


def test_measurement_can_give_every_metric_that_a_device_tells():
    told = {name for name, metric in METRICS.items() if metric.source is Source.DEVICE}
    assert replace(measurement("one"), energy_mj=1.5).metrics.keys() == told


def test_modelled_energy_is_no_figure():
    measured = complete_measurement("one")
    assert measured.metrics["energy_mj"] == 2.5
    modelled = replace(measured, energy=replace(measured.energy, modelled=True))
    assert modelled.energy_is_modelled
    assert "energy_mj" not in modelled.metrics


def test_contaminated_by_flags_that_say_so():
    flags = ("CI_NOT_REACHED", "THROTTLED", "WARMUP_CAP", "CANARY", "GATE_TIMEOUT", "UNKNOWN_99")
    assert replace(measurement("one"), flags=flags).contaminated == ("THROTTLED", "CANARY")


def test_usual_speed_is_what_puts_the_median_to_the_drift_corrected_one():
    measured = complete_measurement("one")
    assert measured.usual_speed * measured.latency.median_ms == pytest.approx(measured.drift_corrected_ms)


@pytest.mark.parametrize(
    ("canary_ms", "baseline_ms", "expected"),
    [
        (1.25, 1.0, 0.8),
        (0.8, 1.0, 1.25),
        (7.0, 1.0, 1.0),
        (1.25, None, 1.0),
    ],
)
def test_far_from_its_baseline_the_canary_alone_tells_the_speed_unless_it_was_preempted(
    canary_ms: float, baseline_ms: float | None, expected: float
):
    canary = Canary(before_ms=canary_ms, after_ms=canary_ms, median_ms=canary_ms, baseline_ms=baseline_ms)
    measured = replace(complete_measurement("one"), drift_corrected_ms=None, canary=canary)
    assert measured.usual_speed == pytest.approx(expected)


def test_usual_speed_of_a_board_without_a_canary_is_as_measured():
    assert measurement("one").usual_speed == 1.0
