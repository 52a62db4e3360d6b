"""How tables look on the board's terminal."""

from collections.abc import Iterable, Sequence

import click

from device_agent.text import printable


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under headers, each column as wide as its widest cell.

    Names of models and of their layers come from strangers, and are printed as no terminal obeys them.
    """
    body = [list(headers), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    for row in body:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
