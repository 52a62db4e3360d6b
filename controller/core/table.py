"""A table of architectures and what somebody found out about each: a benchmark to replay.

A CSV file, plain or compressed by gzip, one architecture a row. `choice.NAME` columns hold what was chosen,
every other column a figure; an empty cell is a figure that nobody knows.
"""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.errors import ConfigurationError

_CHOICE = "choice."
_KNOWN_BEFORE_EVALUATION = ("macs_m", "params_m")
_PROXY = "proxy."


@dataclass(frozen=True, kw_only=True)
class Table:
    """Architectures with figures.

    Attributes:
        name: Of its file, for messages.
        choices: The decisions that make an architecture; options are those that occur, sorted.
        architectures: One a row, each once.
        figures: Values by column, shape (n_rows,) each; nan where unknown.
    """

    name: str
    choices: tuple[Choice, ...]
    architectures: tuple[Architecture, ...]
    figures: Mapping[str, npt.NDArray[np.float64]]

    def before_evaluation(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return the columns that analysis tells of an architecture: an algorithm may look at no others."""
        return {
            column: values
            for column, values in self.figures.items()
            if column in _KNOWN_BEFORE_EVALUATION or column.startswith(_PROXY)
        }

    def where(self, kept: npt.NDArray[np.bool_]) -> "Table":
        """Return the rows that are kept, shape (n_rows,)."""
        rows = np.flatnonzero(kept)
        return replace(
            self,
            architectures=tuple(self.architectures[row] for row in rows),
            figures={column: values[rows] for column, values in self.figures.items()},
        )


def read_table(path: Path) -> Table:
    """Return the table in a file.

    Raises:
        ConfigurationError: If it cannot be read, or is no such table.
    """
    columns, lines = _columns(path, _text(path))
    chosen = {
        name.removeprefix(_CHOICE): _options(cells)
        for name, cells in columns.items()
        if name.startswith(_CHOICE)
    }
    if not chosen:
        raise ConfigurationError(f"table {path} has no column choice.NAME; expected one for each choice")
    return Table(
        name=path.name,
        choices=tuple(
            Choice(name=name, options=tuple(sorted(set(values), key=lambda value: (str(type(value)), value))))
            for name, values in chosen.items()
        ),
        architectures=tuple(_architectures(path, chosen, lines)),
        figures={
            name: _figures(path, name, cells, lines)
            for name, cells in columns.items()
            if not name.startswith(_CHOICE)
        },
    )


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"table {path} cannot be read: {error.strerror or error}; check the path"
        ) from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"table {path} cannot be read: {error}; expected a .csv or .csv.gz file"
        ) from error


def _columns(path: Path, text: str) -> tuple[dict[str, tuple[str, ...]], list[int]]:
    """Return the cells of each column, by its header, and the line that each row ends in."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        numbered = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ConfigurationError(
            f"table {path} cannot be read in line {reader.line_num}: {error}; expected comma-separated cells"
        ) from error
    if len(numbered) < 2:
        raise ConfigurationError(f"table {path} has no rows; expected a header and one architecture a line")
    (_, header), *rows = numbered
    if len(set(header)) != len(header):
        repeated = next(name for name in header if header.count(name) > 1)
        raise ConfigurationError(f"table {path} has the column {repeated!r} twice; expected each once")
    for number, row in rows:
        if len(row) != len(header):
            raise ConfigurationError(
                f"table {path} has {len(row)} cells in line {number}; expected {len(header)} as in its header"
            )
    columns = dict(zip(header, zip(*(row for _, row in rows), strict=True), strict=True))
    return columns, [number for number, _ in rows]


def _options(cells: Sequence[str]) -> list[ChoiceValue]:
    """Return cells as they are, or as integers where all of them are: those have an order."""
    try:
        return [int(cell) for cell in cells]
    except ValueError:
        return list(cells)


def _architectures(
    path: Path, chosen: Mapping[str, Sequence[ChoiceValue]], lines: Sequence[int]
) -> Iterator[Architecture]:
    seen: dict[Architecture, int] = {}
    for number, *values in zip(lines, *chosen.values(), strict=True):
        architecture = Architecture.of(dict(zip(chosen, values, strict=True)))
        if architecture in seen:
            raise ConfigurationError(
                f"table {path} has one architecture in lines {seen[architecture]} and {number}; expected each once"
            )
        seen[architecture] = number
        yield architecture


def _figures(path: Path, name: str, cells: Sequence[str], lines: Sequence[int]) -> npt.NDArray[np.float64]:
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        try:
            values[row] = float(cell) if cell else math.nan
        except ValueError as error:
            raise ConfigurationError(
                f"table {path} has {name} = {cell!r} in line {lines[row]}; expected a number, or nothing where it is unknown"
            ) from error
    return values
