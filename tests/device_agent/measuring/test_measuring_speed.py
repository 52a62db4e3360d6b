"""When a settled worker may go on, by what the reference model takes while the agent waits."""

from collections.abc import Sequence

import pytest

from device_agent.benchmark import Phase
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.speed import SpeedGate

USUAL_MS = 2.0
LOOK_EVERY_S = 1.5
LIMIT_S = 30.0
PATIENCE_S = 45.0


class Worker:
    """A worker that takes a reading of the reference model each time it settles, the last one for good."""

    def __init__(self, readings_ms: Sequence[float | None]) -> None:
        self.now_s = 0.0
        self.said: list[str] = []
        self._readings_ms = list(readings_ms)
        self._looks = 0

    def expect(self, kind: str, on_phase) -> dict[str, float | None]:
        assert kind == "settled"
        reading_ms = self._readings_ms[min(self._looks, len(self._readings_ms) - 1)]
        self._looks += 1
        return {"canary_ns": None if reading_ms is None else 1e6 * reading_ms}

    def answer(self, word: str) -> None:
        assert word == "again"
        self.now_s += LOOK_EVERY_S


class Jobs:
    """Jobs on one board, whose reference model usually takes 2 ms."""

    def __init__(self) -> None:
        self.baselines = Baselines()
        self.baselines.learn_canary("board", USUAL_MS)
        self.worker = Worker([])
        self.gate = SpeedGate(self.baselines, PATIENCE_S, clock=lambda: self.worker.now_s)

    def wait(self, *readings_ms: float | None, limit_s: float = LIMIT_S, key: str = "board") -> float:
        self.worker = Worker(readings_ms)
        first_ns = self.worker.expect("settled", self._note)["canary_ns"]
        return self.gate.wait(self.worker, first_ns, key, limit_s, self._note)

    def _note(self, phase: Phase, detail: str = "") -> None:
        assert phase is Phase.GATE
        self.worker.said.append(detail)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.mark.parametrize(
    "reading_ms", [USUAL_MS, 1.02 * USUAL_MS, 0.5 * USUAL_MS, None], ids=["usual", "bound", "fast", "absent"]
)
def test_board_at_its_usual_speed_is_not_waited_for(jobs: Jobs, reading_ms: float | None):
    assert jobs.wait(reading_ms) == 0.0
    assert jobs.worker.said == []


def test_board_whose_speed_is_not_known_is_not_waited_for(jobs: Jobs):
    assert jobs.wait(900.0, key="another number of threads") == 0.0


def test_slow_board_is_waited_for_until_it_is_fast(jobs: Jobs):
    assert jobs.wait(3.0, 2.8, 2.12, 2.1, 2.0) == 4 * LOOK_EVERY_S
    # At most every two seconds.
    assert jobs.worker.said == [
        "the reference model takes 50 % longer than it usually does on this board",
        "the reference model takes 6 % longer than it usually does on this board",
    ]


def test_wait_ends_at_its_limit(jobs: Jobs):
    assert jobs.wait(3.0) == LIMIT_S


def test_without_time_to_wait_there_is_no_wait(jobs: Jobs):
    assert jobs.wait(3.0, limit_s=0.0) == 0.0
    assert jobs.worker.said == []


def test_patience_is_shared_by_all_jobs(jobs: Jobs):
    assert jobs.wait(3.0) == LIMIT_S
    assert jobs.wait(3.0) == PATIENCE_S - LIMIT_S
    assert jobs.wait(3.0) == 0.0


def test_job_that_cannot_wait_costs_the_next_no_patience(jobs: Jobs):
    jobs.wait(3.0, limit_s=0.0)
    jobs.wait(3.0, limit_s=LOOK_EVERY_S)
    assert jobs.wait(3.0) == LIMIT_S


def test_board_that_became_fast_again_is_waited_for_as_before(jobs: Jobs):
    jobs.wait(3.0)
    jobs.wait(3.0)
    jobs.wait(2.0)
    assert jobs.wait(3.0) == LIMIT_S


def test_waits_in_vain_are_remembered_apart(jobs: Jobs):
    jobs.baselines.learn_canary("other", USUAL_MS)
    jobs.wait(3.0)
    jobs.wait(3.0)
    assert jobs.wait(3.0, key="other") == LIMIT_S


# --- what a worker is told of its own pauses


def test_worker_is_told_what_is_usual_and_how_long_it_may_pause(jobs: Jobs):
    assert jobs.gate.go_on("board", 12.5) == "go 12.500 2000000"


def test_worker_on_a_board_that_nobody_knows_finds_out_itself_what_is_usual(jobs: Jobs):
    assert jobs.gate.go_on("another number of threads", 30.0) == "go 30.000"


def test_worker_without_time_to_pause_is_told_to_go_on(jobs: Jobs):
    assert jobs.gate.go_on("board", 0.0) == "go"


USUAL_TURNS = (2.0, 2.09, 2.01, 2.03, 2.02)
SLOWER_UNDER_LOAD = (2.0, 2.3, 2.4)


def test_pauses_in_vain_use_up_the_patience_with_all_jobs(jobs: Jobs):
    jobs.gate.note_pauses("board", 30.0, SLOWER_UNDER_LOAD)
    assert jobs.gate.go_on("board", LIMIT_S) == "go 15.000 2000000"
    jobs.gate.note_pauses("board", 15.0, SLOWER_UNDER_LOAD)
    assert jobs.gate.go_on("board", LIMIT_S) == "go"


def test_board_that_is_fast_before_each_timed_part_and_slow_in_it_is_paused_for_no_more(jobs: Jobs):
    jobs.gate.note_pauses("board", PATIENCE_S, SLOWER_UNDER_LOAD)
    assert jobs.wait(2.0) == 0.0
    jobs.gate.note_pauses("board", 0.0, SLOWER_UNDER_LOAD)
    assert jobs.gate.go_on("board", LIMIT_S) == "go"


def test_timed_part_most_of_which_was_not_slow_gives_the_patience_back(jobs: Jobs):
    jobs.gate.note_pauses("board", PATIENCE_S, SLOWER_UNDER_LOAD)
    jobs.gate.note_pauses("board", 0.0, USUAL_TURNS)
    assert jobs.gate.go_on("board", LIMIT_S) == "go 30.000 2000000"


def test_job_without_the_reference_model_gives_no_patience_back(jobs: Jobs):
    jobs.wait(3.0)
    assert jobs.wait(None) == 0.0
    assert jobs.wait(3.0) == PATIENCE_S - LIMIT_S
    jobs.gate.note_pauses("other", PATIENCE_S, SLOWER_UNDER_LOAD)
    jobs.gate.note_pauses("other", 0.0, ())
    assert jobs.gate.go_on("other", LIMIT_S) == "go"


def test_pauses_that_the_board_ended_use_up_nothing(jobs: Jobs):
    jobs.gate.note_pauses("board", 0.0, SLOWER_UNDER_LOAD)
    assert jobs.gate.go_on("board", LIMIT_S) == "go 30.000 2000000"
