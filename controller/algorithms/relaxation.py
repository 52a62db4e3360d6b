"""Choices made continuous: how much of each option a supernet mixes, learnt by gradients.

Source: Liu et al. 2019, DARTS, section 2.2, for the softmax over options; Xu et al. 2020, PC-DARTS, section 3.3, for the
softmax over the edges of a node; Williams 1992, for the slope of an expectation from samples; Kool et al. 2019, Buy 4 REINFORCE
samples, get a baseline for free, for what a sample is compared with.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.core.architecture import Choice
from controller.core.learning import Coefficients, FloatVector
from controller.core.mixing import AUXILIARY

_DECAYS = (0.5, 0.999)  # of Adam's moments
_EPSILON = 1e-8


class Relaxation:
    """The parameters behind the coefficients of a supernet's mixtures.

    Args:
        choices: Those that are mixed, each by the mixture of its name; options without a term, such as zero, take
            their share of a mixture and add nothing to it.
        terms: Of every mixture; those that are no choice mix others.
    """

    def __init__(self, choices: Sequence[Choice], terms: Mapping[str, Sequence[str]]) -> None:
        self._terms = terms
        self._options = {choice.name: [str(option) for option in choice.options] for choice in choices}
        sizes = {name: len(self._options.get(name, terms[name])) for name in terms}
        self._parameters = {name: np.zeros(size) for name, size in sizes.items()}
        self._moments = [{name: np.zeros(size) for name, size in sizes.items()} for _ in _DECAYS]
        self._steps = 0

    def probabilities(self) -> dict[str, FloatVector]:
        """Return the share of each option of each choice, in the order of its options."""
        return {name: _softmax(self._parameters[name]) for name in self._options}

    def coefficients(self, auxiliary: float = 0.0, made: Mapping[str, int] | None = None) -> Coefficients:
        """Return the coefficients of all mixtures.

        Args:
            auxiliary: That of the auxiliary input.
            made: Choices that are made already, by the place of their option.
        """
        shares = self.probabilities()
        for name, place in (made or {}).items():
            shares[name] = np.eye(len(shares[name]))[place]
        found = {}
        for name, terms in self._terms.items():
            if name not in self._options:
                found[name] = _softmax(self._parameters[name])
                continue
            by_option = dict(zip(self._options[name], shares[name], strict=True))
            found[name] = np.array([auxiliary if term == AUXILIARY else by_option[term] for term in terms])
        return found

    def step(self, by_term: Coefficients, by_share: Mapping[str, FloatVector], rate: float) -> None:
        """Take one step of Adam down the gradient.

        Args:
            by_term: Slopes of what is minimised by the coefficients of each mixture; those left out are 0.
            by_share: Of what else is minimised, by the share of each option of each choice.
            rate: How far a parameter moves at most, about.
        """
        self._steps += 1
        for name, parameters in self._parameters.items():
            shares = _softmax(parameters)
            terms = self._terms[name]
            of_terms = dict(zip(terms, by_term.get(name, np.zeros(len(terms))), strict=True))
            options = self._options.get(name, terms)
            slopes = np.array([of_terms.get(option, 0.0) for option in options]) + by_share.get(name, 0.0)
            gradient = shares * (slopes - float(shares @ slopes))
            for moments, decay, value in zip(self._moments, _DECAYS, (gradient, gradient**2), strict=True):
                moments[name] = decay * moments[name] + (1 - decay) * value
            mean, square = (
                moments[name] / (1 - decay**self._steps)
                for moments, decay in zip(self._moments, _DECAYS, strict=True)
            )
            self._parameters[name] = parameters - rate * mean / (np.sqrt(square) + _EPSILON)

    def entropy(self) -> float:
        """Return how undecided the choices are, their mean entropy over the largest possible: 1 at first, 0 when all are made."""
        shares = self.probabilities().values()
        return float(
            np.mean(
                [-(p * np.log(p + _EPSILON)).sum() / np.log(len(p)) if len(p) > 1 else 0.0 for p in shares]
            )
        )

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, ready for JSON."""
        return {
            "parameters": _lists(self._parameters),
            "moments": [_lists(moments) for moments in self._moments],
            "steps": self._steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self._parameters = _arrays(state["parameters"])
        self._moments = [_arrays(moments) for moments in state["moments"]]
        self._steps = state["steps"]


def score_slopes(
    shares: Mapping[str, FloatVector], drawn: Sequence[Mapping[str, int]], losses: Sequence[float]
) -> dict[str, FloatVector]:
    """Return the slope of the expected loss by the share of each option, as samples tell: right on average.

    Args:
        shares: By choice, of each option.
        drawn: By choice, the place of the option that was drawn by these shares; for each of two samples or more.
        losses: With each sample. Each is compared with the mean of the others.
    """
    slopes = {name: np.zeros(len(of_options)) for name, of_options in shares.items()}
    advantages = (np.array(losses) - np.mean(losses)) / (len(losses) - 1)
    for made, advantage in zip(drawn, advantages, strict=True):
        for name, place in made.items():
            slopes[name][place] += advantage / shares[name][place]
    return slopes


def _softmax(values: FloatVector) -> FloatVector:
    weights: FloatVector = np.exp(values - values.max())
    shares: FloatVector = weights / weights.sum()
    return shares


def _lists(arrays: Mapping[str, FloatVector]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in arrays.items()}


def _arrays(lists: Mapping[str, list[float]]) -> dict[str, FloatVector]:
    return {name: np.array(values) for name, values in lists.items()}
