"""A Gaussian process over choices and figures.

The kernel is a sum of four: one of the choices, one of the figures, one of both at once, and one in which each choice
counts by itself, whatever the others are,

    k = a_c · exp(-Σ w_i [x_i ≠ x'_i]) + a_f · exp(-½ Σ (z_j - z'_j)² / l_j²) + a_b · (their product)
        + a_s · Σ w_i [x_i = x'_i] / Σ w_i

with a weight for each choice and a length for each figure, so that what does not matter is told from what does. The last
part tells of architectures unlike all that are known: costs are nearly sums over operators.
Amplitudes, weights, lengths and noise are those of the largest posterior density under broad priors.

Source: Rasmussen and Williams 2006, Gaussian processes for machine learning, chapters 2 and 5; Hutter et al. 2011,
SMAC, section 4.1, for the kernel of categorical choices; Duvenaud et al. 2011, Additive Gaussian processes, for the last part.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize

from controller.pareto.front import FloatArray

_JITTER = 1e-6
_TUNED_ON = 150  # rows: hyperparameters need no more, and each step of the search costs their cube
_STEPS = 25
_AMPLITUDES = 4
_AMPLITUDE_PRIOR = (np.log([0.3, 0.5, 0.3, 0.3]), 1.0)
_NOISE_PRIOR = (np.log(0.01), 1.5)
_WEIGHT_DEVIATION = 0.7
_LENGTH_DEVIATION = 0.7

Codes = npt.NDArray[np.int64]


class GaussianProcess:
    """Predicts one figure of an architecture.

    Args:
        options: Number of options by choice.
        figures: Number of figures beside the choices.
    """

    def __init__(self, options: Sequence[int], figures: int) -> None:
        self._options = tuple(options)
        self._starts = np.cumsum([0, *self._options])
        self._figures = figures
        choices = len(self._options)
        self._prior_mean = np.concatenate(
            [
                _AMPLITUDE_PRIOR[0],
                [_NOISE_PRIOR[0]],
                np.full(choices, np.log(1.5 / choices)),
                np.full(figures, 0.5 * np.log(2.0 * max(1, figures))),
            ]
        )
        self._prior_deviation = np.concatenate(
            [
                np.full(_AMPLITUDES, _AMPLITUDE_PRIOR[1]),
                [_NOISE_PRIOR[1]],
                np.full(choices, _WEIGHT_DEVIATION),
                np.full(figures, _LENGTH_DEVIATION),
            ]
        )
        self.hyperparameters: FloatArray = self._prior_mean.copy()
        """Logarithms of amplitudes, noise, weights and lengths; what `fit` starts to tune from."""

    def fit(self, codes: Codes, figures: FloatArray, targets: FloatArray, *, tune: bool) -> None:
        """Learn from rows.

        Args:
            codes: Index of the option by choice, shape (n, n_choices).
            figures: Scaled to about 1, shape (n, n_figures).
            targets: Shape (n,), at least one.
            tune: Whether to fit hyperparameters as well.
        """
        self._mean, self._deviation = float(targets.mean()), float(targets.std()) or 1.0
        scaled = (targets - self._mean) / self._deviation
        if tune:
            # Evenly spaced, so that early and late rows both count.
            rows = np.linspace(0, len(targets) - 1, min(len(targets), _TUNED_ON)).astype(np.int64)
            self._tune(codes[rows], figures[rows], scaled[rows])
        self._rows = self._one_hot(codes), figures
        kernel = self._kernel(*self._rows)
        kernel[np.diag_indices(len(targets))] += self._noise + _JITTER
        self._factor = cholesky(kernel, lower=True)
        self._weights = cho_solve((self._factor, True), scaled)

    def predict(self, codes: Codes, figures: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of the target that a new row would have, shape (n,) each.

        The deviation holds the noise: a row is unlike others by more than the model can tell.
        """
        kernel = self._kernel(self._one_hot(codes), figures)
        explained = solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        prior = float(np.exp(self.hyperparameters[:_AMPLITUDES]).sum())
        variance = np.maximum(prior - np.square(explained).sum(axis=0), 0.0) + self._noise
        mean: FloatArray = kernel @ self._weights * self._deviation + self._mean
        return mean, np.sqrt(variance) * self._deviation

    @property
    def _noise(self) -> float:
        return float(np.exp(self.hyperparameters[_AMPLITUDES]))

    def _one_hot(self, codes: Codes) -> FloatArray:
        hot = np.zeros((len(codes), int(self._starts[-1])))
        np.put_along_axis(hot, codes + self._starts[:-1], 1.0, axis=1)
        return hot

    def _parts(self, hyperparameters: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return amplitudes, weights and lengths."""
        choices = len(self._options)
        values = np.exp(hyperparameters)
        first = _AMPLITUDES + 1
        return values[:_AMPLITUDES], values[first : first + choices], values[first + choices :]

    def _kernel(self, hot: FloatArray, figures: FloatArray) -> FloatArray:
        """Return covariances with the rows learnt from, shape (n, n_rows)."""
        amplitudes, weights, lengths = self._parts(self.hyperparameters)
        known_hot, known_figures = self._rows
        alike = (hot * np.repeat(weights, self._options)) @ known_hot.T
        apart = weights.sum() - alike
        of_choices = np.exp(-apart)
        ours, theirs = figures / lengths, known_figures / lengths
        squared = np.square(ours).sum(axis=1)[:, None] + np.square(theirs).sum(axis=1) - 2 * ours @ theirs.T
        of_figures = np.exp(-0.5 * np.maximum(squared, 0.0))
        kernel: FloatArray = (
            amplitudes[0] * of_choices
            + (amplitudes[1] + amplitudes[2] * of_choices) * of_figures
            + amplitudes[3] * alike / weights.sum()
        )
        return kernel

    def _tune(self, codes: Codes, figures: FloatArray, scaled: FloatArray) -> None:
        # The kernel is symmetric, so each pair of rows is looked at once: as the triangle above the diagonal, which to
        # LAPACK, whose matrices lie column by column, is the lower one.
        count = len(scaled)
        above = ~np.tri(count, dtype=np.bool_)
        one, other = np.nonzero(above)
        differ = np.ascontiguousarray((codes[one] != codes[other]).T, dtype=np.float64)
        squares = np.ascontiguousarray(np.square(figures[one] - figures[other]).T)
        diagonal = np.diag_indices(count)

        def loss(hyperparameters: FloatArray) -> tuple[float, FloatArray]:
            """Return the negative log posterior density, and its gradient."""
            amplitudes, weights, lengths = self._parts(hyperparameters)
            noise = np.exp(hyperparameters[_AMPLITUDES])
            apart = weights @ differ
            of_choices = np.exp(-apart)
            alike = 1 - apart / weights.sum()
            of_figures = np.exp(-0.5 * (lengths**-2.0 @ squares))
            parts = np.stack([of_choices, of_figures, of_choices * of_figures, alike])
            kernel = np.zeros((count, count))
            kernel[above] = amplitudes @ parts
            kernel[diagonal] = amplitudes.sum() + noise + _JITTER
            off_prior = (hyperparameters - self._prior_mean) / self._prior_deviation
            try:
                factor = cholesky(kernel.T, lower=True, overwrite_a=True, check_finite=False)
            except LinAlgError:
                return 1e10, np.zeros_like(hyperparameters)
            weighted = cho_solve((factor, True), scaled, check_finite=False)
            inverse, _ = dpotri(factor, lower=True)
            # Twice the gradient by an entry of the kernel: a pair has two entries.
            slope = inverse.T - np.outer(weighted, weighted)
            by_part = slope[above] * parts
            own = 0.5 * float(slope[diagonal].sum())
            both = amplitudes[2] * by_part[2]
            of_apart = amplitudes[0] * by_part[0] + both
            share = amplitudes[3] / weights.sum()
            gradient = np.concatenate(
                [
                    amplitudes * (by_part.sum(axis=1) + own),
                    [noise * own],
                    weights
                    * (
                        share * (slope[above] @ apart) / weights.sum()
                        - differ @ (of_apart + share * slope[above])
                    ),
                    lengths**-2.0 * (squares @ (amplitudes[1] * by_part[1] + both)),
                ]
            )
            density = 0.5 * scaled @ weighted + np.log(np.diag(factor)).sum() + 0.5 * off_prior @ off_prior
            return float(density), gradient + off_prior / self._prior_deviation

        found = minimize(
            loss,
            self.hyperparameters,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _STEPS},
            bounds=[
                (mean - 6 * deviation, mean + 6 * deviation)
                for mean, deviation in zip(self._prior_mean, self._prior_deviation, strict=True)
            ],
        )
        self.hyperparameters = found.x
