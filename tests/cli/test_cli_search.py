"""What `edgenas search` and `edgenas front` say of candidates that were left out or carry flags."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.algorithms import ALGORITHMS
from controller.api import SearchResult
from controller.cli.main import app
from controller.cli.search import run_and_show
from controller.config import FlaggedFigures, SearchConfig, search_config
from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError
from controller.core.objective import Objective
from controller.core.trial import Trial, TrialState
from controller.spaces import SPACES
from controller.store.store import Store

OBJECTIVES = (Objective.parse("accuracy"), Objective.parse("latency_ms", "pi4"))
CONFIG = search_config({"dataset": "digits", "device": "pi4", "objectives": ["accuracy", "latency_ms"]})


def complete(index: int, **more: object) -> Trial:
    return replace(
        Trial(
            index=index,
            architecture=Architecture.of({"index": index}),
            state=TrialState.COMPLETE,
            epochs=1,
            values={"accuracy": 0.9 - index / 10, "latency_ms@pi4": 3.0 - index / 10},
        ),
        **more,  # type: ignore[arg-type]
    )


def disturbed(index: int) -> Trial:
    return complete(
        index, state=TrialState.DISTURBED, epochs=0, reason="flagged in two jobs", flags={"pi4": ("NOISE",)}
    )


def shown(
    capsys: pytest.CaptureFixture[str], front: Sequence[Trial], trials: Sequence[Trial]
) -> Callable[[str], bool]:
    result = SearchResult(
        run_id="run-1", store="", front=tuple(front), objectives=OBJECTIVES, trials=tuple(trials)
    )
    run_and_show(lambda _: result, CONFIG, json=False)
    text = " ".join(capsys.readouterr().out.split())
    return lambda part: part in text


def test_search_says_how_many_candidates_were_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    front = [complete(0)]

    says = shown(capsys, front, [*front, disturbed(1), disturbed(2)])

    assert says("2 of 3 candidates were left out, measured under disturbance (NOISE@pi4 2); --keep-flagged")


def test_search_marks_and_counts_the_flagged_rows_of_its_front(capsys: pytest.CaptureFixture[str]) -> None:
    front = [complete(0, flags={"pi4": ("CANARY",)}, measurements={"pi4": "run-1-0"}), complete(1)]

    says = shown(capsys, front, front)

    assert says("CANARY@pi4")
    assert says("1 of 2 carry flags: their figures stand as measured")
    assert says("`edgenas benchmarks show run-1-0 --device pi4` tells why")
    assert not says("left out")


def test_search_in_which_everything_failed_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    failed = [complete(index, state=TrialState.FAILED, reason=f"reason {index}") for index in range(3)]

    says = shown(capsys, [], failed)

    assert says("every candidate failed, the last one because reason 2")
    assert not says("constraint")


def test_front_says_what_was_left_out_and_what_is_flagged(home: Path) -> None:
    store = Store(str(home / "edgenas.db"))
    run = store.create_run({"config": CONFIG.model_dump(mode="json")}, {})
    flagged = complete(0, flags={"pi4": ("DRIFT",)}, measurements={"pi4": "run-1-0"})
    for trial in (flagged, disturbed(1)):
        store.save_asked(run.id, trial, b"")
        store.save_told(run.id, trial, b"", 1.0)
    store.close()

    printed = " ".join(CliRunner().invoke(app, ["front", "last"], catch_exceptions=False).stdout.split())

    assert "1 of 1 carry flags" in printed
    assert "1 of 2 candidates were left out, measured under disturbance (NOISE@pi4 1)" in printed


def test_flagged_figures_are_left_out_unless_they_are_to_be_kept() -> None:
    assert SearchConfig(dataset="digits").flagged is FlaggedFigures.LEAVE_OUT
    assert search_config({"dataset": "digits", "flagged": "keep"}).flagged is FlaggedFigures.KEEP
    with pytest.raises(ConfigurationError, match="flagged = 'drop': Input should be 'leave_out' or 'keep'"):
        search_config({"dataset": "digits", "flagged": "drop"})


@pytest.mark.parametrize("command", [["search"], ["runs", "resume"]])
def test_commands_that_search_can_keep_flagged_figures(command: list[str]) -> None:
    assert "--keep-flagged" in CliRunner().invoke(app, [*command, "--help"]).stdout


def test_help_of_search_names_every_space_and_algorithm():
    text = CliRunner().invoke(app, ["search", "--help"], env={"COLUMNS": "400"}).output
    assert [name for name in (*SPACES, *ALGORITHMS) if name not in text] == []
