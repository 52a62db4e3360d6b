"""Replaying a table."""

from pathlib import Path

import numpy as np
import pytest
from example_table import write_table

from controller.algorithms import ALGORITHMS
from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError
from controller.core.objective import Constraint, Objective
from controller.core.protocols import Problem
from controller.core.table import read_table
from controller.core.trial import Trial
from controller.replay import REPLAYABLE, Checkpoint, Comparison, Replay, Replayed, compared

OBJECTIVES = (Objective.parse("accuracy"), Objective.parse("latency_ms@pi4"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.csv.gz")


def test_whole_table_covers_all_of_its_hypervolume_and_leaves_no_regret(table: Path):
    replayed = Replay(read_table(table), OBJECTIVES).run(ALGORITHMS["random"], 0, (10, 64))
    assert replayed.hypervolume[0] < replayed.hypervolume[1] == pytest.approx(1.0)
    assert replayed.regret == pytest.approx((0.0, 0.0))


def test_hypervolume_is_scaled_by_the_tables_minimum_and_99th_percentile(tmp_path: Path):
    path = tmp_path / "line.csv"
    # Minima 0; of 101 evenly spaced values the 99th percentile is 99.
    path.write_text(
        "choice.a,latency_ms@pi4,energy_mj@pi4\n" + "".join(f"{i},{i},{100 - i}\n" for i in range(101))
    )
    objectives = [Objective.parse("latency_ms@pi4"), Objective.parse("energy_mj@pi4")]
    replay = Replay(read_table(path), objectives)
    replayed = replay.run(ALGORITHMS["random"], 0, (1,))
    first = ALGORITHMS["random"](replay.problem, 0).ask(1)[0]["a"]
    scaled = np.arange(101) / 99
    steps = np.diff(np.append(scaled[scaled < 1.1], 1.1))
    whole = (steps * (1.1 - scaled[::-1])[: len(steps)]).sum()
    assert replayed.hypervolume[0] == pytest.approx((1.1 - first / 99) * (1.1 - (100 - first) / 99) / whole)


class Elsewhere:
    """A program that is not ours: it only asks and is told."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.told: list[Trial] = []
        self._random = ALGORITHMS["random"](problem, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._random.ask(count)

    def tell(self, trials: list[Trial]) -> None:
        self.told += trials


def test_program_that_only_asks_and_is_told_is_replayed_like_an_algorithm(table: Path):
    replay, ran = Replay(read_table(table), OBJECTIVES), []

    def build(problem: Problem, seed: int) -> Elsewhere:
        ran.append(Elsewhere(problem, seed))
        return ran[-1]

    assert (
        replay.run(build, 3, (10, 20)).hypervolume
        == replay.run(ALGORITHMS["random"], 3, (10, 20)).hypervolume
    )
    assert ran[0].told == replay.trials([trial.architecture for trial in ran[0].told])


def test_comparison_is_mean_and_deviation_over_runs():
    runs = [
        Replayed(hypervolume=(0.5, 0.75), regret=(1.0, 0.0), seconds_per_ask=(0.25, 0.5)),
        Replayed(hypervolume=(0.7, 0.75), regret=(2.0, 0.5), seconds_per_ask=(0.75, 0.5)),
    ]
    found = Comparison.of("elsewhere", (25, 50), runs)
    assert found.regret == (1.5, 0.25)
    assert found.checkpoints == (
        Checkpoint(
            evaluations=25,
            hypervolume_mean=pytest.approx(0.6),
            hypervolume_std=pytest.approx(0.1),
            seconds_per_ask=0.5,
        ),
        Checkpoint(evaluations=50, hypervolume_mean=0.75, hypervolume_std=0.0, seconds_per_ask=0.5),
    )


@pytest.mark.parametrize(
    ("evaluations", "expected"), [(10, [10]), (25, [25]), (60, [25, 50, 60]), (999, [25, 50, 64])]
)
def test_a_table_is_looked_at_up_to_all_that_is_evaluated(table: Path, evaluations: int, expected: list[int]):
    assert Replay(read_table(table), OBJECTIVES).checkpoints(evaluations) == expected


@pytest.mark.parametrize("name", REPLAYABLE)
def test_every_algorithm_searches_a_table_to_its_end(table: Path, name: str):
    found = compared(Replay(read_table(table), OBJECTIVES), name, seeds=[0], evaluations=1000)
    assert [at.evaluations for at in found.checkpoints] == [25, 50, 64]
    assert found.checkpoints[-1].hypervolume_mean == pytest.approx(1.0)
    assert found.checkpoints[-1].hypervolume_std == 0.0


def test_rows_that_lack_a_figure_are_left_out(tmp_path: Path):
    path = tmp_path / "gaps.csv"
    path.write_text("choice.a,accuracy,latency_ms@pi4\n1,90,5\n2,91,\n3,92,7\n4,,8\n")
    replay = Replay(read_table(path), OBJECTIVES)
    assert (len(replay), replay.left_out) == (2, 2)


def test_what_breaks_a_constraint_does_not_count(table: Path):
    constraint = Constraint.parse("latency_ms@pi4<=6")
    free, bound = (Replay(read_table(table), OBJECTIVES, constraints) for constraints in ((), (constraint,)))
    assert free.run(ALGORITHMS["random"], 0, (64,)).hypervolume == pytest.approx((1.0,))
    constrained = bound.run(ALGORITHMS["random"], 0, (3, 64))
    assert constrained.hypervolume[-1] == pytest.approx(1.0)
    assert constrained.hypervolume[0] < 1.0


@pytest.mark.parametrize("name", ["surrogate", "evolution", "ensemble"])
def test_search_finds_what_meets_a_tight_constraint_sooner_than_at_random(table: Path, name: str):
    replay = Replay(read_table(table), OBJECTIVES, [Constraint.parse("latency_ms@pi4<=4.2")])
    means = [
        compared(replay, algorithm, seeds=range(6), evaluations=25).checkpoints[-1].hypervolume_mean
        for algorithm in (name, "random")
    ]
    assert means[0] > means[1]


@pytest.mark.parametrize(
    ("objectives", "constraints", "message"),
    [
        (("latency_ms@pi3",), (), "no column 'latency_ms@pi3'; expected one of .*latency_ms@pi4"),
        (("accuracy",), ("latency_ms@pi4<=0.5",), "no row of table .* meets latency_ms@pi4<=0.5"),
        (("accuracy", "macs_m", "accuracy"), (), "'accuracy' is given twice"),
        (
            ("macs_m",),
            ("accuracy>=0.8",),
            "accuracy>=0.8 is on a fraction, and table .* has accuracy up to 7",
        ),
    ],
)
def test_what_a_table_cannot_answer_is_refused(
    table: Path, objectives: tuple[str, ...], constraints: tuple[str, ...], message: str
):
    with pytest.raises(ConfigurationError, match=message):
        Replay(
            read_table(table),
            [Objective.parse(text) for text in objectives],
            [Constraint.parse(text) for text in constraints],
        )


def test_column_that_does_not_vary_is_no_objective(tmp_path: Path):
    path = tmp_path / "flat.csv"
    path.write_text("choice.a,accuracy,latency_ms@pi4\n1,90,5\n2,91,5\n")
    with pytest.raises(ConfigurationError, match=r"'latency_ms@pi4' of table flat\.csv does not vary"):
        Replay(read_table(path), OBJECTIVES)


def test_rows_that_are_all_beyond_the_scale_are_refused(tmp_path: Path):
    path = tmp_path / "far.csv"
    rows = [f"{place},0.5,{1 + place / 200}" for place in range(200)]
    path.write_text("\n".join(["choice.a,accuracy,latency_ms@pi4", *rows, "200,0.95,40\n"]))
    with pytest.raises(
        ConfigurationError, match=r"every row of table far\.csv that meets accuracy>=0.9 is beyond"
    ):
        Replay(read_table(path), OBJECTIVES, [Constraint.parse("accuracy>=0.9")])


@pytest.mark.parametrize("name", REPLAYABLE)
def test_what_is_known_of_a_row_only_once_it_is_evaluated_may_be_an_objective(tmp_path: Path, name: str):
    path = tmp_path / "peaks.csv"
    rows = [f"{a},{b},{a / 9},{1 + a * b}" for a in range(9) for b in range(9)]
    path.write_text("\n".join(["choice.a,choice.b,accuracy,peak_activation_mb", *rows]))
    replay = Replay(
        read_table(path),
        [Objective.parse("accuracy"), Objective.parse("peak_activation_mb")],
        [Constraint.parse("peak_activation_mb<=50")],
    )
    assert replay.run(ALGORITHMS[name], 0, (40,)).hypervolume[0] > 0.5
