"""Several models that answer as one: where they disagree, nobody knows.

Source: Lakshminarayanan et al. 2017, Simple and scalable predictive uncertainty estimation using deep ensembles, section
2.4, for the mixture; Geurts et al. 2006, Extremely randomized trees.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from controller.pareto.front import FloatArray
from controller.prediction.encoding import Encoded, Encoder
from controller.prediction.gaussian_process import Codes, GaussianProcess

_TREES = 50
_SMALLEST_DEVIATION = 1e-3  # of trees that agree, as a share of the targets' deviation


class Predictor:
    """Predicts one figure of the architectures of a space: Gaussian processes and a forest, mixed equally.

    Where choices are edges of cells, one process looks at them as chosen and one at those that lead somewhere: what a
    device runs and what a network learns need not be the same.

    Args:
        encoder: Of the space.
    """

    def __init__(self, encoder: Encoder) -> None:
        options = [len(choice.options) for choice in encoder.choices]
        self._sizes = options
        count = 2 if encoder.has_cells else 1
        self._processes = [GaussianProcess(options, encoder.figures) for _ in range(count)]

    @property
    def hyperparameters(self) -> tuple[tuple[float, ...], ...]:
        """Of each process; set them to go on from there."""
        return tuple(tuple(process.hyperparameters.tolist()) for process in self._processes)

    @hyperparameters.setter
    def hyperparameters(self, values: Sequence[Sequence[float]]) -> None:
        for process, given in zip(self._processes, values, strict=True):
            process.hyperparameters = np.array(given)

    def fit(self, rows: Encoded, targets: FloatArray, *, tune: bool, seed: int) -> None:
        """Learn from rows.

        Args:
            rows: Architectures whose figure is known, at least one.
            targets: The figure, shape (n,).
            tune: Whether to fit hyperparameters as well.
            seed: Of the forest.
        """
        for process, codes in zip(self._processes, _views(rows), strict=False):
            process.fit(codes, rows.figures, targets, tune=tune)
        self._scale = float(targets.std()) or 1.0
        self._forest = ExtraTreesRegressor(_TREES, max_features=0.5, random_state=seed)
        self._forest.fit(self._features(rows), targets)

    def predict(self, rows: Encoded) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the figure that each row would have, shape (n,) each."""
        answers = [
            process.predict(codes, rows.figures)
            for process, codes in zip(self._processes, _views(rows), strict=False)
        ]
        features = self._features(rows)
        by_tree = np.stack([tree.tree_.predict(features)[:, 0] for tree in self._forest.estimators_])
        answers.append((by_tree.mean(axis=0), by_tree.std(axis=0) + _SMALLEST_DEVIATION * self._scale))
        means = np.stack([mean for mean, _ in answers])
        variances = np.stack([np.square(deviation) for _, deviation in answers])
        return means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0))

    def _features(self, rows: Encoded) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Return options one by one, how often each occurs, and figures; shape (n, n_features)."""
        hot = [
            codes[:, [place]] == np.arange(size)
            for codes in _views(rows)
            for place, size in enumerate(self._sizes)
        ]
        counts = [
            (codes == option).sum(axis=1, keepdims=True)
            for codes in _views(rows)
            for option in range(max(self._sizes))
        ]
        return np.concatenate([*hot, *counts, rows.figures], axis=1).astype(np.float32)


def _views(rows: Encoded) -> tuple[Codes, Codes]:
    return rows.codes, rows.live
