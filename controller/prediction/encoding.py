"""Architectures as numbers that a model can learn from.

Source: Johnson et al. 1990, Minimax and maximin distance designs, for beginning with what lies far apart; Gonzalez 1985,
Clustering to minimize the maximum intercluster distance, for finding it one by one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture, option_places
from controller.core.protocols import SearchSpace
from controller.pareto.front import FloatArray

_REFERENCE = 200  # random architectures that tell how figures are scaled
_LEAST_KNOWN = 0.5  # share of them that tell a figure; below, it is not looked at
_LEAST_DEVIATION = 1e-9  # of a figure that varies, over its size


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Architectures as numbers.

    Attributes:
        codes: Index of the option by choice, shape (n, n_choices).
        figures: What analysis tells, by its logarithm where it is never 0 or less, scaled to mean 0 and deviation 1; 0 where
            it is unknown. Shape (n, n_figures).
    """

    codes: npt.NDArray[np.int64]
    figures: FloatArray

    @classmethod
    def concatenated(cls, parts: Sequence["Encoded"]) -> "Encoded":
        """Return the rows of all parts, at least one."""
        return cls(
            codes=np.concatenate([part.codes for part in parts]),
            figures=np.concatenate([part.figures for part in parts]),
        )

    def rows(self, places: npt.NDArray[np.int64] | Sequence[int]) -> "Encoded":
        """Return some of them."""
        return Encoded(codes=self.codes[places], figures=self.figures[places])


class Encoder:
    """Encodes the architectures of one space.

    Args:
        space: Whose architectures.
        seed: Of the random ones that tell how figures are scaled.
    """

    def __init__(self, space: SearchSpace, seed: int = 0) -> None:
        self.choices = space.choices
        rng = np.random.default_rng(seed)
        self._reference = [space.sample(rng) for _ in range(_REFERENCE)]
        known = [space.figures(architecture) for architecture in self._reference]
        told = Counter(name for figures in known for name, value in figures.items() if np.isfinite(value))
        self.always_told = frozenset(name for name, count in told.items() if count == _REFERENCE)
        """Names of the figures that analysis tells of every architecture."""
        self._names = sorted(name for name, count in told.items() if count >= _LEAST_KNOWN * _REFERENCE)
        values = self._values(known)
        self._least = np.nanmin(values, axis=0)
        scaled = self._by_logarithm(values)
        self._mean, self._deviation = np.nanmean(scaled, axis=0), np.nanstd(scaled, axis=0)
        varied = self._deviation > _LEAST_DEVIATION * np.maximum(1.0, np.abs(self._mean))
        self._names = [name for name, varies in zip(self._names, varied, strict=True) if varies]
        self._least, self._mean, self._deviation = (
            of_each[varied] for of_each in (self._least, self._mean, self._deviation)
        )
        self._encoded_reference = self.encode(self._reference, known)

    @property
    def figures(self) -> int:
        """Number of figures that analysis tells."""
        return len(self._names)

    def spread(self, count: int) -> list[Architecture]:
        """Return so many random architectures that lie far apart, each the farthest from those before it; fewer where few differ.

        Choices count as much, all together, as figures.
        """
        encoded = self._encoded_reference
        chosen = [0]
        nearest = np.full(len(self._reference), np.inf)
        while len(chosen) < count:
            last = chosen[-1]
            differ = (encoded.codes != encoded.codes[last]).mean(axis=1)
            apart = max(1, self.figures) * differ
            apart = apart + np.square(encoded.figures - encoded.figures[last]).sum(axis=1)
            nearest = np.minimum(nearest, apart)
            if nearest.max() <= 0:
                break
            chosen.append(int(nearest.argmax()))
        return [self._reference[place] for place in chosen]

    def encode(
        self, architectures: Sequence[Architecture], figures: Sequence[Mapping[str, float]]
    ) -> Encoded:
        """Return architectures of the space as numbers.

        Args:
            architectures: Of the space.
            figures: What the space tells of each.
        """
        codes = np.array(
            [option_places(self.choices, architecture.values) for architecture in architectures],
            dtype=np.int64,
        ).reshape(len(architectures), len(self.choices))
        scaled = (self._by_logarithm(self._values(figures)) - self._mean) / self._deviation
        return Encoded(codes=codes, figures=np.nan_to_num(scaled, nan=0.0))

    def _values(self, known: Sequence[Mapping[str, float]]) -> FloatArray:
        """Return figures by name, shape (n, n_figures); nan where one is unknown or not finite."""
        values = np.array(
            [[figures.get(name, np.nan) for name in self._names] for figures in known], dtype=np.float64
        ).reshape(len(known), len(self._names))
        return np.where(np.isfinite(values), values, np.nan)

    def _by_logarithm(self, values: FloatArray) -> FloatArray:
        """Return values, or logarithms of those figures that are never 0 or less in the reference; 0 there is its least."""
        positive = self._least > 0
        logarithms = np.log(np.where(positive, np.where(values <= 0, self._least, values), 1.0))
        scaled: FloatArray = np.where(positive, logarithms, values)
        return scaled
