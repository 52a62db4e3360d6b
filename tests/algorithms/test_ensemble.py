from pathlib import Path

import pytest

from controller.algorithms import Ensemble
from controller.core.errors import ConfigurationError
from controller.core.objective import Objective
from controller.core.protocols import Problem
from controller.core.table import read_table
from controller.core.trial import Trial, TrialState
from controller.replay import Replay
from controller.spaces import ChainSpace

LATENCY = "latency_ms@pi4"
SPACE = ChainSpace(input_shape=(1, 8, 8), classes=10, max_layers=5)


def ensemble(**options: object) -> Ensemble:
    problem = Problem(space=SPACE, objectives=(Objective.parse("accuracy"), Objective.parse(LATENCY)))
    return Ensemble(problem, 0, **options)


def answered(algorithm: Ensemble, index: int, slow_member: str = "") -> Trial:
    """Ask for a candidate, and tell that more parameters are better and more multiplications slower.

    What slow_member asks for takes a thousand times as long to train.
    """
    (architecture,) = algorithm.ask(1)
    network = SPACE.lower(architecture)
    trial = Trial(
        index=index,
        architecture=architecture,
        state=TrialState.COMPLETE,
        epochs=5,
        values={"accuracy": 1 - 1000 / (1000 + network.parameters), LATENCY: network.macs / 1e5},
        training_s=1000.0 if algorithm._asked_by.get(architecture.id) == slow_member else 1.0,
    )
    algorithm.tell([trial])
    return trial


def test_the_first_member_is_trusted_most_until_more_is_known():
    for members in (("surrogate", "local"), ("local", "surrogate")):
        shares = ensemble(members=members).points
        assert list(shares) == [f"share_{name}" for name in members]
        assert shares[f"share_{members[0]}"] > 0.75
        assert sum(shares.values()) == pytest.approx(1.0)


def test_each_member_keeps_a_share_whatever_it_gained():
    algorithm = ensemble(floor=0.1, initial=5)
    for index in range(40):
        answered(algorithm, index)
        assert min(algorithm.points.values()) >= 0.1 - 1e-12


def test_a_member_whose_gains_cost_much_time_asks_less():
    algorithm = ensemble(members=("local", "evolution"), initial=3, floor=0.05)
    before = algorithm.points["share_evolution"]
    for index in range(60):
        answered(algorithm, index, slow_member="local")
    assert algorithm.points["share_evolution"] > 0.5 > before


def test_nobody_is_credited_before_the_box_is_fixed():
    algorithm = ensemble(initial=8)
    before = dict(algorithm.points)
    for index in range(8):
        answered(algorithm, index)
        assert algorithm.points == before


@pytest.mark.parametrize("seed", range(12))
def test_members_that_ask_for_what_another_waits_for_know_it_after_an_interruption(tmp_path: Path, seed: int):
    table = tmp_path / "table.csv"
    rows = [f"{a},{b},{(3 * a + 5 * b) % 11},{1 + a + 2 * b}" for a in range(6) for b in range(6)]
    table.write_text("\n".join([f"choice.a,choice.b,accuracy,{LATENCY}", *rows]))
    replay = Replay(read_table(table), [Objective.parse("accuracy"), Objective.parse(LATENCY)])

    def asked(interrupted: bool) -> list[str]:
        options = {"members": ("local", "regularized_evolution", "evolution"), "floor": 0.3}
        algorithm = Ensemble(replay.problem, seed, **options)
        waiting, told, found = [], [], []
        for _ in range(30):
            (architecture,) = algorithm.ask(1)
            found.append(architecture.id)
            waiting.append(architecture)
            if len(waiting) == 4:
                told += replay.trials([waiting.pop(0)], first_index=len(told))
                algorithm.tell(told[-1:])
            if interrupted:
                state = algorithm.state()
                algorithm = Ensemble(replay.problem, seed, **options)
                algorithm.restore(state, told, waiting)
        return found

    assert asked(interrupted=True) == asked(interrupted=False)


@pytest.mark.parametrize("floor", [0.34, 1.0, -0.1])
def test_more_than_there_is_cannot_be_kept_for_each_member(floor: float):
    with pytest.raises(ConfigurationError, match=r"for each of 3 members; expected 0 to 0\.33"):
        ensemble(floor=floor)
