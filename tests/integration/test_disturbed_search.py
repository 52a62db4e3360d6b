"""A search on a board where something else runs: what it chooses by, what it leaves out, and what it says."""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import replace

import pytest
from search_laboratory import DEVICE, RECIPE, Killed, Laboratory, ScriptedBench, SlowedBench

from controller.algorithms import RandomSearch
from controller.core.errors import SearchStoppedError
from controller.core.measurement import FlagReason, Measurement, MeasurementMode
from controller.core.objective import Constraint, Objective
from controller.core.options import MeasurementOptions
from controller.core.trial import Trial, TrialState, left_out
from controller.evaluation import TEST_ACCURACY, Board, Candidate, Evaluator
from controller.flags import FlagPolicy
from controller.store.records import RunState

WAIT_S = 60
REASON = FlagReason(flag="NOISE", reason="other processes used 43 % of a core")


class NoisyBench(ScriptedBench):
    """Says why it flags what it flags."""

    def measure(self, *arguments, **named):  # type: ignore[no-untyped-def]
        measured: Measurement = super().measure(*arguments, **named)
        return replace(measured, flag_reasons=(REASON,) if "NOISE" in measured.flags else ())


def first_candidates(laboratory: Laboratory, count: int) -> set[str]:
    """Return the ids of the candidates that a search asks for first."""
    algorithm = RandomSearch(laboratory.problem, seed=0)
    return {Trial(index=0, architecture=asked).id for asked in algorithm.ask(count)}


def random(laboratory: Laboratory) -> RandomSearch:
    return RandomSearch(laboratory.problem, seed=0)


def trials_of(laboratory: Laboratory, run_id: str) -> tuple[Trial, ...]:
    return laboratory.store.trials(run_id).trials


