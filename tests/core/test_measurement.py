from dataclasses import replace

from example_measurement import complete_measurement, measurement

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
