"""Networks made of the merits of options: the best there are within what they may cost."""

from collections.abc import Container, Mapping, Sequence

import numpy as np

from controller.algorithms.allotment import best_options
from controller.algorithms.archive import IntArray
from controller.algorithms.operator_cost import OperatorCost
from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.learning import FloatVector, MixableSpace
from controller.core.protocols import Rng

_USED = 0.97  # of the room that a target leaves: what is enough
_PRICES = tuple(0.25 * 2**power for power in range(8))
_ATTEMPTS = 15

Merits = Mapping[str, FloatVector]
"""How good each option of each choice is, by choice; only differences within a choice count."""


class Discretizer:
    """Makes networks of merits.

    Args:
        space: Of the networks.
        choices: Those that are made by merit; the others as in the supernet.
        passing: For each of these choices, 1 for options that pass their input on, else 0.
        most_passing: How many choices may be made that way.
        costs: Of networks, by objective; corrected by whoever measures.
    """

    def __init__(
        self,
        space: MixableSpace,
        choices: Sequence[Choice],
        passing: Sequence[IntArray],
        most_passing: int,
        costs: Mapping[str, OperatorCost],
    ) -> None:
        self._space = space
        self._choices = choices
        self._passing = passing
        self._most_passing = most_passing
        self.costs = costs

    @property
    def has_target(self) -> bool:
        """Whether a network may take only so long on some device."""
        return any(cost.is_target for cost in self.costs.values())

    def best(
        self, merits: Merits, rng: Rng, *, room: float = 1.0, besides: Container[Architecture] = ()
    ) -> Architecture | None:
        """Return the network that uses the room best and, of several, has the best merits; None where none was found.

        Not all options that fit make a network, and edges that lead nowhere take no time: so merits are moved a little,
        more from one attempt to the next, and what comes out is judged by what is left of it.

        Args:
            merits: Of each option.
            rng: What merits are moved by.
            room: Share that may be used of what operators may have that is measured: of a target, or of what the largest have.
            besides: What is not to be returned.
        """
        best: tuple[tuple[float, float], Architecture] | None = None
        shares_of_room, spread = self._shares_of_room(room), _spread(merits)
        for attempt in range(_ATTEMPTS):
            architecture = self._fitting(
                _moved(merits, attempt / _ATTEMPTS * spread, rng), spread, shares_of_room
            )
            if architecture is None or architecture in besides:
                continue
            merit = sum(float(merits[name] @ shares) for name, shares in self.shares(architecture).items())
            key = (self._miss(architecture, room), -merit)
            if best is None or key < best[0]:
                best = key, architecture
            if not self.has_target:
                break
        return None if best is None else best[1]

    def near(
        self, merits: Merits, rng: Rng, room: float, besides: Container[Architecture]
    ) -> Architecture | None:
        """Return what is best by merits that are a little different; None where none was found."""
        return self.best(_moved(merits, _spread(merits) / 4, rng), rng, room=room, besides=besides)

    def random(self, rng: Rng) -> Architecture | None:
        """Return the network of random options; None where none was found."""
        for _ in range(_ATTEMPTS):
            found = self._composed([int(rng.integers(len(choice.options))) for choice in self._choices])
            if found is not None:
                return found
        return None

    def shares(self, architecture: Architecture) -> dict[str, FloatVector]:
        """Return 1 for the options that an architecture is made of, else 0."""
        return {
            choice.name: np.array([float(option == architecture[choice.name]) for option in choice.options])
            for choice in self._choices
        }

    def _miss(self, architecture: Architecture, room: float) -> float:
        """Return by what share a network misses what it may cost; what is above counts tenfold, what a target leaves unused once."""
        shares = self.shares(architecture)
        used = {name: cost.used(shares, room) for name, cost in self.costs.items() if cost.bound is not None}
        above = max(0.0, max(used.values(), default=0.0) - 1)
        if not self.has_target:
            return 10 * above
        # Of several, the one that leaves least unused is what a network can be near to.
        return 10 * above + max(0.0, _USED - max(used[name] for name in used if self.costs[name].is_target))

    def _fitting(self, merits: Merits, spread: float, costs: Sequence[FloatVector]) -> Architecture | None:
        """Return the network of the options with the best merits that there is room for.

        Where a target leaves room unused, what is slower counts as better, as little as makes use of it: a supernet that
        is trained briefly thinks too little of operations that learn slowly.

        Args:
            merits: Of each option.
            spread: How far apart they are.
            costs: For each choice, the share of the room that each option takes.
        """
        values = [merits[choice.name] for choice in self._choices]
        found = None
        for price in (0.0, *_PRICES) if self.has_target else (0.0,):
            priced = [value + price * spread * cost for value, cost in zip(values, costs, strict=True)]
            found = best_options(priced, costs, self._passing, self._most_passing)
            if found is None or sum(cost[place] for cost, place in zip(costs, found, strict=True)) >= _USED:
                break
        return None if found is None else self._composed(found)

    def _shares_of_room(self, room: float) -> list[FloatVector]:
        """Return for each choice which share of the room each option takes, of the cost where that is most."""
        most = [np.zeros(len(choice.options)) for choice in self._choices]
        for cost in self.costs.values():
            for place, choice in enumerate(self._choices):
                own = cost.correction * cost.scale * np.array(cost.costs[choice.name]) / cost.room(room)
                most[place] = np.maximum(most[place], own)
        return most

    def _composed(self, places: Sequence[int]) -> Architecture | None:
        sizes = self._space.mixed_sizes()
        values: dict[str, ChoiceValue] = {
            choice.name: sizes[choice.name] for choice in self._space.choices if choice.name in sizes
        }
        for choice, place in zip(self._choices, places, strict=True):
            values[choice.name] = choice.options[place]
        return self._space.compose(values)


def _spread(merits: Merits) -> float:
    """Return how far apart the merits of a choice's options are, on average."""
    return float(np.mean([np.ptp(values) for values in merits.values()]))


def _moved(merits: Merits, noise: float, rng: Rng) -> Merits:
    """Return merits with Gumbel noise of this scale."""
    return {name: values + noise * rng.gumbel(size=len(values)) for name, values in merits.items()}
