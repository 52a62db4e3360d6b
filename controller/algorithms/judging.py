"""What each option of a trained supernet is worth: what the loss falls by when its choice is made that way.

Source: Wang et al. 2021, Rethinking Architecture Selection in Differentiable NAS, section 3.1.
"""

from collections.abc import Sequence

import numpy as np

from controller.algorithms.archive import IntArray
from controller.algorithms.discretization import Merits
from controller.algorithms.relaxation import Relaxation
from controller.core.architecture import Choice
from controller.core.learning import FloatVector, Supernet
from controller.core.protocols import Rng

_JUDGED = 25  # random architectures for each choice
_RIDGE = 2.0


def merits_in_a_mixture(choices: Sequence[Choice], relaxation: Relaxation, supernet: Supernet) -> Merits:
    """Return the merit of each option, one choice at a time while the others stay mixed."""
    whole, _ = supernet.loss(relaxation.coefficients())

    def left(choice: Choice, place: int) -> float:
        return supernet.loss(relaxation.coefficients(made={choice.name: place}))[0]

    return {
        choice.name: np.array([whole - left(choice, place) for place in range(len(choice.options))])
        for choice in choices
    }


def merits_in_samples(
    choices: Sequence[Choice], relaxation: Relaxation, supernet: Supernet, rng: Rng
) -> Merits:
    """Return the merit of each option: the additive part of the losses of random architectures, by ridge regression."""
    sizes = [len(choice.options) for choice in choices]
    drawn = rng.integers(0, sizes, size=(_JUDGED * len(sizes), len(sizes)))
    made = [dict(zip((choice.name for choice in choices), places.tolist(), strict=True)) for places in drawn]
    losses = [supernet.loss(relaxation.coefficients(made=of_one))[0] for of_one in made]
    merits = np.split(_additive(drawn, sizes, -np.array(losses)), np.cumsum(sizes)[:-1])
    return {choice.name: values for choice, values in zip(choices, merits, strict=True)}


def _additive(drawn: IntArray, sizes: Sequence[int], values: FloatVector) -> FloatVector:
    """Return what each option adds to the mean of values, one after the other for all choices.

    Args:
        drawn: Places of the options, shape (n, n_choices).
        sizes: Options of each choice.
        values: Shape (n,).
    """
    chosen = np.concatenate([np.eye(size)[drawn[:, place]] for place, size in enumerate(sizes)], axis=1)
    centred = values - values.mean()
    weights: FloatVector = np.linalg.solve(
        chosen.T @ chosen + _RIDGE * np.eye(chosen.shape[1]), chosen.T @ centred
    )
    return weights
