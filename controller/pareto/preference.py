"""What a person would rather have of a front, as text: a rule, and bounds that the chosen one keeps to.

knee                              the nearest to having the best of everything
vote                              what several ways of judging elect together
accuracy=0.7,latency=0.3          the least weighted sum
accuracy:0.01,latency_ms          the fastest of those at most 0.01 less accurate than the most accurate
accuracy:1%,latency_ms            the same, within 1 % of its accuracy
accuracy,latency_ms<=15           the most accurate of those within 15 ms; any rule may have bounds
0f3a                              a trial by the beginning of its id
"""

import math
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from controller.core.errors import ConfigurationError, NotFoundError
from controller.core.objective import FRACTION, METRICS, Constraint, Objective
from controller.core.trial import Trial
from controller.pareto.front import FloatArray
from controller.pareto.selection import Step, knee, lexicographic, vote, weighted

Rule = Callable[[Sequence[Trial]], Trial]

_BOUND = re.compile(r"[<>]")
_TOLERANCE = re.compile(r"(?P<objective>.*):(?P<amount>[^:%]*)(?P<percent>%?)")


def select(trials: Sequence[Trial], objectives: Sequence[Objective], preference: str) -> Trial:
    """Return the trial of a front that a preference means.

    Args:
        trials: The front, best first in the first objective.
        objectives: What was optimised.
        preference: As at the top of this file. It may name any figure that all trials have, without its device where
            only one device has it.

    Raises:
        ConfigurationError: If preference is not understood, or names what the trials do not have.
        NotFoundError: If no trial is meant, or an id's beginning fits several.
    """
    if not trials:
        raise NotFoundError(
            f"selection {preference!r} fits no candidate, for the front is empty; let the search find some first"
        )
    keys = _known(objectives, trials)
    terms = [term.strip() for term in preference.split(",")]
    bounds = [Constraint.among(term, keys) for term in terms if _BOUND.search(term)]
    rule = _rule([term for term in terms if not _BOUND.search(term)], objectives, keys)
    return rule(_within(bounds, trials))


def _known(objectives: Sequence[Objective], trials: Sequence[Trial]) -> list[str]:
    """Return the keys of the figures that all trials have, the objectives first."""
    keys = dict.fromkeys([*(objective.key for objective in objectives), *trials[0].values])
    return [key for key in keys if _metric(key) in METRICS and all(key in trial.values for trial in trials)]


def _metric(text: str) -> str:
    """Return the part of a key, or of a key with a tolerance, that names the metric."""
    return re.split("[@:]", text, maxsplit=1)[0]


def _within(bounds: Sequence[Constraint], trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that meet all bounds.

    Raises:
        NotFoundError: If none does.
    """
    beyond = [sum(bound.violation(trial.values) for bound in bounds) for trial in trials]
    met = [trial for trial, by in zip(trials, beyond, strict=True) if by == 0]
    if met:
        return met
    nearest = trials[int(np.argmin(beyond))]
    misses = " and ".join(
        f"{bound} by {excess:.3g}" for bound in bounds if (excess := bound.excess(nearest.values)) > 0
    )
    raise NotFoundError(
        f"no candidate of the front meets {' and '.join(map(str, bounds))}; "
        f"the nearest, {nearest.id}, misses {misses}; allow more, or search with this as a constraint"
    )


def _rule(terms: Sequence[str], objectives: Sequence[Objective], keys: Collection[str]) -> Rule:
    """Return the rule that terms are, without bounds; without any term, the order of the objectives."""
    if terms == ["knee"]:
        return partial(knee, objectives)
    if terms == ["vote"]:
        return partial(vote, objectives)
    if any("=" in term for term in terms):
        return partial(weighted, objectives, _weights(terms, objectives))
    if len(terms) == 1 and _metric(terms[0]) not in METRICS:
        return partial(_identified, terms[0], keys)
    return partial(lexicographic, objectives, [_step(term, keys) for term in terms])


def _identified(beginning: str, keys: Collection[str], trials: Sequence[Trial]) -> Trial:
    matches = [trial for trial in trials if trial.id.startswith(beginning)]
    if len(matches) != 1:
        raise NotFoundError(
            f"selection {beginning!r} fits {len(matches)} candidates of the front; expected knee, vote, "
            f"one of {', '.join(keys)}, or one of the ids {', '.join(trial.id for trial in trials)}"
        )
    return matches[0]


def _step(term: str, keys: Collection[str]) -> Step:
    """Return what `OBJECTIVE`, `OBJECTIVE:NUMBER` or `OBJECTIVE:NUMBER%` means.

    Raises:
        ConfigurationError: If keys do not have the objective, or the number is none that it could be worse by.
    """
    # A device may be called by its address, which has a colon too.
    match = None if term in keys else _TOLERANCE.fullmatch(term)
    if match is None:
        return Step(objective=Objective.among(term, keys))
    objective, relative = Objective.among(match["objective"], keys), bool(match["percent"])
    fraction = objective.metric.unit == FRACTION
    try:
        amount = float(match["amount"])
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf or (fraction and not relative and amount > 1):
        what = "a fraction of 0 to 1" if fraction else f"a number of at least 0 in {objective.metric.unit}"
        raise ConfigurationError(
            f"tolerance {term!r} does not fit; expected {what}, or percent of the best as in {objective.key}:1%"
        )
    return Step(objective=objective, tolerance=amount / 100 if relative else amount, relative=relative)


def _weights(terms: Sequence[str], objectives: Sequence[Objective]) -> FloatArray:
    """Return the importance of each objective, shape (n_objectives,), from terms `NAME=NUMBER`.

    Raises:
        ConfigurationError: If a weight is not written so, is negative, infinite or fits no single objective, or all are 0.
    """
    try:
        pairs = [(name.strip(), float(weight)) for name, weight in (term.split("=") for term in terms)]
    except ValueError as error:
        raise ConfigurationError(
            f"weights {','.join(terms)!r} are not understood; expected NAME=NUMBER,… as in accuracy=0.7,latency=0.3"
        ) from error
    vector = np.zeros(len(objectives))
    for name, weight in pairs:
        axes = _axes(name, objectives)
        if len(axes) != 1 or not 0 <= weight < math.inf:
            keys = ", ".join(objective.key for objective in objectives)
            raise ConfigurationError(
                f"weight {name}={weight:g} does not fit; expected a number of at least 0 for one of {keys}"
            )
        vector[axes] = weight
    if not vector.any():
        raise ConfigurationError("all weights are 0; give at least one objective some weight")
    return vector


def _axes(name: str, objectives: Sequence[Objective]) -> list[int]:
    """Return which objectives name means: by key or metric, else by a word of it as in `latency` or `memory`."""
    exact = [axis for axis, o in enumerate(objectives) if name in (o.key, o.metric.name)]
    return exact or [axis for axis, o in enumerate(objectives) if name in o.metric.name.split("_")]
