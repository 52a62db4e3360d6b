"""What the programs that replay tables share: their arguments, the table, figures as Markdown."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from controller.core.errors import EdgeNASError
from controller.core.objective import Constraint, Objective
from controller.core.table import read_table
from controller.replay import Replay


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every program takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "table", metavar="TABLE", type=Path, help="a .csv or .csv.gz file with choice.* columns"
    )
    parser.add_argument("--objective", action="append", required=True, help="may be repeated")
    parser.add_argument("--constraint", action="append", default=[], help="METRIC<=BOUND; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def replay(options: argparse.Namespace) -> Replay:
    """Return the table that was asked for, with what it is searched for."""
    return Replay(
        read_table(options.table),
        [Objective.parse(text) for text in options.objective],
        [Constraint.parse(text) for text in options.constraint],
    )


def run(program: Callable[[], None]) -> None:
    """Run a program; a mistake of its user is told in one line."""
    try:
        program()
    except EdgeNASError as error:
        raise SystemExit(f"error: {error}") from error


def print_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table as docs/benchmarks.md has it."""
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    print()
