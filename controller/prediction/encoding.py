"""Architectures as numbers that a model can learn from."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture, Choice
from controller.core.protocols import SearchSpace
from controller.pareto.front import FloatArray

_REFERENCE = 200  # random architectures that tell how figures are scaled
_EDGE = re.compile(r"(?P<cell>.*?)(?P<target>\d+)<-(?P<source>\d+)")
_NO_EDGE = ("none", "zero")
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Architectures as numbers.

    Attributes:
        codes: Index of the option by choice, shape (n, n_choices).
        live: The same, edges of a cell that lead nowhere counted as absent, shape (n, n_choices).
        figures: Logarithms of what analysis tells, scaled to mean 0 and deviation 1, shape (n, n_figures).
    """

    codes: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64]
    figures: FloatArray

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, places: npt.NDArray[np.int64] | Sequence[int]) -> "Encoded":
        """Return some of them."""
        return Encoded(codes=self.codes[places], live=self.live[places], figures=self.figures[places])


class Encoder:
    """Encodes the architectures of one space.

    Args:
        space: Whose architectures.
        seed: Of the random ones that tell how figures are scaled.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.choices = space.choices
        self._index = [
            {option: place for place, option in enumerate(choice.options)} for choice in self.choices
        ]
        self._cells = _cells(self.choices)
        rng = np.random.default_rng(seed)
        known = [space.figures(space.sample(rng)) for _ in range(_REFERENCE)]
        self._names = sorted(set.intersection(*(set(figures) for figures in known)))
        reference = np.array([self._logarithms(figures) for figures in known])
        varied = reference.std(axis=0) > 0
        self._names = [name for name, varies in zip(self._names, varied, strict=True) if varies]
        self._mean, self._deviation = reference.mean(axis=0)[varied], reference.std(axis=0)[varied]

    @property
    def has_cells(self) -> bool:
        """Whether choices are the edges of cells."""
        return bool(self._cells)

    @property
    def figures(self) -> int:
        """Number of figures that analysis tells."""
        return len(self._names)

    def encode(
        self, architectures: Sequence[Architecture], figures: Sequence[Mapping[str, float]]
    ) -> Encoded:
        """Return architectures of the space as numbers.

        Args:
            architectures: Of the space.
            figures: What the space tells of each.
        """
        codes = np.array(
            [
                [
                    index[architecture[choice.name]]
                    for choice, index in zip(self.choices, self._index, strict=True)
                ]
                for architecture in architectures
            ],
            dtype=np.int64,
        ).reshape(len(architectures), len(self.choices))
        logarithms = np.array([self._logarithms(known) for known in figures])
        return Encoded(
            codes=codes,
            live=self._live(codes),
            figures=(logarithms.reshape(len(architectures), len(self._names)) - self._mean) / self._deviation,
        )

    def _logarithms(self, figures: Mapping[str, float]) -> list[float]:
        return [float(np.log(max(figures.get(name, 0.0), _SMALLEST))) for name in self._names]

    def _live(self, codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return codes with edges on no path from a cell's input to its output as absent."""
        live = codes.copy()
        for cell in self._cells:
            there = np.stack([codes[:, edge.place] != edge.absent for edge in cell], axis=1)
            fed = {min(edge.source for edge in cell): np.ones(len(codes), dtype=bool)}
            for edge, present in sorted(zip(cell, there.T, strict=True), key=lambda pair: pair[0].source):
                reached = fed.get(edge.source, np.zeros(len(codes), dtype=bool)) & present
                fed[edge.target] = fed.get(edge.target, np.zeros(len(codes), dtype=bool)) | reached
            read = {max(edge.target for edge in cell): np.ones(len(codes), dtype=bool)}
            for edge, present in sorted(zip(cell, there.T, strict=True), key=lambda pair: -pair[0].target):
                needed = read.get(edge.target, np.zeros(len(codes), dtype=bool)) & present
                read[edge.source] = read.get(edge.source, np.zeros(len(codes), dtype=bool)) | needed
            for edge in cell:
                dead = ~(fed.get(edge.source, np.zeros(len(codes), dtype=bool)) & read[edge.target])
                live[dead, edge.place] = edge.absent
        return live


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """A choice called `TARGET<-SOURCE`: what an edge between two nodes of a cell computes."""

    place: int
    source: int
    target: int
    absent: int


def _cells(choices: Sequence[Choice]) -> list[list[_Edge]]:
    """Return the cells that choices name, each as its edges; none where they name no edges."""
    cells: dict[str, list[_Edge]] = defaultdict(list)
    for place, choice in enumerate(choices):
        match = _EDGE.fullmatch(choice.name)
        absent = next((index for index, option in enumerate(choice.options) if option in _NO_EDGE), None)
        if match and absent is not None:
            cells[match["cell"]].append(
                _Edge(place=place, source=int(match["source"]), target=int(match["target"]), absent=absent)
            )
    return list(cells.values())
