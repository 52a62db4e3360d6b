"""A search as it is seen from a terminal, or in a log."""

import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller.cli import interruption
from controller.cli.tables import console, figure, trial_table
from controller.core.objective import Objective
from controller.core.text import printable
from controller.core.trial import TrialState
from controller.search import Progress

_FRONT_ROWS = 12
_ROUTINE = ("learning", "training", "measuring", "searching")
"""Activities that take turns too often for a line each."""


class ProgressDisplay:
    """Shows a search: redrawn in place in a terminal, one line a candidate elsewhere.

    Args:
        judged_by: Which figures to show.
        quiet: Show nothing.
    """

    def __init__(self, judged_by: Sequence[Objective], *, quiet: bool = False) -> None:
        self._judged_by = judged_by
        self._console = Console(quiet=True) if quiet else console()
        # The display below looks at it as it is made.
        self._latest: tuple[Progress, float] | None = None
        self._live = (
            # Once a second, for the clock: drawing more often might disturb what is measured on this machine.
            Live(console=self._console, transient=True, refresh_per_second=1, get_renderable=self._drawn_now)
            if self._console.is_terminal
            else None
        )
        self._seen = 0
        self._activity = ""
        self.run_id: str | None = None

    def __enter__(self) -> "ProgressDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far the search has come.

        Raises:
            KeyboardInterrupt: If the search was interrupted and has not noticed.
        """
        self.run_id = progress.run_id
        interruption.check()
        if self._live:
            self._latest = progress, time.monotonic()
            self._live.refresh()
            return
        for trial in progress.trials[self._seen :]:
            figures = "  ".join(f"{o.key} {figure(o.key, trial.values.get(o.key))}" for o in self._judged_by)
            outcome = (
                figures if trial.state is TrialState.COMPLETE else f"{trial.state.value}: {trial.reason}"
            )
            self._print(f"{trial.index + 1:4d}  {trial.id}  {outcome}  [{_summary(progress)}]")
        self._seen = len(progress.trials)
        if progress.activity not in (*_ROUTINE, self._activity):
            self._print(progress.activity)
        self._activity = progress.activity

    def _print(self, line: str) -> None:
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def _drawn_now(self) -> RenderableType:
        if self._latest is None:
            return Text("")
        progress, since = self._latest
        passed_s = time.monotonic() - since
        left_s = None if progress.left_s is None else max(0.0, progress.left_s - passed_s)
        return self._drawn(replace(progress, elapsed_s=progress.elapsed_s + passed_s, left_s=left_s))

    def _drawn(self, progress: Progress) -> RenderableType:
        counts = Table.grid(padding=(0, 3))
        states = {state: sum(trial.state is state for trial in progress.trials) for state in TrialState}
        counts.add_row(
            Text(printable(progress.activity), style="bold"),
            f"{states[TrialState.COMPLETE]} complete",
            f"{states[TrialState.REJECTED]} rejected",
            f"{states[TrialState.STOPPED]} stopped",
            f"{states[TrialState.FAILED]} failed",
            f"{states[TrialState.DISTURBED]} left out",
            _summary(progress),
        )
        title = f"front of {len(progress.front)}"
        shown = trial_table(progress.front[:_FRONT_ROWS], self._judged_by, title=title)
        hidden = len(progress.front) - _FRONT_ROWS
        return Group(counts, shown, Text(f"and {hidden} more" if hidden > 0 else ""))


def _summary(progress: Progress) -> str:
    volume = "" if progress.covered_volume is None else f", hypervolume {progress.covered_volume:.3f}"
    left = "" if progress.left_s is None else f", {_clock(progress.left_s)} left"
    return f"front {len(progress.front)}{volume}, {_clock(progress.elapsed_s)} spent{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
