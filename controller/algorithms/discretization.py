"""Networks made of the merits of options: the best there are within what devices have room for."""

from collections.abc import Container, Mapping, Sequence

import numpy as np

from controller.algorithms.allotment import best_options
from controller.algorithms.archive import IntArray
from controller.algorithms.operator_latency import OperatorLatency
from controller.core.architecture import Architecture, Choice, ChoiceValue
from controller.core.learning import FloatVector, MixableSpace
from controller.core.protocols import Rng

AIMED = 0.96  # of the target: what is aimed at, since what comes out scatters
NEAR = 0.93  # of the target: what is near enough
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
        devices: How long networks take there; corrected by whoever measures.
    """

    def __init__(
        self,
        space: MixableSpace,
        choices: Sequence[Choice],
        passing: Sequence[IntArray],
        most_passing: int,
        devices: Mapping[str, OperatorLatency],
    ) -> None:
        self._space = space
        self._choices = choices
        self._passing = passing
        self._most_passing = most_passing
        self.devices = devices

    @property
    def has_target(self) -> bool:
        """Whether a network may take only so long on some device."""
        return any(device.target_ms is not None for device in self.devices.values())

    def best(
        self, merits: Merits, rng: Rng, *, room: float = 1.0, besides: Container[Architecture] = ()
    ) -> Architecture | None:
        """Return the network that uses the room best and, of several, has the best merits; None where none was found.

        Not all options that fit make a network, and edges that lead nowhere take no time: so merits are moved a little,
        more from one attempt to the next, and what comes out is judged by what is left of it.

        Args:
            merits: Of each option.
            rng: What merits are moved by.
            room: Share that may be used of what devices leave for operators: of a target, or of what the slowest take.
            besides: Not to be returned.
        """
        best: tuple[tuple[float, float], Architecture] | None = None
        costs, spread = self._costs(room), _spread(merits)
        for attempt in range(_ATTEMPTS):
            architecture = self._fitting(_moved(merits, attempt / _ATTEMPTS * spread, rng), spread, costs)
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
        """Return by what share the expected latency misses what targets allow, where that is least; what is above counts tenfold."""
        shares = self.shares(architecture)
        used = [
            device.corrected_ms(shares) / (device.correction * device.base_ms + _budget_ms(device, room))
            for device in self.devices.values()
            if device.target_ms is not None
        ]
        most_used = max(used, default=1.0)
        return 10 * max(0.0, most_used - 1) + max(0.0, NEAR / AIMED - most_used)

    def _fitting(self, merits: Merits, spread: float, costs: Sequence[FloatVector]) -> Architecture | None:
        """Return the network of the options with the best merits that every device has room for.

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
            if found is None or sum(cost[place] for cost, place in zip(costs, found, strict=True)) >= NEAR:
                break
        return None if found is None else self._composed(found)

    def _costs(self, room: float) -> list[FloatVector]:
        """Return for each choice which share of the room each option takes, on the device where that is most."""
        costs = [np.zeros(len(choice.options)) for choice in self._choices]
        for device in self.devices.values():
            by_choice = [
                device.correction * device.scale * np.array(device.costs_ms[choice.name])
                for choice in self._choices
            ]
            budget_ms = _budget_ms(device, room)
            costs = [
                np.maximum(cost, other / budget_ms) for cost, other in zip(costs, by_choice, strict=True)
            ]
        return costs

    def _composed(self, places: Sequence[int]) -> Architecture | None:
        sizes = self._space.mixed_sizes()
        values: dict[str, ChoiceValue] = {
            choice.name: sizes[choice.name] for choice in self._space.choices if choice.name in sizes
        }
        for choice, place in zip(self._choices, places, strict=True):
            values[choice.name] = choice.options[place]
        return self._space.compose(values)


def _budget_ms(device: OperatorLatency, room: float) -> float:
    """Return a share of the time that a device leaves for operators: up to its target, or what the slowest take."""
    if device.target_ms is None:
        most_ms = device.correction * device.scale * sum(max(costs) for costs in device.costs_ms.values())
    else:
        most_ms = AIMED * device.target_ms - device.correction * device.base_ms
    return max(1e-9, room * most_ms)


def _spread(merits: Merits) -> float:
    """Return how far apart the merits of a choice's options are, on average."""
    return float(np.mean([np.ptp(values) for values in merits.values()]))


def _moved(merits: Merits, noise: float, rng: Rng) -> Merits:
    """Return merits with Gumbel noise of this scale."""
    return {name: values + noise * rng.gumbel(size=len(values)) for name, values in merits.items()}