def test_flagged_candidate_gets_one_more_job_and_stays_when_that_is_clean(laboratory: Laboratory) -> None:
    laboratory.bench = NoisyBench(flags=lambda request: () if request.endswith("-again") else ("NOISE",))
    run = laboratory.run()

    laboratory.search(run, random(laboratory)).run()

    trials = trials_of(laboratory, run.id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    searched = [mode for _, mode in laboratory.bench.asked if mode is MeasurementMode.SEARCH]
    assert len(searched) == 12
    assert left_out(trials) == ""


def test_candidate_flagged_twice_is_left_out_before_it_is_trained(laboratory: Laboratory) -> None:
    noisy = first_candidates(laboratory, 2)
    laboratory.shares_processor = True
    laboratory.bench = NoisyBench(
        flags=lambda request: ("NOISE", "CI_NOT_REACHED") if any(name in request for name in noisy) else ()
    )
    run = laboratory.run()
    search = laboratory.search(run, random(laboratory))

    best = search.run()

    trials = trials_of(laboratory, run.id)
    disturbed = [trial for trial in trials if trial.id in noisy]
    assert [trial.state for trial in disturbed] == [TrialState.DISTURBED] * 2
    assert {trial.reason for trial in disturbed} == {
        "flagged in two jobs: NOISE: other processes used 43 % of a core on 'bench'"
    }
    assert all(trial.epochs == 0 and "accuracy" not in trial.values for trial in disturbed)
    assert len(laboratory.trainer.trained) == 4
    assert not noisy.intersection(trial.id for trial in best)
    assert left_out(search.trials) == (
        "2 of 6 candidates were left out, measured under disturbance (NOISE@bench 2)"
    )


def test_figures_of_what_was_left_out_stay_with_their_flags(laboratory: Laboratory) -> None:
    noisy = first_candidates(laboratory, 1)
    laboratory.bench.flags = lambda request: ("DRIFT",) if any(name in request for name in noisy) else ()
    run = laboratory.run()

    laboratory.search(run, random(laboratory)).run()

    trial = trials_of(laboratory, run.id)[0]
    assert trial.flags == {DEVICE: ("DRIFT",)}
    assert trial.values["latency_ms@bench"] > 0
    measured = laboratory.store.measurements(run.id, trial)[DEVICE]
    assert measured.flags == ("DRIFT",)
    assert measured.request_id.endswith("-again")


def test_flagged_figure_rejects_nothing(laboratory: Laboratory) -> None:
    noisy = first_candidates(laboratory, 1)
    laboratory.constraints = ("latency_ms<=2000",)
    original = laboratory.bench.measure

    def slowed(*arguments, **named):  # type: ignore[no-untyped-def]
        measured = original(*arguments, **named)
        if named["model_name"] not in noisy:
            return measured
        return replace(measured, flags=("NOISE",), latency=replace(measured.latency, median_ms=9000.0))

    laboratory.bench.measure = slowed  # type: ignore[method-assign]
    run = laboratory.run()

    laboratory.search(run, random(laboratory)).run()

    trial = trials_of(laboratory, run.id)[0]
    assert (trial.state, trial.violation) == (TrialState.DISTURBED, 0.0)


def modes_asked(laboratory: Laboratory) -> list[tuple[MeasurementMode, MeasurementOptions]]:
    modes = (mode for _, mode in laboratory.bench.asked)
    return list(zip(modes, (options for _, options in laboratory.bench.requests), strict=True))


def test_search_that_keeps_flagged_figures_chooses_by_them(laboratory: Laboratory) -> None:
    laboratory.bench.flags = lambda _: ("NOISE",)
    run = laboratory.run()

    best = laboratory.search(run, random(laboratory), keep_flagged=True).run()

    assert [trial.state for trial in trials_of(laboratory, run.id)] == [TrialState.COMPLETE] * 6
    assert all(trial.flags == {DEVICE: ("NOISE",)} for trial in best)
    assert len(laboratory.bench.asked) == 6 + len(best)
    # Nothing is measured again for the sake of flags.
    attempts = {(mode, options.most_attempts) for mode, options in modes_asked(laboratory)}
    assert attempts == {(MeasurementMode.SEARCH, 1), (MeasurementMode.FULL, 1)}


@pytest.mark.parametrize("second_ms", [1.0, 9000.0])
def test_kept_figure_that_would_turn_a_candidate_down_is_measured_once_more_and_then_counts(
    laboratory: Laboratory, second_ms: float
) -> None:
    [slow] = first_candidates(laboratory, 1)
    laboratory.constraints = ("latency_ms<=2000",)
    laboratory.bench.flags = lambda _: ("CANARY",)
    original = laboratory.bench.measure

    def slowed(*arguments, **named):  # type: ignore[no-untyped-def]
        measured = original(*arguments, **named)
        if named["model_name"] != slow:
            return measured
        took_ms = second_ms if named["request_id"].endswith("-again") else 9000.0
        return replace(measured, latency=replace(measured.latency, median_ms=took_ms))

    laboratory.bench.measure = slowed  # type: ignore[method-assign]
    run = laboratory.run()

    laboratory.search(run, random(laboratory), keep_flagged=True).run()

    searched = [name for name, mode in laboratory.bench.asked if mode is MeasurementMode.SEARCH]
    assert [name for name in dict.fromkeys(searched) if searched.count(name) > 1] == [slow]
    assert searched.count(slow) == 2
    expected = TrialState.COMPLETE if second_ms < 2000 else TrialState.REJECTED
    assert trials_of(laboratory, run.id)[0].state is expected


@pytest.mark.parametrize("passes", [True, False])
def test_candidate_that_breaks_a_constraint_in_a_slow_state_of_the_board_is_judged_when_it_is_confirmed(
    laboratory: Laboratory, passes: bool
) -> None:
    laboratory.constraints = ("latency_ms<=1000",)
    laboratory.budget = "2"
    bench = laboratory.bench = SlowedBench()
    bench.slowed_by = 1.3

    def confirming(request_id: str) -> tuple[str, ...]:
        bench.slowed_by = 1.0 if passes and "-full-" in request_id else 1.3
        return ()

    bench.flags = confirming
    run = laboratory.run()

    best = laboratory.search(run, random(laboratory), keep_flagged=True).run()

    trials = trials_of(laboratory, run.id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    searched = [name for name, mode in laboratory.bench.asked if mode is MeasurementMode.SEARCH]
    assert len(searched) == 2
    if passes:
        assert best
        assert {trial.values["latency_ms@bench"] for trial in best} == {900.0}
    else:
        assert best == []
        # The board was asked once more before a candidate was turned down.
        assert len(laboratory.bench.asked) == 2 + 4
        assert all(trial.values["latency_ms@bench"] == pytest.approx(1170.0) for trial in trials)


def test_what_a_slow_state_hides_is_rejected_with_both_figures(laboratory: Laboratory) -> None:
    laboratory.constraints = ("latency_ms<=800",)
    laboratory.budget = "0.1s"
    laboratory.bench = SlowedBench()
    laboratory.bench.slowed_by = 1.3
    run = laboratory.run()

    assert laboratory.search(run, random(laboratory), keep_flagged=True).run() == []

    assert trials_of(laboratory, run.id)[0].reason == (
        "1170, 900 at the usual speed, breaks latency_ms@bench<=800"
    )


def test_search_killed_in_a_slow_state_judges_what_it_measured_as_before(laboratory: Laboratory) -> None:
    laboratory.constraints = ("latency_ms<=1000",)
    laboratory.budget = "1"
    laboratory.bench = SlowedBench()
    laboratory.bench.slowed_by = 1.3
    run = laboratory.run()

    def kill() -> None:
        raise Killed

    laboratory.trainer.before = kill
    with pytest.raises(Killed):
        laboratory.search(run, random(laboratory), keep_flagged=True).run()
    laboratory.trainer.before = lambda: None
    laboratory.bench.slowed_by = 1.0

    best = laboratory.search(laboratory.store.run(run.id), random(laboratory), keep_flagged=True).run()

    assert [trial.id for trial in best] == [trial.id for trial in trials_of(laboratory, run.id)]
    assert [mode for _, mode in laboratory.bench.asked] == [MeasurementMode.SEARCH, MeasurementMode.FULL]


def test_front_is_measured_once_where_the_time_for_it_is_short(laboratory: Laboratory) -> None:
    laboratory.budget = "3s"
    laboratory.trainer.before = lambda: time.sleep(1.0)
    run = laboratory.run()

    assert laboratory.search(run, random(laboratory)).run()

    attempts = {(mode, options.most_attempts) for mode, options in modes_asked(laboratory)}
    assert attempts == {(MeasurementMode.SEARCH, 0), (MeasurementMode.FULL, 1)}


def test_front_is_published_with_the_flags_of_its_last_measurement(laboratory: Laboratory) -> None:
    laboratory.bench.flags = lambda request: ("THROTTLED",) if "-full-" in request else ()
    run = laboratory.run()

    best = laboratory.search(run, random(laboratory)).run()

    assert best
    assert all(trial.flags == {DEVICE: ("THROTTLED",)} for trial in best)
    assert all(trial.feasible and TEST_ACCURACY in trial.values for trial in best)
    confirmed = [name for name, mode in laboratory.bench.asked if mode is MeasurementMode.FULL]
    assert len(confirmed) == len(set(confirmed)) == len(best)
    assert {options.most_attempts for _, options in modes_asked(laboratory)} == {0}


@pytest.mark.parametrize("flag", ["CI_NOT_REACHED", "WARMUP_CAP", "GATE_TIMEOUT"])
def test_flags_that_blame_nobody_else_leave_nothing_out(laboratory: Laboratory, flag: str) -> None:
    laboratory.bench.flags = lambda _: (flag,)
    run = laboratory.run()

    laboratory.search(run, random(laboratory)).run()

    assert [trial.state for trial in trials_of(laboratory, run.id)] == [TrialState.COMPLETE] * 6


def test_flags_of_a_device_that_nothing_is_chosen_by_leave_nothing_out(laboratory: Laboratory) -> None:
    noisy = ScriptedBench(flags=lambda _: ("NOISE",))
    boards = {
        DEVICE: Board(bench=laboratory.bench, shares_processor=False),
        "attic": Board(bench=noisy, shares_processor=False),
    }
    run = laboratory.run()

    laboratory.search(run, random(laboratory), boards=boards).run()

    trials = trials_of(laboratory, run.id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert all(trial.flags == {"attic": ("NOISE",)} for trial in trials if TEST_ACCURACY not in trial.values)


def test_search_on_a_board_that_is_never_calm_stops_early_and_says_what_to_do(laboratory: Laboratory) -> None:
    laboratory.bench = NoisyBench(flags=lambda _: ("NOISE",))
    laboratory.shares_processor = True
    laboratory.budget = "50"
    run = laboratory.run()

    with pytest.raises(SearchStoppedError) as raised:
        laboratory.search(run, random(laboratory)).run()

    assert str(raised.value) == (
        f"none of the last 4 candidates of run {run.id} could be used, the last one because flagged in two jobs: "
        "NOISE: other processes used 43 % of a core on 'bench'; put that right, then go on with "
        f"`edgenas runs resume {run.id}`, or choose by flagged figures as well: "
        f"`edgenas runs resume {run.id} --keep-flagged`"
    )
    assert laboratory.store.run(run.id).state is RunState.STOPPED
    assert laboratory.trainer.trained == []


def test_rejected_candidates_between_disturbed_ones_keep_no_search_alive(laboratory: Laboratory) -> None:
    laboratory.bench.flags = lambda _: ("NOISE",)
    laboratory.constraints = ("params_m<=0.004",)
    laboratory.budget = "50"
    run = laboratory.run()

    with pytest.raises(SearchStoppedError, match="none of the last 4 candidates"):
        laboratory.search(run, random(laboratory)).run()

    states = [trial.state for trial in trials_of(laboratory, run.id)]
    assert TrialState.REJECTED in states[: states.index(TrialState.DISTURBED) + 4]


def test_search_stopped_for_disturbance_goes_on_when_the_board_is_calm(laboratory: Laboratory) -> None:
    laboratory.bench.flags = lambda _: ("NOISE",)
    laboratory.budget = "10"
    run = laboratory.run()
    with pytest.raises(SearchStoppedError):
        laboratory.search(run, random(laboratory)).run()

    laboratory.bench.flags = lambda _: ()
    best = laboratory.search(laboratory.store.claim(laboratory.store.run(run.id)), random(laboratory)).run()

    assert best
    assert len(trials_of(laboratory, run.id)) == 10
    assert laboratory.store.run(run.id).state is RunState.FINISHED


def test_search_whose_budget_ends_without_one_calm_figure_says_so(laboratory: Laboratory) -> None:
    laboratory.bench = NoisyBench(flags=lambda _: ("NOISE",))
    laboratory.budget = "3"
    run = laboratory.run()

    with pytest.raises(SearchStoppedError) as raised:
        laboratory.search(run, random(laboratory)).run()

    assert str(raised.value) == (
        f"run {run.id} found no network: 3 of 3 candidates were left out, measured under disturbance (NOISE@bench 3), "
        "the last one because flagged in two jobs: NOISE: other processes used 43 % of a core on 'bench'; "
        f"calm the device and go on with `edgenas runs resume {run.id} --budget 6`, or choose by flagged figures as "
        f"well: `edgenas runs resume {run.id} --budget 6 --keep-flagged`"
    )


def test_search_that_stops_early_with_its_last_candidate_asks_for_a_larger_budget(
    laboratory: Laboratory,
) -> None:
    laboratory.bench = NoisyBench(flags=lambda _: ("NOISE",))
    laboratory.budget = "4"
    run = laboratory.run()

    with pytest.raises(SearchStoppedError, match=f"go on with `edgenas runs resume {run.id} --budget 8`"):
        laboratory.search(run, random(laboratory)).run()


def test_some_calm_figures_let_a_search_outlast_a_long_disturbance(laboratory: Laboratory) -> None:
    calm = first_candidates(laboratory, 2)
    laboratory.bench.flags = lambda request: () if any(name in request for name in calm) else ("CANARY",)
    laboratory.budget = "12"
    run = laboratory.run()

    best = laboratory.search(run, random(laboratory)).run()

    assert {trial.id for trial in best} <= calm
    assert laboratory.store.run(run.id).state is RunState.FINISHED


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_disturbed_search_killed_anywhere_resumes_to_the_sequence_of_one_never_interrupted(
    laboratory: Laboratory, stop_after: int
) -> None:
    def flags(request: str) -> tuple[str, ...]:
        # Every third architecture is always measured under disturbance, every other one the first time.
        number = int(request.split("-")[3], 16)
        if number % 3 == 0 or (number % 2 == 0 and not request.endswith("-again")):
            return ("NOISE",)
        return ()

    laboratory.bench.flags = flags
    uninterrupted = laboratory.run()
    laboratory.search(uninterrupted).run()
    expected = [(trial.id, trial.state) for trial in trials_of(laboratory, uninterrupted.id)]
    laboratory.trainer.trained.clear()
    run = laboratory.run()

    def kill() -> None:
        if len(laboratory.trainer.trained) == stop_after:
            laboratory.trainer.before = lambda: None
            raise Killed

    laboratory.trainer.before = kill
    with pytest.raises(Killed):
        laboratory.search(run).run()
    laboratory.search(laboratory.store.claim(laboratory.store.run(run.id))).run()

    assert {state for _, state in expected} == {TrialState.COMPLETE, TrialState.DISTURBED}
    assert [(trial.id, trial.state) for trial in trials_of(laboratory, run.id)] == expected


def opened(
    laboratory: Laboratory, boards: dict[str, ScriptedBench], constraints: list[str]
) -> tuple[Evaluator, Candidate]:
    """Return an evaluator and one candidate that is being measured on every board."""
    run = laboratory.run()
    constrained = (Constraint.parse(text).objective.device for text in constraints)
    evaluator = Evaluator(
        run_id=run.id,
        store=laboratory.store,
        objectives=[Objective.parse("accuracy"), Objective.parse("latency_ms", DEVICE)],
        constraints=[Constraint.parse(text) for text in constraints],
        trainer=laboratory.trainer,
        recipe=RECIPE,
        boards={name: Board(bench=bench, shares_processor=False) for name, bench in boards.items()},
        flags=FlagPolicy(keep=False, devices=frozenset({DEVICE, *constrained})),
    )
    (architecture,) = random(laboratory).ask(1)
    trial = Trial(index=0, architecture=architecture)
    laboratory.store.save_asked(run.id, trial, b"")
    return evaluator, evaluator.open(trial, laboratory.space.lower(architecture))


def await_answers(evaluator: Evaluator, candidate: Candidate) -> None:
    """Let a candidate know the next answers."""
    done, _ = wait(candidate.measuring.values(), timeout=WAIT_S, return_when=FIRST_COMPLETED)
    assert done
    evaluator.collect(candidate)


def test_doubtful_candidate_is_trained_only_once_its_second_answer_is_clean(laboratory: Laboratory) -> None:
    second = threading.Event()
    bench = ScriptedBench(flags=lambda request: () if request.endswith("-again") else ("NOISE",))
    bench.before = lambda _: len(bench.asked) < 2 or second.wait(WAIT_S)
    evaluator, candidate = opened(laboratory, {DEVICE: bench}, [])

    may_train = [evaluator.may_train(candidate)]
    await_answers(evaluator, candidate)
    may_train.append(evaluator.may_train(candidate))
    second.set()
    await_answers(evaluator, candidate)
    may_train.append(evaluator.may_train(candidate))
    evaluator.close(wait_for_boards=True)

    assert may_train == [True, False, True]


@pytest.mark.parametrize("late", [DEVICE, "attic"])
def test_candidate_is_rejected_by_calm_figures_whichever_board_answers_first(
    laboratory: Laboratory, late: str
) -> None:
    first_answered = threading.Event()
    benches = {DEVICE: ScriptedBench(flags=lambda _: ("NOISE",)), "attic": ScriptedBench()}
    benches[late].before = lambda _: first_answered.wait(WAIT_S)
    evaluator, candidate = opened(laboratory, benches, ["latency_ms@attic<=0.001"])

    early = DEVICE if late == "attic" else "attic"
    while early in candidate.measuring:
        await_answers(evaluator, candidate)
    first_answered.set()
    while candidate.measuring:
        await_answers(evaluator, candidate)
    evaluator.close(wait_for_boards=True)

    assert candidate.trial.state is TrialState.REJECTED
    assert candidate.trial.reason.endswith("breaks latency_ms@attic<=0.001")


def energetic(laboratory: Laboratory, energies_mj: list[float | None]) -> None:
    """Let the bench tell these energies in turn, then none."""
    original = laboratory.bench.measure

    def measure(*arguments, **named):  # type: ignore[no-untyped-def]
        measured = original(*arguments, **named)
        energy_mj = energies_mj.pop(0) if energies_mj else None
        reason = "" if energy_mj is not None else "the sensor gave no more readings"
        return replace(measured, energy_mj=energy_mj, energy_absent_reason=reason)

    laboratory.bench.measure = measure  # type: ignore[method-assign]


def test_energy_is_asked_for_only_where_something_is_chosen_by_it(laboratory: Laboratory) -> None:
    laboratory.search(laboratory.run(), random(laboratory)).run()
    assert not any(options.energy for _, options in laboratory.bench.requests)

    laboratory.bench.requests.clear()
    laboratory.objectives = ("accuracy", "energy_mj")
    energetic(laboratory, [1.0] * 40)
    laboratory.search(laboratory.run(), random(laboratory)).run()

    assert all(options.energy for _, options in laboratory.bench.requests)


def test_energy_that_a_sensor_misses_once_is_asked_for_again(laboratory: Laboratory) -> None:
    laboratory.objectives = ("accuracy", "energy_mj")
    laboratory.budget = "1"
    energetic(laboratory, [None, 2.0, None, 3.0])
    run = laboratory.run()

    (best,) = laboratory.search(run, random(laboratory)).run()

    assert best.values["energy_mj@bench"] == 3.0
    ids = [request for request, _ in laboratory.bench.requests]
    assert [request.endswith("-again") for request in ids] == [False, True, False, True]
    assert ["-full-" in request for request in ids] == [False, False, True, True]


def test_search_whose_sensor_died_stops_with_the_reason(laboratory: Laboratory) -> None:
    laboratory.objectives = ("accuracy", "energy_mj")
    laboratory.constraints = ("energy_mj<=100",)
    laboratory.budget = "50"
    energetic(laboratory, [])
    run = laboratory.run()

    with pytest.raises(
        SearchStoppedError, match="the sensor gave no more readings; put that right, then go on"
    ):
        laboratory.search(run, random(laboratory)).run()

    trials = trials_of(laboratory, run.id)
    assert {trial.state for trial in trials[:8]} == {TrialState.FAILED}
    assert trials[0].reason == "energy_mj on 'bench' is unknown: the sensor gave no more readings"
    assert laboratory.trainer.trained == []
