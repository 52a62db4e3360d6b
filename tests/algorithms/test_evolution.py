from collections.abc import Callable, Sequence

import numpy as np
import pytest

from controller.algorithms import Evolution, RandomSearch
from controller.core.network import Network
from controller.core.objective import Constraint, Objective
from controller.core.protocols import Problem, SearchAlgorithm
from controller.core.trial import Trial, TrialState
from controller.spaces import ChainSpace

SPACE = ChainSpace(input_shape=(3, 16, 16), classes=10, max_layers=6, channels=(8, 16, 32, 64))
PROBLEM = Problem(space=SPACE, objectives=(Objective.parse("accuracy"), Objective.parse("macs_m")))


def figures(network: Network) -> dict[str, float]:
    """Return what to trade off: wide layers score high, and cost multiply-accumulates.

    Good networks shrink the image early and widen with cheap operations, which few random ones do.
    """
    width = sum(block.layers[-1].shape[0] for block in network.blocks if block.name.startswith("layer_"))
    return {"accuracy": width / (64 * 6), "macs_m": network.macs / 1e6}


def searched(algorithm: SearchAlgorithm, count: int, constraints: Sequence[Constraint] = ()) -> list[Trial]:
    """Return count trials of a search that tells of each candidate before it asks for the next."""
    trials: list[Trial] = []
    for index in range(count):
        (architecture,) = algorithm.ask(1)
        values = figures(SPACE.lower(architecture))
        violation = sum(constraint.violation(values) for constraint in constraints)
        state = TrialState.REJECTED if violation else TrialState.COMPLETE
        trials.append(
            Trial(index=index, architecture=architecture, state=state, values=values, violation=violation)
        )
        algorithm.tell(trials[-1:])
    return trials


def area(trials: Sequence[Trial], most_macs_m: float = 2.0) -> float:
    """Return the mean over 0 to 2 M multiply-accumulates of the best accuracy for so few."""
    budgets = np.linspace(0, most_macs_m, 1001)
    return float(
        np.mean(
            [
                max((t.values["accuracy"] for t in trials if t.values["macs_m"] <= budget), default=0.0)
                for budget in budgets
            ]
        )
    )


def mean_area(algorithm: Callable[[int], SearchAlgorithm]) -> float:
    return float(np.mean([area(searched(algorithm(seed), 200)) for seed in range(6)]))


def test_evolution_covers_more_than_random_search():
    evolution = mean_area(lambda seed: Evolution(PROBLEM, seed))
    random = mean_area(lambda seed: RandomSearch(PROBLEM, seed))
    assert evolution > 1.2 * random


def test_evolution_finds_its_way_to_what_is_feasible():
    constraints = [Constraint.parse("accuracy>=0.6"), Constraint.parse("macs_m<=3")]
    trials = [
        trial
        for seed in range(3)
        for trial in enumerate(searched(Evolution(PROBLEM, seed), 150, constraints))
    ]
    feasible_early = [trial.feasible for position, trial in trials if position < 30]
    feasible_late = [trial.feasible for position, trial in trials if position >= 120]
    assert np.mean(feasible_early) < 0.1
    assert np.mean(feasible_late) > 0.25


def test_evolution_begins_as_random_search_does():
    sampled = RandomSearch(PROBLEM, 0).ask(20)
    assert Evolution(PROBLEM, 0).ask(20) == sampled


def test_evolution_samples_as_long_as_it_is_told_of_nothing():
    sampled = RandomSearch(PROBLEM, 0).ask(60)
    assert Evolution(PROBLEM, 0).ask(60) == sampled


def test_evolution_breeds_once_its_population_is_known():
    evolution = Evolution(PROBLEM, 0, population=4)
    asked = [trial.architecture for trial in searched(evolution, 8)]
    sampled = RandomSearch(PROBLEM, 0).ask(8)
    assert asked[:4] == sampled[:4]
    assert set(asked[4:]).isdisjoint(sampled)


@pytest.mark.parametrize("unlucky", [TrialState.FAILED, TrialState.REJECTED])
def test_evolution_breeds_from_the_one_candidate_that_is_feasible(unlucky: TrialState):
    evolution = Evolution(PROBLEM, 0, population=2, crossover_probability=0.0)
    first, second = evolution.ask(2)
    evolution.tell(
        [
            Trial(
                index=0, architecture=first, state=unlucky, violation=0.5 * (unlucky is TrialState.REJECTED)
            ),
            Trial(
                index=1, architecture=second, state=TrialState.COMPLETE, values=figures(SPACE.lower(second))
            ),
        ]
    )
    # Of a tournament's two entrants the feasible one wins; only one in four has the other one twice.
    rng = np.random.default_rng(0)
    neighbours = {SPACE.mutate(second, rng) for _ in range(2000)}
    children = evolution.ask(20)
    assert sum(child in neighbours for child in children) > 10


def test_evolution_lets_the_most_crowded_candidate_go():
    evolution = Evolution(PROBLEM, 0, population=3, crossover_probability=0.0)
    # None dominates another; of the two in the middle the second has its neighbours closer by.
    points = [(0.0, 0.0), (0.1, 1.0), (0.6, 6.0), (1.0, 10.0)]
    asked = evolution.ask(4)
    evolution.tell(
        [
            Trial(
                index=index,
                architecture=architecture,
                state=TrialState.COMPLETE,
                values={"accuracy": accuracy, "macs_m": macs_m},
            )
            for index, (architecture, (accuracy, macs_m)) in enumerate(zip(asked, points, strict=True))
        ]
    )
    rng = np.random.default_rng(0)
    neighbours = [{SPACE.mutate(parent, rng) for _ in range(1000)} for parent in asked]
    children = evolution.ask(40)
    assert not any(child in neighbours[1] for child in children)
    assert all(any(child in neighbours[kept] for child in children) for kept in (0, 2, 3))
