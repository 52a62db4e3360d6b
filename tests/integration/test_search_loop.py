"""What the loop promises, whatever the algorithm, the board and the order in which results come in."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from search_laboratory import DEVICE, Killed, Laboratory, ScriptedBench

from controller.algorithms import Evolution, RandomSearch, Reinforce
from controller.core.architecture import Architecture
from controller.core.budget import Budget
from controller.core.errors import (
    BenchmarkFailedError,
    ConfigurationError,
    DeviceUnreachableError,
    SearchStoppedError,
)
from controller.core.learning import LearningStep
from controller.core.measurement import MeasurementMode
from controller.core.network import Network
from controller.core.trial import Trial, TrialState
from controller.evaluation import TEST_ACCURACY
from controller.search import Progress
from controller.store.records import RunState

WAIT_S = 60


def sequence(laboratory: Laboratory, run_id: str) -> list[str]:
    return [trial.id for trial in laboratory.store.trials(run_id).trials]


def test_search_evaluates_its_budget_and_confirms_its_front(laboratory: Laboratory) -> None:
    run = laboratory.run()

    best = laboratory.search(run).run()

    trials = laboratory.store.trials(run.id).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert best
    for trial in best:
        assert (trial.id, MeasurementMode.FULL) in laboratory.bench.asked
        assert 0 <= trial.values[TEST_ACCURACY] <= 1
        assert trial.values["latency_ms@bench"] > 0
    others = {trial.id for trial in trials} - {trial.id for trial in best}
    assert all(TEST_ACCURACY not in trial.values for trial in trials if trial.id in others)
    assert laboratory.store.run(run.id).state is RunState.FINISHED


def test_search_measures_with_as_many_threads_as_it_is_told(laboratory: Laboratory) -> None:
    laboratory.search(laboratory.run(), threads=3).run()
    assert {options.threads for _, options in laboratory.bench.requests} == {3}


def test_search_measures_and_trains_each_id_once_when_the_algorithm_repeats_itself(
    laboratory: Laboratory,
) -> None:
    class Stutter(RandomSearch):
        def ask(self, count: int) -> list[Architecture]:
            asked = super().ask(count) if not hasattr(self, "last") or self.repeated else self.last
            self.repeated = getattr(self, "last", None) is asked
            self.last = asked
            return asked

    run = laboratory.run()

    laboratory.search(run, Stutter(laboratory.problem, seed=3)).run()

    ids = sequence(laboratory, run.id)
    assert len(ids) == len(set(ids)) == 6
    assert len(laboratory.trainer.trained) == 6
    assert set(Counter(laboratory.bench.asked).values()) == {1}


def test_search_never_measures_or_trains_what_analysis_rejects(laboratory: Laboratory) -> None:
    laboratory.constraints = ("params_m<=0.004",)
    run = laboratory.run()

    laboratory.search(run).run()

    trials = laboratory.store.trials(run.id).trials
    rejected = [trial for trial in trials if trial.state is TrialState.REJECTED]
    measured = {name for name, _ in laboratory.bench.asked}
    assert rejected
    assert not measured.intersection(trial.id for trial in rejected)
    assert max(laboratory.trainer.trained) <= 4000
    assert sum(trial.state is TrialState.COMPLETE for trial in trials) == 6
    assert all("breaks params_m<=0.004" in trial.reason for trial in rejected)


def test_search_never_trains_what_measurement_rejects(laboratory: Laboratory) -> None:
    laboratory.constraints = ("latency_ms<=2",)
    run = laboratory.run()

    best = laboratory.search(run).run()

    trials = laboratory.store.trials(run.id).trials
    rejected = [trial for trial in trials if trial.state is TrialState.REJECTED]
    assert rejected
    assert all(trial.epochs == 0 and trial.values["latency_ms@bench"] > 2 for trial in rejected)
    assert len(laboratory.trainer.trained) == sum(trial.state is TrialState.COMPLETE for trial in trials)
    assert all(trial.values["latency_ms@bench"] <= 2 for trial in best)


def test_search_measures_while_it_trains_when_the_board_is_another_machine(laboratory: Laboratory) -> None:
    training = threading.Event()
    laboratory.bench = ScriptedBench(before=lambda _: _require(training.wait(WAIT_S)))
    laboratory.trainer.before = training.set

    laboratory.search(laboratory.run()).run()

    assert training.is_set()


def test_search_does_not_train_while_its_own_machine_measures(laboratory: Laboratory) -> None:
    laboratory.shares_processor = True
    measuring = threading.Lock()
    laboratory.bench = ScriptedBench(before=lambda _: _require(measuring.acquire(timeout=WAIT_S)))
    original = laboratory.bench.measure

    def measure(*arguments, **named):  # type: ignore[no-untyped-def]
        try:
            return original(*arguments, **named)
        finally:
            measuring.release()

    laboratory.bench.measure = measure  # type: ignore[method-assign]
    overlaps: list[bool] = []
    laboratory.trainer.before = lambda: overlaps.append(measuring.locked())

    laboratory.search(laboratory.run()).run()

    assert overlaps == [False] * 6


def test_search_tells_in_the_order_asked_whichever_result_comes_first(laboratory: Laboratory) -> None:
    told: list[int] = []

    class Listening(RandomSearch):
        def tell(self, trials: list[Trial]) -> None:  # type: ignore[override]
            told.extend(trial.index for trial in trials)

    three_trained = threading.Event()

    def count_training() -> None:
        if len(laboratory.trainer.trained) == 3:
            three_trained.set()

    laboratory.trainer.before = count_training
    laboratory.bench = ScriptedBench(before=lambda _: _require(three_trained.wait(WAIT_S)))

    laboratory.search(laboratory.run(), Listening(laboratory.problem, seed=0)).run()

    assert told == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("stop_after", range(1, 9))
def test_search_killed_anywhere_resumes_to_the_sequence_of_one_never_interrupted(
    laboratory: Laboratory, stop_after: int
) -> None:
    laboratory.budget = "8"
    uninterrupted = laboratory.run()
    laboratory.search(uninterrupted).run()
    expected = sequence(laboratory, uninterrupted.id)
    laboratory.trainer.trained.clear()
    laboratory.bench.asked.clear()
    run = laboratory.run()

    def kill() -> None:
        if len(laboratory.trainer.trained) == stop_after:
            laboratory.trainer.before = lambda: None
            raise Killed

    laboratory.trainer.before = kill
    with pytest.raises(Killed):
        laboratory.search(run).run()
    laboratory.search(laboratory.store.claim(laboratory.store.run(run.id))).run()

    assert sequence(laboratory, run.id) == expected
    # The candidate in training when it was killed is the only one trained again.
    assert len(laboratory.trainer.trained) == 8 + 1


def test_search_stops_with_the_way_to_resume_when_a_device_stays_away(laboratory: Laboratory) -> None:
    def away(_: str) -> None:
        raise DeviceUnreachableError("device 'bench' gave no answer")

    laboratory.bench.before = away
    run = laboratory.run()

    with pytest.raises(SearchStoppedError, match=f"edgenas runs resume {run.id}"):
        laboratory.search(run).run()
    assert laboratory.store.run(run.id).state is RunState.STOPPED
    laboratory.bench.before = lambda _: None
    best = laboratory.search(laboratory.store.claim(laboratory.store.run(run.id))).run()

    assert best
    assert laboratory.store.run(run.id).state is RunState.FINISHED


def test_search_goes_on_when_a_board_cannot_measure_one_candidate(laboratory: Laboratory) -> None:
    failed: list[str] = []

    def fail_the_second(name: str) -> None:
        if len(laboratory.bench.asked) == 2:
            failed.append(name)
            raise BenchmarkFailedError("the worker died")

    laboratory.bench.before = fail_the_second
    run = laboratory.run()

    laboratory.search(run).run()

    states = {trial.id: (trial.state, trial.reason) for trial in laboratory.store.trials(run.id).trials}
    assert states.pop(failed[0]) == (TrialState.FAILED, "the worker died")
    assert {state for state, _ in states.values()} == {TrialState.COMPLETE}


def test_search_stops_when_no_candidate_meets_a_constraint(laboratory: Laboratory) -> None:
    laboratory.constraints = ("macs_m<=0.0001",)
    laboratory.space = type(laboratory.space)(
        input_shape=(3, 12, 12), classes=3, min_layers=1, max_layers=8, channels=(8, 16, 24), stem_channels=8
    )
    run = laboratory.run()

    with pytest.raises(SearchStoppedError, match=r"last 1000 candidates .* broke a constraint"):
        laboratory.search(run, RandomSearch(laboratory.problem, seed=0)).run()

    assert laboratory.trainer.trained == []


def test_search_confirms_what_it_found_when_nothing_more_meets_a_constraint(laboratory: Laboratory) -> None:
    laboratory.constraints = ("macs_m<=1",)
    large = type(laboratory.space)(
        input_shape=(3, 12, 12),
        classes=3,
        min_layers=6,
        max_layers=8,
        operations=("conv3x3", "conv5x5"),
        channels=(48, 64),
        stem_channels=48,
    )
    small = laboratory.space.sample(np.random.default_rng(0))

    class SmallThenLarge(RandomSearch):
        """Proposes one architecture that fits, then only such as do not."""

        def ask(self, count: int) -> list[Architecture]:
            first, self.first = getattr(self, "first", True), False
            return [small] if first else super().ask(count)

    class Both:
        choices = laboratory.space.choices

        def lower(self, architecture: Architecture) -> Network:
            return (laboratory.space if architecture == small else large).lower(architecture)

    run = laboratory.run()

    both = replace(laboratory.problem, space=Both())
    algorithm = SmallThenLarge(replace(laboratory.problem, space=large), seed=0)
    best = laboratory.search(run, algorithm, problem=both).run()

    assert [trial.architecture for trial in best] == [small]
    assert TEST_ACCURACY in best[0].values


def test_search_keeps_the_flags_of_a_measurement_beside_its_figures(laboratory: Laboratory) -> None:
    original = laboratory.bench.measure

    def flagged(*arguments, **named):  # type: ignore[no-untyped-def]
        return replace(original(*arguments, **named), flags=("CI_NOT_REACHED",))

    laboratory.bench.measure = flagged  # type: ignore[method-assign]
    run = laboratory.run()

    best = laboratory.search(run).run()

    assert {trial.flags["bench"] for trial in best} == {("CI_NOT_REACHED",)}
    assert {trial.flags["bench"] for trial in laboratory.store.trials(run.id).trials} == {("CI_NOT_REACHED",)}


def test_search_ends_when_a_small_space_is_used_up(laboratory: Laboratory) -> None:
    laboratory.space = type(laboratory.space)(
        input_shape=(3, 12, 12),
        classes=3,
        min_layers=1,
        max_layers=1,
        operations=("conv1x1", "conv3x3"),
        channels=(8,),
        max_skip_distance=0,
    )
    laboratory.budget = "50"
    run = laboratory.run()

    laboratory.search(run, Evolution(laboratory.problem, seed=0)).run()

    # Two operations, each at stride 1 and 2.
    assert len(sequence(laboratory, run.id)) == 4


def test_search_reports_growing_trials_and_a_volume_that_never_falls(laboratory: Laboratory) -> None:
    laboratory.budget = "12"
    reports: list[Progress] = []

    laboratory.search(laboratory.run(), on_progress=reports.append).run()

    counts = [len(report.trials) for report in reports]
    volumes = [report.covered_volume for report in reports if report.covered_volume is not None]
    assert counts == sorted(counts)
    assert counts[-1] == 12
    assert volumes == sorted(volumes)
    assert 0 < volumes[-1] <= 1
    assert reports[0].activity == "training"


def test_search_without_device_objectives_needs_no_board(laboratory: Laboratory) -> None:
    laboratory.objectives = ("accuracy", "macs_m")

    best = laboratory.search(laboratory.run(), boards={}).run()

    assert best
    assert laboratory.bench.asked == []
    assert all(f"latency_ms@{DEVICE}" not in trial.values for trial in best)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("200", Budget(trials=200)),
        ("45s", Budget(seconds=45)),
        ("30m", Budget(seconds=1800)),
        ("1.5h", Budget(seconds=5400)),
    ],
)
def test_budget_parses_candidates_and_times(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["0", "", "-3", "1.5", "ten", "3d", "0m", "1" + "0" * 400])
def test_budget_refuses_what_is_neither(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"budget {text!r}"):
        Budget.parse(text)


def test_time_budget_holds_with_candidates_open_and_they_come_first_when_there_is_more(
    laboratory: Laboratory,
) -> None:
    laboratory.trainer.before = lambda: time.sleep(1.0)
    run = laboratory.run()

    best = laboratory.search(run, budget=Budget.parse("5s")).run()

    saved = laboratory.store.trials(run.id)
    left = [trial.id for trial in saved.trials[saved.told :]]
    assert best
    assert left
    assert laboratory.store.run(run.id).elapsed_s < 6
    laboratory.trainer.before = lambda: None
    further = laboratory.store.run(run.id)
    laboratory.search(further, budget=Budget.parse(str(saved.told + len(left) + 2))).run()
    resumed = laboratory.store.trials(run.id).trials
    assert [trial.id for trial in resumed[saved.told :]][: len(left)] == left
    assert all(trial.finished for trial in resumed)
    assert len(resumed) == saved.told + len(left) + 2


def test_time_budget_that_is_over_before_anything_is_known_still_finds_something(
    laboratory: Laboratory,
) -> None:
    laboratory.trainer.before = lambda: time.sleep(0.5)

    assert laboratory.search(laboratory.run(), budget=Budget.parse("0.1s")).run()


@pytest.mark.parametrize("shares_processor", [False, True])
def test_time_that_ends_with_a_candidate_that_fails_when_confirmed_goes_on_for_another(
    laboratory: Laboratory, shares_processor: bool
) -> None:
    laboratory.shares_processor = shares_processor
    confirmed: list[str] = []

    def slower(name: str, mode: MeasurementMode) -> float:
        if mode is MeasurementMode.FULL and name not in confirmed:
            confirmed.append(name)
        return 1e6 if [name] == confirmed[:1] else 1.0

    laboratory.constraints = ("latency_ms<=1000",)
    laboratory.bench.slower = slower
    laboratory.trainer.before = lambda: time.sleep(0.5)

    best = laboratory.search(laboratory.run(), budget=Budget.parse("0.1s")).run()

    assert [trial.id for trial in best] == confirmed[1:]
    assert len(confirmed) == 2


def test_time_that_is_over_is_not_spent_on_one_candidate_after_the_other_that_is_good_for_nothing(
    laboratory: Laboratory,
) -> None:
    laboratory.shares_processor = True
    laboratory.constraints = ("latency_ms<=0.001",)
    run = laboratory.run()

    assert laboratory.search(run, budget=Budget.parse("0.1s")).run() == []

    assert 1 <= len(laboratory.store.trials(run.id).trials) <= 8


def test_candidates_come_one_by_one_where_no_board_measures_ahead(laboratory: Laboratory) -> None:
    laboratory.shares_processor = True
    open_at_once: list[int] = []

    class Watched(Evolution):
        def ask(self, count: int) -> list[Architecture]:
            saved = laboratory.store.trials(run.id)
            open_at_once.append(len(saved.trials) - saved.told)
            return super().ask(count)

    run = laboratory.run()
    laboratory.search(run, Watched(laboratory.problem, seed=0, population=4)).run()

    assert open_at_once == [0] * 6


def _require(condition: bool) -> None:
    assert condition, "waited in vain"


def test_search_that_another_version_of_its_algorithm_left_is_refused(laboratory: Laboratory) -> None:
    run = laboratory.run()
    laboratory.search(run, RandomSearch(laboratory.problem, seed=0)).run()

    with pytest.raises(ConfigurationError, match=f"run {run.id} was left by another version"):
        laboratory.search(run, Evolution(laboratory.problem, seed=0)).run()


class Student(RandomSearch):
    """Learns in three steps before it asks; its state is how many are done."""

    done = 0
    killed_before: int | None = None

    def learn(self, laboratory: object, spent: float) -> LearningStep | None:
        if self.done == self.killed_before:
            raise Killed
        if self.done == 3:
            return None
        self.done += 1
        return LearningStep(activity=f"step {self.done}", number=self.done, curves={"loss": 1 / self.done})

    def state(self) -> bytes:
        return bytes([self.done]) + super().state()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        self.done = state[0]
        super().restore(state[1:], told, pending)


def test_algorithm_learns_before_it_asks_and_its_curves_are_saved(laboratory: Laboratory) -> None:
    run, told = laboratory.run(), list[Progress]()

    laboratory.search(run, Student(laboratory.problem, seed=0), on_progress=told.append).run()

    assert laboratory.store.curves(run.id) == {"loss": {1: 1.0, 2: 1 / 2, 3: 1 / 3}}
    activities = [progress.activity for progress in told]
    assert [activity for activity in activities if activity.startswith("step")] == [
        "step 1",
        "step 2",
        "step 3",
    ]
    assert activities.index("step 3") < activities.index("training")


def test_learning_that_was_killed_goes_on_after_the_last_step_saved(laboratory: Laboratory) -> None:
    run = laboratory.run()
    killed = Student(laboratory.problem, seed=0)
    killed.killed_before = 2
    with pytest.raises(Killed):
        laboratory.search(run, killed).run()
    assert set(laboratory.store.curves(run.id)["loss"]) == {1, 2}

    laboratory.search(laboratory.store.run(run.id), Student(laboratory.problem, seed=0)).run()

    assert set(laboratory.store.curves(run.id)["loss"]) == {1, 2, 3}
    assert len(sequence(laboratory, run.id)) == 6


def test_what_an_algorithm_learns_from_each_trial_becomes_curves(laboratory: Laboratory) -> None:
    run = laboratory.run()

    laboratory.search(run, Reinforce(laboratory.problem, seed=0)).run()

    curves = laboratory.store.curves(run.id)
    assert set(curves) == {"reward", "baseline", "policy_entropy"}
    assert all(list(points) == [1, 2, 3, 4, 5, 6] for points in curves.values())
    assert curves["policy_entropy"][1] > 0
    assert curves["baseline"][1] == curves["reward"][1]
