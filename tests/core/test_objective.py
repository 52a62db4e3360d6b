import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.errors import ConfigurationError
from controller.core.objective import METRICS, Constraint, Direction, Objective, Source, broken

KEYS = ("accuracy", "latency_ms@pi4", "latency_ms@nano", "peak_memory_mb@pi4")
FIGURES = st.floats(min_value=0, max_value=1e9)


@pytest.mark.parametrize(
    ("text", "default_device", "key"),
    [
        ("accuracy", None, "accuracy"),
        ("accuracy", "pi4", "accuracy"),
        ("params_m", "pi4", "params_m"),
        ("latency_ms@pi4", None, "latency_ms@pi4"),
        ("latency_ms@pi4", "nano", "latency_ms@pi4"),
        ("latency_ms", "nano", "latency_ms@nano"),
        ("  energy_mj@board-2.lan:50051 ", None, "energy_mj@board-2.lan:50051"),
    ],
)
def test_objective_is_named_by_metric_and_device(text: str, default_device: str | None, key: str):
    assert Objective.parse(text, default_device).key == key


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.source is Source.DEVICE])
def test_objective_key_is_read_back_as_the_same_objective(name: str):
    objective = Objective.parse(name, "pi4")
    assert Objective.parse(objective.key) == objective


@pytest.mark.parametrize("text", ["speed", "latency_ms@", "@pi4", "", "latency_ms @pi4", "latency_ms@pi 4"])
def test_objective_refuses_an_unknown_metric(text: str):
    with pytest.raises(ConfigurationError) as caught:
        Objective.parse(text, "pi4")
    assert str(caught.value).startswith(
        f"objective {text!r} is unknown; expected one of accuracy, latency_ms, "
    )


@pytest.mark.parametrize("text", ["accuracy@pi4", "macs_m@pi4"])
def test_objective_refuses_a_device_that_does_not_measure_it(text: str):
    with pytest.raises(ConfigurationError, match=f"objective '{text}' names a device"):
        Objective.parse(text)


def test_objective_refuses_a_measured_metric_without_a_device():
    with pytest.raises(
        ConfigurationError, match=r"objective 'latency_ms' has no device .* 'latency_ms@NAME'"
    ):
        Objective.parse("latency_ms")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("accuracy", "accuracy"),
        (" peak_memory_mb ", "peak_memory_mb@pi4"),
        ("peak_memory_mb@pi4", "peak_memory_mb@pi4"),
        ("latency_ms@nano", "latency_ms@nano"),
    ],
)
def test_objective_among_several_needs_no_device_where_one_alone_is_meant(text: str, key: str):
    assert Objective.among(text, KEYS).key == key


def test_objective_among_several_refuses_what_means_two():
    with pytest.raises(
        ConfigurationError, match="'latency_ms' means latency_ms@pi4 and latency_ms@nano; write one of these"
    ):
        Objective.among("latency_ms", KEYS)


@pytest.mark.parametrize("text", ["params_m", "latency_ms@orin", "latency", ""])
def test_objective_among_several_refuses_what_is_none_of_them(text: str):
    with pytest.raises(ConfigurationError) as caught:
        Objective.among(text, KEYS)
    assert str(caught.value) == (
        f"objective {text!r} is not known of these candidates; expected one of {', '.join(KEYS)}"
    )


def test_accuracy_alone_is_maximised():
    maximised = [name for name, metric in METRICS.items() if metric.direction is Direction.MAXIMISE]
    assert maximised == ["accuracy"]


@pytest.mark.parametrize(
    ("text", "key", "upper", "bound"),
    [
        ("latency_ms<=15", "latency_ms@pi4", True, 15.0),
        ("latency_ms@nano <= 1.5e1", "latency_ms@nano", True, 15.0),
        (" accuracy>=0.9 ", "accuracy", False, 0.9),
        ("params_m<=.5", "params_m", True, 0.5),
        ("energy_mj>=-2", "energy_mj@pi4", False, -2.0),
    ],
)
def test_constraint_is_a_bound_on_an_objective(text: str, key: str, upper: bool, bound: float):
    constraint = Constraint.parse(text, "pi4")
    assert (constraint.objective.key, constraint.upper, constraint.bound) == (key, upper, bound)


