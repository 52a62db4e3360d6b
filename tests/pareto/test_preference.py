from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError, NotFoundError
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState
from controller.pareto.front import front
from controller.pareto.preference import select

OBJECTIVES = [Objective.parse(text, "pi4") for text in ("accuracy", "latency_ms", "peak_memory_mb")]
# No objective, but known of every trial.
PARAMS_M = (0.4, 0.3, 0.2, 0.5)


def trial(index: int, accuracy: float, latency_ms: float, memory_mb: float) -> Trial:
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=TrialState.COMPLETE,
        values={
            "accuracy": accuracy,
            "latency_ms@pi4": latency_ms,
            "peak_memory_mb@pi4": memory_mb,
            "params_m": PARAMS_M[index % 4],
            "test_accuracy": 0.5,
        },
    )


# Scaled to the front's span, its middle is nearest to the best of all three at once.
ACCURATE, MIDDLE, FAST, SMALL = FRONT = [
    trial(0, 0.95, 20.0, 9.0),
    trial(1, 0.92, 6.0, 4.0),
    trial(2, 0.80, 1.0, 5.0),
    trial(3, 0.75, 2.0, 1.0),
]


@pytest.mark.parametrize(
    ("preference", "selected"),
    [
        ("knee", MIDDLE),
        ("vote", MIDDLE),
        ("accuracy", ACCURATE),
        (" accuracy , latency_ms ", ACCURATE),
        ("latency_ms", FAST),
        ("latency_ms@pi4", FAST),
        ("peak_memory_mb@pi4", SMALL),
        (FAST.id, FAST),
        (SMALL.id[:6], SMALL),
        ("params_m", FAST),
        ("accuracy:0.03,latency_ms", MIDDLE),
        ("accuracy:0.02,latency_ms", ACCURATE),
        ("accuracy:4%,latency_ms", MIDDLE),
        ("accuracy:3%,latency_ms", ACCURATE),
        ("accuracy:0.2,latency_ms@pi4:1,peak_memory_mb", SMALL),
        ("accuracy:0.03", MIDDLE),
        ("accuracy,latency_ms<=10", MIDDLE),
        ("accuracy,latency_ms@pi4 <= 2, peak_memory_mb<=2", SMALL),
        ("accuracy,params_m<=0.2", FAST),
        ("latency_ms<=10", MIDDLE),
        ("latency_ms,accuracy>=0.9", MIDDLE),
        ("latency_ms<=2,knee", FAST),
        ("vote,latency_ms<=1", FAST),
        (f"{FAST.id},latency_ms<=1", FAST),
        ("accuracy=1", ACCURATE),
        ("latency=1,peak_memory_mb>=5", FAST),
    ],
)
def test_select_finds_what_a_preference_means(preference: str, selected: Trial):
    assert select(FRONT, OBJECTIVES, preference) is selected


@pytest.mark.parametrize("preference", ["best", "", "best:0.1", ACCURATE.id + "0"])
def test_select_refuses_what_means_no_single_candidate(preference: str):
    with pytest.raises(NotFoundError) as caught:
        select(FRONT, OBJECTIVES, preference)
    message = str(caught.value)
    assert message.startswith(f"selection {preference!r} fits ")
    assert (
        "expected knee, vote, one of accuracy, latency_ms@pi4, peak_memory_mb@pi4, params_m, or one of the ids "
        in message
    )
    assert all(candidate.id in message for candidate in FRONT)


def test_select_refuses_the_beginning_of_several_ids():
    many = [trial(index, 0.9, 1.0, 1.0) for index in range(40)]
    prefix = next(
        candidate.id[0] for candidate in many if sum(other.id[0] == candidate.id[0] for other in many) == 3
    )
    with pytest.raises(NotFoundError, match=f"selection '{prefix}' fits 3 candidates"):
        select(many, OBJECTIVES, prefix)


