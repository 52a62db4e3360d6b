import io

import pytest
from rich.console import Console

from controller.cli.progress import _clock
from controller.cli.tables import ABSENT, figure, print_table, say, table, trial_columns
from controller.core.objective import Objective


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("accuracy", 0.98765, "98.77 %"),
        ("test_accuracy", 0.5, "50.00 %"),
        ("latency_ms@pi4", 12.3456, "12.35 ms"),
        ("peak_memory_mb@pi4", 18.0, "18 MB"),
        ("params_m", 0.2573, "0.2573 M"),
        ("energy_mj@pi4", None, ABSENT),
    ],
)
def test_figure_has_its_unit(key: str, value: float | None, shown: str) -> None:
    assert figure(key, value) == shown


def test_columns_are_the_objectives_then_what_else_is_worth_knowing() -> None:
    objectives = [Objective.parse("macs_m"), Objective.parse("latency_ms@pi4")]

    assert trial_columns(objectives) == ["macs_m", "latency_ms@pi4", "test_accuracy", "params_m"]


def test_names_are_printed_as_they_are_and_never_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("model", "says"), [("net[v2].onnx", "\x1b[2J\n")])
    say("[bold]red\x1b[31m")

    shown = capsys.readouterr().out
    assert ["net[v2].onnx", "\\x1b[2J\\n"] in [line.split() for line in shown.splitlines()]
    assert shown.splitlines()[-1] == "[bold]red\\x1b[31m"


def test_narrow_terminal_folds_what_is_long_and_shows_the_rest_whole() -> None:
    identifier = "20261128-225004-6a58-" + "0123456789abcdef" * 3
    narrow = Console(width=60, file=io.StringIO())

    narrow.print(table(("benchmark", "median ms", "started"), [(identifier, "12.345", "2026-11-28 22:50")]))

    shown = narrow.file.getvalue()
    assert "12.345" in shown
    assert "…" not in shown
    assert identifier[:20] in shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (7384, "2:03:04")])
def test_clock_shows_minutes_and_hours(seconds: float, shown: str) -> None:
    assert _clock(seconds) == shown


@pytest.mark.parametrize(
    ("values", "justify"),
    [
        (["1.5", ABSENT, "-3"], "right"),
        (["4 (modelled)", "2"], "right"),
        (["onnxruntime", "2"], "left"),
        ([ABSENT], "left"),
    ],
)
def test_column_of_numbers_alone_is_set_to_the_right(values: list[str], justify: str) -> None:
    made = table(("name", "value"), [["a row", value] for value in values])

    assert made.columns[1].justify == justify
