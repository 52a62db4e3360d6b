import numpy as np
import pytest

from controller.algorithms.relaxation import Relaxation, score_slopes
from controller.core.architecture import Choice

CHOICES = (Choice(name="edge", options=("zero", "skip", "conv")), Choice(name="other", options=("a", "b")))
TERMS = {"edge": ("skip", "conv", "auxiliary"), "other": ("a", "b"), "node": ("edge", "other")}


def loss(edge: int, other: int) -> float:
    """Return a loss in which choices play together."""
    return (1.0, 0.6, 0.2)[edge] + (0.0, 0.3)[other] * (1 + edge)


def test_slopes_from_samples_are_those_of_the_expected_loss_on_average():
    rng = np.random.default_rng(0)
    shares = {"edge": np.array([0.2, 0.5, 0.3]), "other": np.array([0.6, 0.4])}
    total = {name: np.zeros(len(values)) for name, values in shares.items()}
    rounds = 20_000
    for _ in range(rounds):
        drawn = [
            {name: int(rng.choice(len(values), p=values)) for name, values in shares.items()}
            for _ in range(4)
        ]
        for name, slopes in score_slopes(shares, drawn, [loss(**made) for made in drawn]).items():
            total[name] += slopes / rounds

    expected = {
        "edge": np.array([sum(shares["other"][o] * loss(e, o) for o in range(2)) for e in range(3)]),
        "other": np.array([sum(shares["edge"][e] * loss(e, o) for e in range(3)) for o in range(2)]),
    }
    for name, slopes in expected.items():
        # Only differences count: shares add up to 1.
        assert total[name] - total[name].mean() == pytest.approx(slopes - slopes.mean(), abs=0.03)


def test_an_option_without_a_term_is_learnt_from_samples_as_well():
    rng, relaxation = np.random.default_rng(0), Relaxation(CHOICES, TERMS)
    for _ in range(150):
        shares = relaxation.probabilities()
        drawn = [
            {name: int(rng.choice(len(values), p=values)) for name, values in shares.items()}
            for _ in range(4)
        ]
        relaxation.step({}, score_slopes(shares, drawn, [loss(**made) for made in drawn]), 0.05)

    shares = relaxation.probabilities()
    assert shares["edge"].argmax() == 2
    assert shares["edge"].argmin() == 0
    assert shares["other"].argmax() == 0
    assert relaxation.entropy() < 0.8


def test_mixtures_without_slopes_stay_as_they_are():
    relaxation = Relaxation(CHOICES, TERMS)
    relaxation.step({"edge": np.array([1.0, 0.0, 0.0])}, {}, 0.1)
    coefficients = relaxation.coefficients()
    assert coefficients["node"] == pytest.approx([0.5, 0.5])
    assert coefficients["other"] == pytest.approx([0.5, 0.5])
    assert coefficients["edge"][0] < coefficients["edge"][1]
