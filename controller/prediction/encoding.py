"""Architectures as numbers that a model can learn from.

Source: Johnson et al. 1990, Minimax and maximin distance designs, for beginning with what lies far apart; Gonzalez 1985,
Clustering to minimize the maximum intercluster distance, for finding it one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.core.architecture import Architecture, option_places
from controller.core.protocols import SearchSpace
from controller.pareto.front import FloatArray

_REFERENCE = 200  # random architectures that tell how figures are scaled
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Architectures as numbers.

    Attributes:
        codes: Index of the option by choice, shape (n, n_choices).
        figures: Logarithms of what analysis tells, scaled to mean 0 and deviation 1, shape (n, n_figures).
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
        self._names = sorted(set.intersection(*(set(figures) for figures in known)))
        reference = np.array([self._logarithms(figures) for figures in known])
        varied = reference.std(axis=0) > 0
        self._names = [name for name, varies in zip(self._names, varied, strict=True) if varies]
        self._mean, self._deviation = reference.mean(axis=0)[varied], reference.std(axis=0)[varied]
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
        logarithms = np.array([self._logarithms(known) for known in figures])
        return Encoded(
            codes=codes,
            figures=(logarithms.reshape(len(architectures), len(self._names)) - self._mean) / self._deviation,
        )

    def _logarithms(self, figures: Mapping[str, float]) -> list[float]:
        return [float(np.log(max(figures.get(name, 0.0), _SMALLEST))) for name in self._names]
