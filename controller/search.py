"""The loop: ask, evaluate, tell, until the budget is spent; then the front is confirmed.

Candidates are told to the algorithm in the order in which it asked for them, and it is asked for the next
one only when the window of open candidates has a place. So what it asks for depends on results alone, never
on which of them came first, and a run that was killed goes on as one that never stopped.

Inside the window boards measure ahead while the accelerator trains, except a board that is this machine:
while it measures, nothing trains. Where there is no other board, candidates come one by one, each chosen with all that
is known of those before it.
"""

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.core.architecture import Architecture
from controller.core.budget import Budget, counted
from controller.core.errors import ConfigurationError, DeviceError, SearchStoppedError, StoreError
from controller.core.learning import CurvedAlgorithm, LearningAlgorithm
from controller.core.objective import decisive
from controller.core.protocols import Allocation, Problem, SearchAlgorithm
from controller.core.trial import Trial, TrialState, left_out
from controller.core.waiting import wait_for_any
from controller.evaluation import Board, Candidate, Evaluator
from controller.flags import FlagPolicy
from controller.laboratory import SearchLaboratory
from controller.pareto.front import CoveredVolume, front
from controller.store.records import Run, RunState
from controller.store.store import Store
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer

logger = logging.getLogger(__name__)

_WINDOW = 4  # candidates open at a time where boards measure ahead: one trains, the others are measured
_LATE = 4  # candidates that are asked for once the time is over, while none is good for anything
_REJECTED_IN_A_ROW = 1000
_REPEATED_IN_A_ROW = 1000
_UNUSABLE_IN_A_ROW = 8
_DISTURBED_IN_A_ROW = 4  # each takes two jobs, in which the agent waits for a calm board for minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a search has come.

    Attributes:
        run_id: Which search it is.
        activity: What it is doing, in a few words.
        trials: Every trial that the algorithm has been told of.
        front: Those that are best so far.
        covered_volume: Share of the objective space that the front covers; None while too little is known.
        elapsed_s: Time spent, by earlier processes too.
        left_s: Time that is left, by the budget or by the pace so far; None while unknown.
    """

    run_id: str
    activity: str
    trials: Sequence[Trial]
    front: Sequence[Trial]
    covered_volume: float | None
    elapsed_s: float
    left_s: float | None


class Search:
    """One search, from its first candidate or from wherever an earlier process left it.

    Args:
        run: The run that this process works on.
        store: Where everything goes the moment it is known.
        problem: What is searched, what is optimised, and what every candidate worth keeping meets.
        algorithm: Asks for candidates; restored from the store where the run is not new.
        budget: When to stop.
        trainer: Trains on the dataset.
        recipe: How candidates are trained.
        boards: Devices by name: those that objectives and constraints name.
        threads: Threads inside one operator on every board; 0 for as many as it has physical cores.
        keep_flagged: Whether to choose by figures that something else than the model shaped.
        begun: Moment of `time.monotonic` from which its time counts, so that loading is part of it; None for now.
        on_progress: Told whenever something changes.
    """

    def __init__(
        self,
        *,
        run: Run,
        store: Store,
        problem: Problem,
        algorithm: SearchAlgorithm,
        budget: Budget,
        trainer: Trainer,
        recipe: TrainingRecipe,
        boards: Mapping[str, Board],
        threads: int = 0,
        keep_flagged: bool = False,
        begun: float | None = None,
        on_progress: Callable[[Progress], object] = lambda _: None,
    ) -> None:
        self._run = run
        self._store = store
        self._space = problem.space
        self._algorithm = algorithm
        self._objectives = problem.objectives
        self._budget = budget
        self._on_progress = on_progress
        flags = FlagPolicy.of(decisive(problem.objectives, problem.constraints), keep=keep_flagged)
        self._evaluator = Evaluator(
            run_id=run.id,
            store=store,
            objectives=problem.objectives,
            constraints=problem.constraints,
            trainer=trainer,
            recipe=recipe,
            boards=boards,
            threads=threads,
            flags=flags,
            allocation=algorithm if isinstance(algorithm, Allocation) else None,
        )
        self._laboratory = SearchLaboratory(
            run_id=run.id,
            store=store,
            trainer=trainer,
            recipe=recipe,
            boards=boards,
            threads=threads,
            flags=flags,
        )
        self._epochs = recipe.epochs
        self._volume = CoveredVolume(self._objectives)
        self._started = time.monotonic() if begun is None else begun
        self._asked: dict[str, None] = {}
        self._told: list[Trial] = []
        self._window: deque[Candidate] = deque()
        self._places = 1 if all(board.shares_processor for board in boards.values()) else _WINDOW
        self._exhausted = False
        self._late = 0
        self._unusable: list[Trial] = []

    @property
    def trials(self) -> Sequence[Trial]:
        """Every candidate that is known by now, in the order asked for."""
        return tuple(self._told)

    def run(self) -> list[Trial]:
        """Search until the budget is spent, confirm the front, and return it.

        Raises:
            SearchStoppedError: If a device stays away, nothing meets the constraints or nothing was measured
                undisturbed; the run can be resumed.
            StoreError: If the store cannot be written.
        """
        state = RunState.STOPPED
        try:
            self._restore()
            best = self._search()
            if not best and left_out(self._told):
                raise SearchStoppedError(self._nothing_undisturbed())
            state = RunState.FINISHED
            return best
        except DeviceError as error:
            raise SearchStoppedError(
                f"{error}; then go on with `edgenas runs resume {self._run.id}`"
            ) from error
        finally:
            self._evaluator.close(wait_for_boards=state is RunState.FINISHED)
            self._release(state)

    def _restore(self) -> None:
        saved = self._store.trials(self._run.id)
        self._told = list(saved.trials[: saved.told])
        pending = [trial.architecture for trial in saved.trials[saved.told :]]
        if saved.algorithm_state is not None:
            self._resume_algorithm(saved.algorithm_state, pending)
        self._asked = dict.fromkeys(trial.id for trial in saved.trials)
        for trial in saved.trials[saved.told :]:
            self._open(trial)

    def _resume_algorithm(self, state: bytes, pending: Sequence[Architecture]) -> None:
        try:
            self._algorithm.restore(state, self._told, pending)
        except ValueError as error:
            raise ConfigurationError(
                f"run {self._run.id} was left by another version of its algorithm, whose state this one cannot read; "
                "start a new search"
            ) from error

    def _learn(self) -> None:
        """Let an algorithm that learns by itself do so, and save what it learns step by step."""
        while isinstance(self._algorithm, LearningAlgorithm):
            seconds = self._budget.seconds
            self._report("learning")
            step = self._algorithm.learn(self._laboratory, self._elapsed_s() / seconds if seconds else 0.0)
            if step is None:
                return
            self._store.save_learnt(self._run.id, step, self._algorithm.state(), self._elapsed_s())
            self._report(step.activity)

    def _search(self) -> list[Trial]:
        """Return the front, confirmed; where that leaves nothing good, after what was left open, and a few more."""
        self._learn()
        while True:
            self._fill()
            self._evaluate_window()
            best = self._confirm_front()
            left, self._window = self._window, deque()
            if best or not (left or self._wants_more()):
                return best
            for candidate in left:
                self._open(candidate.trial)

    def _evaluate_window(self) -> None:
        while self._window:
            candidate = self._next_to_train()
            if self._out_of_time(candidate):
                # They stay in the store as asked for: whoever resumes the run with more time begins with them.
                for left in self._window:
                    self._evaluator.abandon(left)
                return
            if candidate is not None:
                self._report("training")
                self._evaluator.train(candidate)
            else:
                self._wait_for_boards()
            for candidate in self._window:
                self._evaluator.collect(candidate)
            # One place is filled as soon as it is free, so asks and tells alternate however results come in.
            while self._window and self._window[0].settled:
                self._tell(self._window.popleft().trial)
                self._fill()

    def _fill(self) -> None:
        while len(self._window) < self._places and self._wants_more():
            trial = self._ask()
            if trial is None:
                self._exhausted = True
                logger.info("the space has no architectures left to propose")
                return
            self._open(trial)

    def _wants_more(self) -> bool:
        if self._exhausted:
            return False
        if self._left_s() <= 0:
            # Whoever gave the time wants something for it.
            return self._late < _LATE and not any(trial.feasible for trial in self._told)
        return (
            self._budget.trials is None
            or counted(self._told, self._epochs) + len(self._window) < self._budget.trials
        )

    def _left_s(self) -> float:
        best = front(self._objectives, self._told)
        return self._budget.left_s(self._elapsed_s(), self._told, len(best))

    def _out_of_time(self, next_to_train: Candidate | None) -> bool:
        """Return whether the time would be over before the next candidate was known.

        While no candidate is good for anything, those that are open are evaluated all the same.
        """
        if not any(trial.feasible for trial in self._told):
            return False
        if next_to_train is None:
            # What has cost training is not given up for want of a measurement.
            return self._left_s() <= 0 and not any(candidate.trial.epochs for candidate in self._window)
        return self._left_s() <= statistics.median(trial.training_s for trial in self._told if trial.feasible)

    def _ask(self) -> Trial | None:
        """Return a new trial, saved; None where the algorithm has nothing new to propose."""
        for _ in range(_REPEATED_IN_A_ROW):
            asked = self._algorithm.ask(1)
            if not asked:
                return None
            trial = Trial(index=len(self._asked), architecture=asked[0])
            if trial.id not in self._asked:
                self._late += self._left_s() <= 0
                self._asked[trial.id] = None
                self._store.save_asked(self._run.id, trial, self._algorithm.state())
                return trial
        return None

    def _open(self, trial: Trial) -> None:
        self._window.append(self._evaluator.open(trial, self._space.lower(trial.architecture)))

    def _next_to_train(self) -> Candidate | None:
        """Return the first candidate that may be trained now, None where boards have to answer first."""
        if any(self._evaluator.occupies_processor(candidate) for candidate in self._window):
            return None
        return next((candidate for candidate in self._window if self._evaluator.may_train(candidate)), None)

    def _wait_for_boards(self) -> None:
        outstanding = [future for candidate in self._window for future in candidate.measuring.values()]
        if outstanding:
            self._report("measuring")
            wait_for_any(outstanding)

    def _tell(self, trial: Trial) -> None:
        self._algorithm.tell([trial])
        self._told.append(trial)
        points = self._algorithm.points if isinstance(self._algorithm, CurvedAlgorithm) else {}
        self._store.save_told(self._run.id, trial, self._algorithm.state(), self._elapsed_s(), points)
        self._report("searching")
        self._stop_if_unusable(trial)
        if self._rejected_in_a_row() < _REJECTED_IN_A_ROW:
            return
        message = f"the last {_REJECTED_IN_A_ROW} candidates of run {self._run.id} broke a constraint, the last one because {trial.reason}"
        if not any(past.feasible for past in self._told):
            raise SearchStoppedError(f"{message}; loosen it, or search a space of smaller networks")
        logger.warning("%s; no more are proposed", message)
        self._exhausted = True

    def _stop_if_unusable(self, trial: Trial) -> None:
        """End a search of which nothing comes while most of its budget is still there.

        Only what this process was told counts: a resumed search gets its own chance.
        """
        if trial.state is TrialState.COMPLETE:
            self._unusable.clear()
        if trial.state not in (TrialState.FAILED, TrialState.DISTURBED):
            return
        self._unusable.append(trial)
        disturbed = sum(past.state is TrialState.DISTURBED for past in self._unusable)
        enough = disturbed >= _DISTURBED_IN_A_ROW or len(self._unusable) >= _UNUSABLE_IN_A_ROW
        if not enough or any(past.feasible for past in self._told):
            return
        resume = self._resume_command()
        advice = f"put that right, then go on with `{resume}`"
        if disturbed:
            advice += f", or choose by flagged figures as well: `{resume} --keep-flagged`"
        raise SearchStoppedError(
            f"none of the last {len(self._unusable)} candidates of run {self._run.id} could be used, "
            f"the last one because {trial.reason}; {advice}"
        )

    def _nothing_undisturbed(self) -> str:
        last = next(trial for trial in reversed(self._told) if trial.state is TrialState.DISTURBED)
        resume = self._resume_command()
        return (
            f"run {self._run.id} found no network: {left_out(self._told)}, the last one because {last.reason}; "
            f"calm the device and go on with `{resume}`, or choose by flagged figures as well: `{resume} --keep-flagged`"
        )

    def _resume_command(self) -> str:
        """Return the command that goes on: where the budget is spent, with a larger one, for else it would end at once."""
        command = f"edgenas runs resume {self._run.id}"
        if self._window or self._wants_more():
            return command
        if self._budget.trials is not None:
            return f"{command} --budget {2 * self._budget.trials}"
        return f"{command} --budget {2 * (self._budget.seconds or 0):.0f}s"

    def _rejected_in_a_row(self) -> int:
        accepted = (
            count for count, past in enumerate(reversed(self._told)) if past.state is not TrialState.REJECTED
        )
        return next(accepted, len(self._told))

    def _confirm_front(self) -> list[Trial]:
        """Measure the front thoroughly with its trained weights, judge it on the test images, and return it.

        Figures may shift candidates off the front and others onto it, which are then confirmed in turn.
        """
        while True:
            best = front(self._objectives, self._told)
            unconfirmed = [trial for trial in best if not self._evaluator.confirmed(trial)]
            if not unconfirmed:
                return best
            for position, trial in enumerate(unconfirmed, start=1):
                self._report(f"confirming the front, {position} of {len(unconfirmed)}")
                left = len(unconfirmed) - position + 1
                self._told[trial.index] = self._evaluator.confirm(
                    trial,
                    self._space.lower(trial.architecture),
                    in_haste=self._budget.is_short(self._elapsed_s(), self._told, left),
                )

    def _release(self, state: RunState) -> None:
        try:
            self._store.release(self._run.id, state, self._elapsed_s())
        except StoreError:
            # What stopped the run is the error that the user must see, and a dead owner frees the run as well.
            logger.debug("run %s could not be released", self._run.id, exc_info=True)

    def _elapsed_s(self) -> float:
        return self._run.elapsed_s + time.monotonic() - self._started

    def _report(self, activity: str) -> None:
        elapsed_s, evaluated = self._elapsed_s(), counted(self._told, self._epochs)
        left_s = None
        if self._budget.seconds is not None:
            left_s = max(0.0, self._budget.seconds - elapsed_s)
        elif self._budget.trials is not None and evaluated:
            left_s = elapsed_s / evaluated * max(0, self._budget.trials - evaluated)
        self._on_progress(
            Progress(
                run_id=self._run.id,
                activity=activity,
                trials=tuple(self._told),
                front=front(self._objectives, self._told),
                covered_volume=self._volume.share(self._told),
                elapsed_s=elapsed_s,
                left_s=left_s,
            )
        )
