import numpy as np
import pytest
from scipy.stats import spearmanr

from controller.prediction.gaussian_process import GaussianProcess

OPTIONS = (3, 3, 3, 4)
COSTS = np.random.default_rng(9).random((len(OPTIONS), max(OPTIONS)))


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes, one figure that tells, one that does not, and a target that depends on both kinds of input."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(options, size=count) for options in OPTIONS], axis=1)
    figures = rng.standard_normal((count, 2))
    costs = COSTS[np.arange(len(OPTIONS)), codes].sum(axis=1)
    return codes, figures, costs + 0.5 * np.sin(2 * figures[:, 0]) + 0.01 * rng.standard_normal(count)


def fitted(count: int) -> GaussianProcess:
    process = GaussianProcess(OPTIONS, figures=2)
    process.fit(*rows(count, seed=0), tune=True)
    return process


def test_process_predicts_rows_it_has_not_seen():
    codes, figures, targets = rows(300, seed=1)
    mean, _ = fitted(120).predict(codes, figures)
    assert spearmanr(mean, targets).statistic > 0.95


def test_process_is_as_sure_as_it_is_right():
    codes, figures, targets = rows(2000, seed=1)
    mean, deviation = fitted(60).predict(codes, figures)
    # In its own deviation each: few rows lie far out, where the process knows that it knows little.
    error = (targets - mean) / deviation
    assert (np.abs(error) < 1.96).mean() > 0.85
    assert 0.5 < np.sqrt(np.square(error).mean()) < 1.5


def test_process_is_surer_near_what_it_knows():
    known_codes, known_figures, _ = rows(40, seed=0)
    process = fitted(40)
    _, near = process.predict(known_codes, known_figures)
    _, far = process.predict(known_codes, known_figures + 20.0)
    assert near.mean() < 0.5 * far.mean()


def test_process_learns_which_figure_matters():
    process = fitted(150)
    lengths = np.exp(process.hyperparameters[-2:])
    assert lengths[0] < 0.5 * lengths[1]


def test_process_expects_costs_to_add_up_beyond_what_it_knows():
    choices, each_ms = 10, 2.0
    rng = np.random.default_rng(0)
    few = rng.permuted(np.repeat([[1, 1, 1] + [0] * (choices - 3)], 40, axis=0), axis=1)
    few[:20] *= rng.integers(2, size=(20, choices))
    process = GaussianProcess((2,) * choices, figures=0)
    process.fit(few, np.zeros((40, 0)), each_ms * few.sum(axis=1), tune=True)
    mean, _ = process.predict(np.ones((1, choices), dtype=np.int64), np.zeros((1, 0)))
    assert mean[0] == pytest.approx(each_ms * choices, rel=0.1)


def test_tuned_process_explains_its_rows_better_than_an_untuned_one():
    codes, figures, targets = rows(500, seed=1)
    untuned = GaussianProcess(OPTIONS, figures=2)
    untuned.fit(*rows(120, seed=0), tune=False)
    errors = [
        np.abs(process.predict(codes, figures)[0] - targets).mean() for process in (fitted(120), untuned)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("count", [1, 2])
def test_process_stands_few_rows_that_are_all_alike(count: int):
    process = GaussianProcess(OPTIONS, figures=0)
    codes = np.zeros((count, len(OPTIONS)), dtype=np.int64)
    process.fit(codes, np.zeros((count, 0)), np.full(count, 3.0), tune=True)
    mean, deviation = process.predict(codes, np.zeros((count, 0)))
    assert mean == pytest.approx(3.0)
    assert np.all(deviation > 0)