@pytest.mark.parametrize("preference", ["knee", "vote", "accuracy", "latency=1", "accuracy:1%,latency_ms<=6"])
def test_select_of_a_front_of_one_is_that_one(preference: str):
    assert select([MIDDLE], OBJECTIVES, preference) is MIDDLE


def test_select_from_an_empty_front_says_so():
    with pytest.raises(NotFoundError, match="selection 'knee' fits no candidate, for the front is empty; "):
        select([], OBJECTIVES, "knee")


@pytest.mark.parametrize("name", ["energy_mj", "latency_ms@nano", "test_accuracy,accuracy", "speed,accuracy"])
def test_select_refuses_a_figure_that_the_candidates_do_not_have(name: str):
    with pytest.raises(ConfigurationError) as caught:
        select(FRONT, OBJECTIVES, name)
    assert str(caught.value) == (
        f"objective {name.split(',')[0]!r} is not known of these candidates; "
        "expected one of accuracy, latency_ms@pi4, peak_memory_mb@pi4, params_m"
    )


@pytest.mark.parametrize("preference", ["latency_ms", "accuracy,latency_ms<=15", "latency_ms:5%,accuracy"])
def test_select_refuses_a_figure_that_several_devices_have(preference: str):
    both = [replace(each, values={**each.values, "latency_ms@nano": 3.0}) for each in FRONT]
    with pytest.raises(ConfigurationError) as caught:
        select(both, OBJECTIVES, preference)
    assert str(caught.value) == (
        "objective 'latency_ms' means latency_ms@pi4 and latency_ms@nano; write one of these"
    )


def test_select_takes_the_address_of_a_device_for_no_tolerance():
    objectives = [Objective.parse("latency_ms@pi4.lan:50151")]
    slow, fast = (
        replace(MIDDLE, index=index, values={objectives[0].key: latency_ms})
        for index, latency_ms in enumerate((2.0, 1.0))
    )
    assert select([slow, fast], objectives, "latency_ms@pi4.lan:50151") is fast
    assert select([slow, fast], objectives, "latency_ms@pi4.lan:50151:1") is fast


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("accuracy:5", "a fraction of 0 to 1, or percent of the best as in accuracy:1%"),
        ("accuracy:-1%", "a fraction of 0 to 1, or percent of the best as in accuracy:1%"),
        ("latency_ms:", "a number of at least 0 in ms, or percent of the best as in latency_ms@pi4:1%"),
        ("latency_ms:2ms", "a number of at least 0 in ms, or percent of the best as in latency_ms@pi4:1%"),
        ("latency_ms:nan", "a number of at least 0 in ms, or percent of the best as in latency_ms@pi4:1%"),
        ("latency_ms:inf%", "a number of at least 0 in ms, or percent of the best as in latency_ms@pi4:1%"),
    ],
)
def test_select_refuses_a_tolerance_that_does_not_fit(term: str, expected: str):
    with pytest.raises(ConfigurationError) as caught:
        select(FRONT, OBJECTIVES, f"{term},params_m")
    assert str(caught.value) == f"tolerance {term!r} does not fit; expected {expected}"