@pytest.mark.parametrize(
    "text",
    [
        "latency_ms",
        "latency_ms<15",
        "latency_ms=15",
        "latency_ms<=",
        "latency_ms<=15ms",
        "latency_ms<=fast",
        "latency_ms<=1-2",
        "latency_ms<=1e999",
        "latency_ms<=nan",
        "10<=latency_ms<=15",
        "<=15",
        "",
    ],
)
def test_constraint_refuses_what_is_no_bound(text: str):
    with pytest.raises(ConfigurationError) as caught:
        Constraint.parse(text, "pi4")
    assert str(caught.value).startswith(f"constraint {text!r} is not understood; expected METRIC<=NUMBER")


def test_constraint_refuses_an_unknown_metric():
    with pytest.raises(ConfigurationError, match="objective 'speed' is unknown"):
        Constraint.parse("speed>=9", "pi4")


@pytest.mark.parametrize("text", ["accuracy>=90", "accuracy>=1.01", "accuracy<=-0.1"])
def test_constraint_refuses_a_bound_that_is_no_fraction(text: str):
    with pytest.raises(ConfigurationError) as caught:
        Constraint.parse(text)
    assert str(caught.value) == (
        f"constraint {text} does not fit accuracy, a fraction; expected a bound of 0 to 1, e.g. 0.9"
    )


def test_constraint_among_several_is_on_the_one_that_is_meant():
    assert str(Constraint.among("peak_memory_mb <= 20", KEYS)) == "peak_memory_mb@pi4<=20"


def test_constraint_among_several_refuses_one_on_none_of_them():
    with pytest.raises(ConfigurationError, match="objective 'load_ms' is not known of these candidates"):
        Constraint.among("load_ms<=20", KEYS)


@pytest.mark.parametrize("text", ["latency_ms@pi4<=15", "accuracy>=0.9"])
def test_constraint_is_written_as_it_is_read(text: str):
    assert str(Constraint.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "value", "violation"),
    [
        ("latency_ms<=10", 9.0, 0.0),
        ("latency_ms<=10", 10.0, 0.0),
        ("latency_ms<=10", 15.0, 0.5),
        ("accuracy>=0.8", 0.9, 0.0),
        ("accuracy>=0.8", 0.6, 0.25),
        ("energy_mj>=-2", -3.0, 0.5),
    ],
)
def test_violation_is_the_excess_relative_to_the_bound(text: str, value: float, violation: float):
    constraint = Constraint.parse(text, "pi4")
    assert constraint.violation({constraint.objective.key: value}) == pytest.approx(violation)


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [("params_m<=10", 12.5, 2.5), ("accuracy>=0.75", 0.5, 0.25), ("params_m<=10", 9.0, 0.0)],
)
def test_excess_is_in_the_unit_of_the_bound(text: str, value: float, excess: float):
    constraint = Constraint.parse(text)
    assert constraint.excess({constraint.objective.key: value}) == excess


def test_violation_of_what_is_not_known_yet_is_zero():
    assert Constraint.parse("latency_ms@pi4<=10").violation({"latency_ms@nano": 99.0}) == 0.0


def test_violation_of_a_bound_of_zero_is_finite():
    violation = Constraint.parse("params_m<=0").violation({"params_m": 1.0})
    assert 1.0 < violation < float("inf")


@given(bound=FIGURES, value=FIGURES)
def test_violation_is_positive_exactly_beyond_the_bound(bound: float, value: float):
    upper = Constraint.parse(f"params_m<={bound!r}")
    lower = Constraint.parse(f"params_m>={bound!r}")
    assert (upper.violation({"params_m": value}) > 0) == (value > bound)
    assert (lower.violation({"params_m": value}) > 0) == (value < bound)


def test_broken_names_the_constraints_that_known_values_break():
    constraints = [Constraint.parse(text) for text in ("params_m<=1", "macs_m<=10", "latency_ms@pi4<=5")]
    assert broken(constraints, {"params_m": 2.0, "macs_m": 10.0}) == (constraints[0],)
