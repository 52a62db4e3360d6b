import numpy as np
import pytest

from controller.algorithms import Reinforce
from controller.core.errors import ConfigurationError
from controller.core.objective import Constraint, Objective
from controller.core.protocols import Problem
from controller.core.trial import Trial, TrialState
from controller.spaces import ChainSpace

ENERGY = "energy_mj@pi4"
SPACE = ChainSpace(input_shape=(1, 8, 8), classes=10, max_layers=4)
WITH_TARGET = ["absolute", "soft"]


def reinforce(*constraints: str, **options: object) -> Reinforce:
    problem = Problem(
        space=SPACE,
        objectives=(Objective.parse("accuracy"), Objective.parse(ENERGY)),
        constraints=tuple(Constraint.parse(text) for text in constraints),
    )
    return Reinforce(problem, 0, **options)


def tell(algorithm: Reinforce, index: int, energy_mj: float, accuracy: float = 0.5) -> None:
    (architecture,) = algorithm.ask(1)
    values = {"accuracy": accuracy, ENERGY: energy_mj}
    algorithm.tell(
        [Trial(index=index, architecture=architecture, state=TrialState.COMPLETE, epochs=1, values=values)]
    )


@pytest.mark.parametrize("reward", WITH_TARGET)
@pytest.mark.parametrize("energy_mj", [-0.5, 0.0, 1e-9, 1e9])
def test_any_figure_of_a_target_has_a_reward(reward: str, energy_mj: float):
    algorithm = reinforce(f"{ENERGY}<=2", reward=reward)
    for index in range(4):
        tell(algorithm, index, energy_mj)
    assert np.isfinite(algorithm.points["reward"])
    assert len(algorithm.ask(3)) == 3


@pytest.mark.parametrize("reward", WITH_TARGET)
def test_what_is_at_the_target_is_rewarded_more_than_what_is_above_it(reward: str):
    at, above = (reinforce(f"{ENERGY}<=2", reward=reward) for _ in range(2))
    tell(at, 0, 2.0)
    tell(above, 0, 4.0)
    assert at.points["reward"] > above.points["reward"]


def test_the_absolute_reward_has_its_maximum_at_the_target():
    rewards = []
    for energy_mj in (1.0, 2.0, 3.0):
        algorithm = reinforce(f"{ENERGY}<=2", reward="absolute")
        tell(algorithm, 0, energy_mj)
        rewards.append(algorithm.points["reward"])
    assert rewards[1] == max(rewards)


@pytest.mark.parametrize("reward", WITH_TARGET)
def test_a_reward_with_a_target_needs_one(reward: str):
    with pytest.raises(ConfigurationError, match="has 0 constraints METRIC<=BOUND"):
        reinforce(reward=reward)


@pytest.mark.parametrize(("energy_mj", "accuracy", "better"), [(1.0, 0.9, True), (4.0, 0.1, False)])
def test_the_first_candidate_is_rewarded_as_neither_good_nor_bad(
    energy_mj: float, accuracy: float, better: bool
):
    algorithm = reinforce()
    tell(algorithm, 0, 2.0, 0.5)
    first = algorithm.points["reward"]
    tell(algorithm, 1, energy_mj, accuracy)
    assert (algorithm.points["reward"] > first) == better


def test_what_is_as_good_is_rewarded_alike_however_much_better_others_have_become():
    algorithm = Reinforce(Problem(space=SPACE, objectives=(Objective.parse("accuracy"),), constraints=()), 0)
    for index in range(20):
        tell(algorithm, index, 1.0, 0.3 + 0.02 * index)
    tell(algorithm, 20, 1.0, 0.7)
    early = algorithm.points["reward"]
    for index in range(21, 31):
        tell(algorithm, index, 1.0, 0.95)
    better = algorithm.points["reward"]
    tell(algorithm, 31, 1.0, 0.7)
    assert algorithm.points["reward"] == early < better
