import numpy as np

from controller.algorithms import RandomSearch
from controller.core.objective import Objective
from controller.core.protocols import Problem
from controller.core.trial import Trial, TrialState
from controller.spaces import ChainSpace

SPACE = ChainSpace(input_shape=(1, 8, 8), classes=10)
PROBLEM = Problem(space=SPACE, objectives=(Objective.parse("accuracy"),))


def test_random_search_samples_the_space():
    rng = np.random.default_rng(5)
    assert RandomSearch(PROBLEM, 5).ask(10) == [SPACE.sample(rng) for _ in range(10)]


def test_random_search_learns_nothing():
    told, untold = RandomSearch(PROBLEM, 0), RandomSearch(PROBLEM, 0)
    (architecture,) = told.ask(1)
    told.tell(
        [Trial(index=0, architecture=architecture, state=TrialState.COMPLETE, values={"accuracy": 1.0})]
    )
    assert told.ask(10) == untold.ask(11)[1:]