def test_select_names_the_nearest_where_no_candidate_meets_the_bounds():
    with pytest.raises(NotFoundError) as caught:
        select(FRONT, OBJECTIVES, "accuracy, latency_ms<=4, peak_memory_mb<=4, accuracy>=0.9")
    assert str(caught.value) == (
        "no candidate of the front meets latency_ms@pi4<=4 and peak_memory_mb@pi4<=4 and accuracy>=0.9; the nearest, "
        f"{SMALL.id}, misses accuracy>=0.9 by 0.15; allow more, or search with this as a constraint"
    )


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        ("accuracy,latency_ms<15", "constraint 'latency_ms<15' is not understood; expected METRIC<=NUMBER"),
        (
            "accuracy,accuracy>=90",
            "constraint accuracy>=90 does not fit accuracy, a fraction; expected a bound",
        ),
        ("accuracy=0.7,latency", "weights 'accuracy=0.7,latency' are not understood; expected NAME=NUMBER"),
        ("accuracy=much", "weights 'accuracy=much' are not understood; expected NAME=NUMBER"),
        ("accuracy=1=2", "weights 'accuracy=1=2' are not understood; expected NAME=NUMBER"),
        ("accuracy=0,latency=0", "all weights are 0; give at least one objective some weight"),
    ],
)
def test_select_refuses_what_is_not_understood(preference: str, message: str):
    with pytest.raises(ConfigurationError) as caught:
        select(FRONT, OBJECTIVES, preference)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("weights", "selected"),
    [
        ("accuracy=1", ACCURATE),
        ("latency=1", FAST),
        ("memory=1", SMALL),
        ("latency_ms@pi4=2", FAST),
        ("peak_memory_mb=0.1", SMALL),
        ("accuracy=1,latency=1,memory=1", MIDDLE),
        ("accuracy=1, latency=0", ACCURATE),
        ("accuracy=0.7,latency=0.2,memory=0.1", MIDDLE),
        ("accuracy=7e-7,latency=2e-7,memory=1e-7", MIDDLE),
        ("accuracy=7e307,latency=2e307,memory=1e307", MIDDLE),
    ],
)
def test_select_finds_the_least_weighted_sum(weights: str, selected: Trial):
    assert select(FRONT, OBJECTIVES, weights) is selected


@pytest.mark.parametrize(
    "weight", ["accuracy=-1", "energy=1", "latency_ms@nano=0.5", "params_m=1", "accuracy=nan", "accuracy=inf"]
)
def test_select_refuses_a_weight_that_does_not_fit(weight: str):
    with pytest.raises(ConfigurationError) as caught:
        select(FRONT, OBJECTIVES, f"memory=1,{weight}")
    assert str(caught.value) == (
        f"weight {weight} does not fit; expected a number of at least 0 for one of accuracy, latency_ms@pi4, peak_memory_mb@pi4"
    )


def test_select_refuses_a_weight_that_fits_several_objectives():
    objectives = [*OBJECTIVES, Objective.parse("latency_ms@nano")]
    both = [replace(each, values={**each.values, "latency_ms@nano": 3.0}) for each in FRONT]
    with pytest.raises(
        ConfigurationError, match=r"weight latency=1 does not fit; .* one of accuracy, latency_ms@pi4"
    ):
        select(both, objectives, "latency=1")


@st.composite
def fronts(draw: st.DrawFn) -> list[Trial]:
    """Draw the front of up to 12 trials, from few values so that ties are common."""
    level = st.integers(0, 8)
    rows = draw(st.lists(st.tuples(level, level, level), min_size=1, max_size=12))
    return front(OBJECTIVES, [trial(index, a / 8, 1.0 + b, 1.0 + c) for index, (a, b, c) in enumerate(rows)])


PREFERENCES = (
    "knee",
    "vote",
    "accuracy",
    "latency_ms:10%,accuracy:0.1",
    "accuracy=0.5,memory=0.5",
    "params_m",
)


@given(trials=fronts(), preference=st.sampled_from(PREFERENCES))
def test_what_is_selected_is_of_the_front(trials: list[Trial], preference: str):
    assert any(select(trials, OBJECTIVES, preference) is each for each in trials)


@given(trials=fronts(), bound=st.integers(0, 10))
def test_what_is_selected_under_a_bound_is_the_best_that_meets_it(trials: list[Trial], bound: int):
    meeting = [each for each in trials if each.values["latency_ms@pi4"] <= bound]
    preference = f"accuracy,latency_ms<={bound}"
    if not meeting:
        with pytest.raises(NotFoundError, match=f"no candidate of the front meets latency_ms@pi4<={bound};"):
            select(trials, OBJECTIVES, preference)
        return
    selected = select(trials, OBJECTIVES, preference)
    assert selected in meeting
    assert selected.values["accuracy"] == max(each.values["accuracy"] for each in meeting)
