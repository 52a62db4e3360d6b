from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState
from controller.pareto.front import front, minimised, non_dominated
from controller.pareto.selection import Step, knee, lexicographic, vote, weighted

OBJECTIVES = [Objective.parse(text, "pi4") for text in ("accuracy", "latency_ms", "peak_memory_mb")]
ACCURACY, LATENCY, MEMORY = OBJECTIVES

EQUAL_WEIGHTS = partial(weighted, OBJECTIVES, np.ones(3))
BY_ACCURACY = partial(lexicographic, OBJECTIVES, [Step(objective=ACCURACY)])
RULES = [partial(knee, OBJECTIVES), partial(vote, OBJECTIVES), EQUAL_WEIGHTS, BY_ACCURACY]
RULE_NAMES = ["knee", "vote", "weighted", "lexicographic"]


def trial(index: int, *values: float) -> Trial:
    """Return a trial with values of the objectives, in their order."""
    return Trial(
        index=index,
        architecture=Architecture.of({"index": index}),
        state=TrialState.COMPLETE,
        values={objective.key: value for objective, value in zip(OBJECTIVES, values, strict=True)},
    )


def trials_of(*rows: Sequence[float]) -> list[Trial]:
    return [trial(index, *row) for index, row in enumerate(rows)]


@st.composite
def fronts(draw: st.DrawFn) -> list[Trial]:
    """Draw the front of up to 12 trials, from few values so that ties and equal trials are common."""
    level = st.integers(0, 8)
    rows = draw(st.lists(st.tuples(level, level, level), min_size=1, max_size=12))
    return front(OBJECTIVES, trials_of(*((a / 8, 1.0 + b, 1.0 + c) for a, b, c in rows)))


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rule_of_two_that_are_as_good_chooses_the_first(rule):
    # Worse in latency by as much of the span as it is better in accuracy; equal in memory.
    first, second = trials_of((0.9, 10.0, 4.0), (0.8, 5.0, 4.0))
    assert rule([first, second]) is first


@pytest.mark.parametrize("rule", RULES[:3], ids=RULE_NAMES[:3])
def test_rule_of_two_chooses_what_is_better_in_most_objectives(rule):
    first, second = trials_of((0.9, 10.0, 4.0), (0.8, 5.0, 3.0))
    assert rule([first, second]) is second


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rule_does_not_mind_an_objective_in_which_all_are_equal(rule):
    rows = [(0.95, 20.0), (0.92, 6.0), (0.80, 1.0)]
    chosen = {rule(trials_of(*((*row, memory_mb) for row in rows))).index for memory_mb in (0.0, 1e-9, 7.0)}
    assert len(chosen) == 1


@pytest.mark.parametrize("rule", RULES, ids=RULE_NAMES)
def test_rule_of_equal_trials_chooses_the_first(rule):
    twins = trials_of((0.9, 10.0, 4.0), (0.9, 10.0, 4.0))
    assert rule(twins) is twins[0]


def test_weights_of_an_objective_in_which_all_are_equal_choose_the_first():
    trials = trials_of((0.9, 10.0, 4.0), (0.8, 5.0, 4.0))
    assert weighted(OBJECTIVES, np.array([0.0, 0.0, 1.0]), trials) is trials[0]


def test_weights_that_add_up_to_the_same_choose_the_first():
    # 0.1 + 0.2 is more than 0.3 by rounding.
    trials = trials_of((0.9, 10.0, 4.0), (0.8, 5.0, 3.0))
    assert weighted(OBJECTIVES, np.array([0.3, 0.2, 0.1]), trials) is trials[0]


def test_lexicographic_takes_the_next_objective_among_those_within_tolerance():
    trials = trials_of((0.95, 20.0, 4.0), (0.94, 9.0, 4.0), (0.93, 5.0, 4.0))
    steps = [Step(objective=ACCURACY, tolerance=0.01), Step(objective=LATENCY)]
    assert lexicographic(OBJECTIVES, steps, trials) is trials[1]


