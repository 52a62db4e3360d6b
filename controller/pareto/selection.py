"""Choosing one candidate from a front."""

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from controller.core.errors import ConfigurationError, NotFoundError
from controller.core.objective import Objective
from controller.core.trial import Trial
from controller.pareto.front import FloatArray, minimised


def select(trials: Sequence[Trial], objectives: Sequence[Objective], preference: str) -> Trial:
    """Return the trial of a front that a preference means.

    Args:
        trials: The front, at least one.
        objectives: What was optimised.
        preference: `knee`, an objective (the best of the front in it), or a trial's id or its beginning.

    Raises:
        NotFoundError: If preference is none of these, or fits several trials.
    """
    if preference == "knee":
        return _closest_to_ideal(trials, _normalised(minimised(objectives, trials)))
    for axis, objective in enumerate(objectives):
        if preference in (objective.key, objective.metric.name):
            return trials[int(np.argmin(minimised(objectives, trials)[:, axis]))]
    matches = [trial for trial in trials if trial.id.startswith(preference)]
    if len(matches) != 1:
        names = ", ".join(objective.key for objective in objectives)
        raise NotFoundError(
            f"selection {preference!r} fits {len(matches)} candidates of the front; "
            f"expected knee, one of {names}, or one of the ids {', '.join(trial.id for trial in trials)}"
        )
    return matches[0]


def select_weighted(
    trials: Sequence[Trial], objectives: Sequence[Objective], weights: Mapping[str, float]
) -> Trial:
    """Return the trial of a front with the least weighted sum of normalised objectives.

    Args:
        trials: The front, at least one.
        objectives: What was optimised.
        weights: Importance by objective key or the beginning of one, e.g. `latency`; others weigh nothing.

    Raises:
        ConfigurationError: If a weight is negative, infinite or fits no objective, or all are 0.
    """
    vector = np.zeros(len(objectives))
    for name, weight in weights.items():
        matches = [axis for axis, objective in enumerate(objectives) if _names(objective, name)]
        if not matches or not 0 <= weight < inf:
            keys = ", ".join(objective.key for objective in objectives)
            raise ConfigurationError(
                f"weight {name}={weight:g} does not fit; expected a number of at least 0 for one of {keys}"
            )
        vector[matches] = weight
    if not vector.any():
        raise ConfigurationError("all weights are 0; give at least one objective some weight")
    return trials[int(np.argmin(_normalised(minimised(objectives, trials)) @ vector))]


def _names(objective: Objective, name: str) -> bool:
    """Return whether name means objective: its key, its metric, or a word of it as in `latency` or `memory`."""
    return name in (objective.key, objective.metric.name) or name in objective.metric.name.split("_")


def _normalised(points: FloatArray) -> FloatArray:
    """Return points scaled so that the front spans [0, 1] in every objective."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: FloatArray = (points - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _closest_to_ideal(trials: Sequence[Trial], normalised: FloatArray) -> Trial:
    """Return the trial nearest to having the best of every objective at once."""
    return trials[int(np.argmin(np.linalg.norm(normalised, axis=1)))]
