"""What a person sees of a search while it works."""

import io
import time

import pytest
from rich.console import Console

from controller.cli import progress
from controller.search import Progress

LIMIT_S = 30.0


def test_clock_of_a_terminal_goes_on_while_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=160, file=io.StringIO())
    monkeypatch.setattr(progress, "console", lambda: terminal)
    told = Progress(
        run_id="run-1",
        activity="measuring",
        trials=(),
        front=(),
        covered_volume=None,
        elapsed_s=60.0,
        left_s=120.0,
    )

    with progress.ProgressDisplay(()) as display:
        display(told)
        deadline_s = time.monotonic() + LIMIT_S
        while "1:02 spent, 1:58 left" not in terminal.file.getvalue():  # type: ignore[attr-defined]
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