@pytest.mark.parametrize("best", [0.3, 0.57, 0.94])
def test_lexicographic_counts_what_is_as_much_worse_as_tolerated(best: float):
    trials = trials_of((best, 20.0, 4.0), (round(best - 0.01, 2), 9.0, 4.0))
    steps = [Step(objective=ACCURACY, tolerance=0.01), Step(objective=LATENCY)]
    assert lexicographic(OBJECTIVES, steps, trials) is trials[1]


def test_lexicographic_takes_a_share_of_the_best():
    trials = trials_of((0.95, 20.0, 4.0), (0.94, 11.0, 3.0), (0.5, 10.0, 2.0))
    steps = [Step(objective=LATENCY, tolerance=0.1, relative=True), Step(objective=ACCURACY)]
    assert lexicographic(OBJECTIVES, steps, trials) is trials[1]


def test_lexicographic_breaks_ties_by_the_objectives_not_named():
    trials = trials_of((0.9, 10.0, 4.0), (0.9, 12.0, 2.0), (0.8, 1.0, 1.0))
    assert lexicographic(OBJECTIVES, [Step(objective=ACCURACY)], trials) is trials[0]
    assert lexicographic([ACCURACY, MEMORY, LATENCY], [Step(objective=ACCURACY)], trials) is trials[1]


def test_lexicographic_breaks_what_tolerance_left_by_importance():
    trials = trials_of((0.9, 10.0, 4.0), (0.89, 9.0, 4.0))
    steps = [
        Step(objective=LATENCY, tolerance=2.0),
        Step(objective=ACCURACY, tolerance=0.1),
        Step(objective=MEMORY),
    ]
    assert lexicographic(OBJECTIVES, steps, trials) is trials[1]


def test_vote_of_an_example():
    # In two objectives the voters for these cancel. Of the others, the third is first by distance (0.67, before 0.81,
    # 1 and 1), by sum (0.94, before 0.98, 1 and 1) and by hypervolume.
    objectives = [ACCURACY, LATENCY]
    trials = trials_of((1.0, 11.0, 0.0), (0.9, 9.8, 0.0), (0.6, 6.4, 0.0), (0.0, 1.0, 0.0))
    assert vote(objectives, trials) is trials[2]


def test_vote_of_one_objective_is_the_first_of_the_best():
    twins = trials_of((0.9, 1.0, 1.0), (0.9, 2.0, 2.0))
    assert vote([ACCURACY], twins) is twins[0]


@given(trials=fronts())
def test_vote_elects_what_no_other_dominates(trials: list[Trial]):
    elected = vote(OBJECTIVES, trials)
    assert any(elected is each for each in trials)
    assert non_dominated(minimised(OBJECTIVES, trials))[trials.index(elected)]


@given(
    trials=fronts(),
    factors=st.tuples(*[st.sampled_from((1e-6, 0.3, 1.1, 7.0, 1000.0, 1e9))] * 3),
    offset=st.sampled_from((0.0, 0.1, 5.0)),
)
def test_vote_does_not_depend_on_units(trials: list[Trial], factors: tuple[float, ...], offset: float):
    rescaled = trials_of(
        *(
            [factor * (each.values[o.key] + offset) for factor, o in zip(factors, OBJECTIVES, strict=True)]
            for each in trials
        )
    )
    assert rescaled.index(vote(OBJECTIVES, rescaled)) == trials.index(vote(OBJECTIVES, trials))


@given(trials=fronts(), data=st.data())
def test_vote_does_not_depend_on_the_order_of_the_trials(trials: list[Trial], data: st.DataObject):
    shuffled = data.draw(st.permutations(trials))
    assert vote(OBJECTIVES, shuffled).values == vote(OBJECTIVES, trials).values


@given(trials=fronts(), objective=st.sampled_from(OBJECTIVES), tolerance=st.sampled_from((0.0, 0.125, 1.0)))
def test_lexicographic_choice_is_within_tolerance_of_the_best_in_the_first_objective(
    trials: list[Trial], objective: Objective, tolerance: float
):
    steps = [Step(objective=objective, tolerance=tolerance), Step(objective=MEMORY)]
    chosen = minimised([objective], [lexicographic(OBJECTIVES, steps, trials)])[0, 0]
    assert chosen <= minimised([objective], trials).min() + tolerance
