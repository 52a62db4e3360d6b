"""How much training a candidate gets where the algorithm decides that while it is trained."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from search_laboratory import RECIPE, Killed, Laboratory

from controller.algorithms import Progressive, RandomSearch
from controller.core.budget import Budget
from controller.core.trial import Trial, TrialState, accuracy_after
from controller.store.records import Run

FOUR_EPOCHS = replace(RECIPE, epochs=4)


class Halving(RandomSearch):
    """Stops every candidate with an odd index after one epoch; remembers what it was asked."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.asked: list[tuple[Trial, int]] = []

    def rungs(self, epochs: int) -> Sequence[int]:
        return (1, 2)

    def worth_more(self, trial: Trial, epochs: int) -> bool:
        self.asked.append((trial, epochs))
        return trial.index % 2 == 0


def searched(laboratory: Laboratory, run: Run, algorithm: object, budget: str = "6") -> Sequence[Trial]:
    search = laboratory.search(run, algorithm, recipe=FOUR_EPOCHS, budget=Budget.parse(budget))  # type: ignore[arg-type]
    search.run()
    return search.trials


def test_candidate_that_is_not_worth_more_is_stopped_and_kept_off_the_front(laboratory: Laboratory) -> None:
    run, algorithm = laboratory.run(), Halving(laboratory.problem, seed=0)

    trials = searched(laboratory, run, algorithm)

    stopped = [trial for trial in trials if trial.index % 2]
    assert {trial.state for trial in stopped} == {TrialState.STOPPED}
    assert {trial.epochs for trial in stopped} == {1}
    assert all("after 1 of 4 epochs" in trial.reason for trial in stopped)
    assert all("accuracy" not in trial.values and accuracy_after(1) in trial.values for trial in stopped)
    others = [trial for trial in trials if trial.index % 2 == 0]
    assert all(
        trial.epochs == 4 and {"accuracy", accuracy_after(1), accuracy_after(2)} <= set(trial.values)
        for trial in others
    )
    assert laboratory.store.trials(run.id).trials == tuple(trials)


def test_candidate_is_looked_at_with_everything_else_known(laboratory: Laboratory) -> None:
    algorithm = Halving(laboratory.problem, seed=0)

    searched(laboratory, laboratory.run(), algorithm)

    key = laboratory.problem.objectives[1].key
    assert algorithm.asked
    assert all(
        key in trial.values and accuracy_after(epochs) in trial.values for trial, epochs in algorithm.asked
    )


def test_stopped_candidate_counts_by_its_share_of_the_epochs(laboratory: Laboratory) -> None:
    trials = searched(laboratory, laboratory.run(), Halving(laboratory.problem, seed=0), budget="5")

    spent = sum(trial.epochs for trial in trials) / 4
    assert 5 <= spent <= 6
    assert len(trials) > 5


def test_looking_does_not_change_what_comes_out(laboratory: Laboratory) -> None:
    looked_at = searched(laboratory, laboratory.run(), Halving(laboratory.problem, seed=0))
    plain = searched(laboratory, laboratory.run(), RandomSearch(laboratory.problem, seed=0))

    by_id = {trial.id: trial for trial in plain}
    both = [trial for trial in looked_at if trial.state is TrialState.COMPLETE and trial.id in by_id]
    assert both
    assert all(trial.values["accuracy"] == by_id[trial.id].values["accuracy"] for trial in both)


@pytest.fixture
def progressive(laboratory: Laboratory) -> Progressive:
    return Progressive(laboratory.problem, seed=0, initial=4)


def test_progressive_trains_the_better_ones_to_the_end(
    laboratory: Laboratory, progressive: Progressive
) -> None:
    trials = searched(laboratory, laboratory.run(), progressive, budget="12")

    states = [trial.state for trial in trials]
    assert TrialState.STOPPED in states
    assert states.count(TrialState.COMPLETE) > 4
    # Nothing to compare with at first.
    assert TrialState.STOPPED not in states[:4]


def test_progressive_killed_and_resumed_stops_the_same_candidates(
    laboratory: Laboratory, progressive: Progressive
) -> None:
    whole = searched(laboratory, laboratory.run(), progressive, budget="10")

    run = laboratory.run()
    for _ in range(3):
        _kill_in_third_training(laboratory, run)
        run = laboratory.store.run(run.id)
    laboratory.trainer.before = lambda: None
    resumed = searched(laboratory, run, Progressive(laboratory.problem, seed=0, initial=4), budget="10")

    assert [(trial.id, trial.state, trial.epochs) for trial in resumed] == [
        (trial.id, trial.state, trial.epochs) for trial in whole
    ]


def _kill_in_third_training(laboratory: Laboratory, run: Run) -> None:
    begun = 0

    def count() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            raise Killed

    laboratory.trainer.before = count
    with pytest.raises(Killed):
        searched(laboratory, run, Progressive(laboratory.problem, seed=0, initial=4), budget="10")
