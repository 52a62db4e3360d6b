"""A space made from a table: its rows are all there is.

An algorithm that searches it sees choices, and what analysis tells of an architecture before it is evaluated;
what was measured stays with whoever replays the table.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture, Choice, ChoiceValue, option_places
from controller.core.errors import SpaceError
from controller.core.network import Network
from controller.core.protocols import Rng
from controller.core.table import Table
from controller.spaces.recombination import one_of

_TRIES = 8  # single changes looked up before the whole table is


class TabularSpace:
    """The architectures of a table.

    Args:
        table: Its rows are the space; figures found by evaluation are not looked at.
    """

    def __init__(self, table: Table) -> None:
        self._choices = table.choices
        self._rows = table.architectures
        self._known = table.before_evaluation()
        self._row_of = {architecture: row for row, architecture in enumerate(table.architectures)}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """One a `choice.*` column."""
        return self._choices

    def sample(self, rng: Rng) -> Architecture:
        """Return a row, each as likely as any other."""
        return one_of(self._rows, rng)

    def mutate(self, architecture: Architecture, rng: Rng) -> Architecture:
        """Return a row that differs in one choice; where there is none, one of those that differ least.

        Raises:
            SpaceError: If architecture is no row of the table, or its only one.
        """
        self._row(architecture)
        for _ in range(_TRIES):
            choice = one_of(self._choices, rng)
            changed = Architecture.of({**architecture.values, choice.name: one_of(choice.options, rng)})
            if changed != architecture and changed in self._row_of:
                return changed
        distances = self._distances(architecture.values)
        # As many as there are choices, so that a sparse table has more than one way to go.
        count = min(len(self._choices), len(self._rows) - 1)
        if count < 1:
            raise SpaceError("the table has a single row; expected at least two to search among")
        distances[self._row_of[architecture]] = len(self._choices) + 1
        farthest = max(1, int(np.partition(distances, count - 1)[count - 1]))
        nearest = np.flatnonzero(distances <= farthest)
        return self._rows[int(rng.choice(nearest))]

    def cross(self, first: Architecture, second: Architecture, rng: Rng) -> Architecture:
        """Return the row most like a child that has a contiguous block of choices from second."""
        start, stop = sorted(rng.integers(0, len(self._choices) + 1, size=2).tolist())
        block = {choice.name: second[choice.name] for choice in self._choices[start:stop]}
        child = Architecture.of({**first.values, **block})
        if child in self._row_of:
            return child
        distances = self._distances(child.values)
        return self._rows[int(rng.choice(np.flatnonzero(distances == distances.min())))]

    def compose(self, values: Mapping[str, ChoiceValue]) -> Architecture | None:
        """Return the row with these values; None where there is none."""
        architecture = Architecture.of(values)
        return architecture if architecture in self._row_of else None

    def lower(self, architecture: Architecture) -> Network:
        """Refuse: nobody knows the networks of a table.

        Raises:
            SpaceError: Always.
        """
        raise SpaceError(
            f"architecture {architecture.id} of a table has no network to train or measure; "
            "replay the table with `edgenas compare`"
        )

    def figures(self, architecture: Architecture) -> Mapping[str, float]:
        """Return `macs_m`, `params_m` and `proxy.*` of a row, those that the table has.

        Raises:
            SpaceError: If architecture is no row of the table.
        """
        row = self._row(architecture)
        return {name: float(values[row]) for name, values in self._known.items() if not np.isnan(values[row])}

    def _row(self, architecture: Architecture) -> int:
        row = self._row_of.get(architecture)
        if row is None:
            raise SpaceError(
                f"architecture {architecture.id} is no row of the table; expected one of its {len(self._rows)}"
            )
        return row

    @cached_property
    def _codes(self) -> npt.NDArray[np.int32]:
        """Index of each row's option by choice, shape (n_rows, n_choices)."""
        return np.array([option_places(self._choices, row.values) for row in self._rows], dtype=np.int32)

    def _distances(self, values: Mapping[str, ChoiceValue]) -> npt.NDArray[np.int64]:
        """Return in how many choices each row differs, shape (n_rows,)."""
        return np.asarray(
            (self._codes != np.array(option_places(self._choices, values))).sum(axis=1), dtype=np.int64
        )
