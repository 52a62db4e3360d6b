"""How figures look in a terminal and in JSON."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from controller.core.objective import FRACTION, METRICS, Objective
from controller.core.text import printable
from controller.core.trial import Trial

ABSENT = "–"
# An id of a trial or a run is shorter, that of a benchmark longer.
_WHOLE_LETTERS = 32


def console() -> Console:
    """Return standard output; wide enough for whole rows where it is no terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=200)


def say(line: str) -> None:
    """Print a line as it is, whatever it quotes."""
    console().print(printable(line), markup=False, highlight=False, soft_wrap=True)


def print_json(rows: object) -> None:
    """Print rows as JSON, and nothing else."""
    print(json.dumps(rows, indent=2, default=str))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print rows of text under headers."""
    console().print(table(headers, rows, title=title))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
    """Return rows of text under headers, numbers to the right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    body = [list(row) for row in rows]
    for index, header in enumerate(headers):
        known = [row[index] for row in body if row[index] not in ("", ABSENT)]
        numeric = index > 0 and bool(known) and all(text[0].isdigit() or text[0] == "-" for text in known)
        # Where there is little room, what is long folds, so that the rest is seen whole.
        whole = numeric or (index == 0 and all(len(text) <= _WHOLE_LETTERS for text in known))
        made.add_column(header, justify="right" if numeric else "left", no_wrap=whole, overflow="fold")
    for row in body:
        # As they are: a file may be called [bold].onnx, and a board may say anything.
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def figure(key: str, value: float | None) -> str:
    """Return a figure with its unit, by objective key."""
    if value is None:
        return ABSENT
    name = key.partition("@")[0]
    unit = METRICS[name].unit if name in METRICS else FRACTION
    if unit == FRACTION:
        return f"{100 * value:.2f} %"
    return f"{value:.4g} {'M' if unit == '10^6' else unit}"


def trial_columns(judged_by: Sequence[Objective]) -> list[str]:
    """Return the keys of the figures to show of a trial: what it is judged by, then what else is worth knowing."""
    keys = [objective.key for objective in judged_by]
    return keys + [key for key in ("test_accuracy", "params_m", "macs_m") if key not in keys]


def trial_table(
    trials: Sequence[Trial], judged_by: Sequence[Objective], *, title: str | None = None
) -> Table:
    """Return a table of trials."""
    keys = trial_columns(judged_by)
    flags = ["flags"] if any(trial.flags for trial in trials) else []
    rows = [
        [trial.id, *(figure(key, trial.values.get(key)) for key in keys), *(_flags(trial) for _ in flags)]
        for trial in trials
    ]
    return table(["id", *keys, *flags], rows, title=title)


def _flags(trial: Trial) -> str:
    return ", ".join(f"{flag}@{device}" for device, flags in trial.flags.items() for flag in flags) or ABSENT


def print_flagged(front: Sequence[Trial]) -> None:
    """Say how many of a front's candidates carry flags, where some do."""
    flagged = [trial for trial in front if trial.flags]
    if flagged:
        device = next(iter(flagged[0].flags))
        say(
            f"{len(flagged)} of {len(front)} carry flags: their figures stand as measured; for the first, "
            f"`edgenas benchmarks show {flagged[0].measurements[device]} --device {device}` tells why"
        )


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return everything that is known of a trial."""
    return {
        "id": trial.id,
        "index": trial.index,
        "state": trial.state.value,
        "reason": trial.reason,
        **trial.values,
        "violation": trial.violation,
        "epochs": trial.epochs,
        "training_s": trial.training_s,
        "measuring_s": trial.measuring_s,
        "measurements": dict(trial.measurements),
        "flags": {device: list(flags) for device, flags in trial.flags.items()},
        "architecture": dict(trial.architecture.values),
    }
