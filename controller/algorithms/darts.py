"""Differentiable search: one network that mixes all options, whose mixture is learnt by gradients.

First, where a latency counts, the device times every operation of the supernet and a few whole networks. Then weights
and mixtures take turns, weights alone at first. At the end each option is judged by the loss that is left when its choice
is made that way, and the best options that the latency leaves room for are chosen; what they really take is measured, and
the room corrected by it, until the target is met.

Source: Liu et al. 2019, DARTS, for the mixture and its gradient; Xu et al. 2020, PC-DARTS, for partial channels and the
weights of edges; Chu et al. 2021, DARTS-, section 3.3, for the auxiliary input that decays; Liang et al. 2019, DARTS+,
section 4, for stopping at too many skips; Wang et al. 2021, Rethinking Architecture Selection in Differentiable NAS,
section 3.1, for judging options by what discretizing them leaves rather than by their shares: we do so without training
in between, and for all choices at once, so that they can share a latency;
Xie et al. 2019, SNAS, section 2.2, for sampling one option a step; we take the score function's gradient for it, with a
baseline (Williams 1992), rather than one through a softened sample, so that options not sampled need not be computed;
Cai et al. 2019, ProxylessNAS, section 3.3, for an expected latency that is summed over operators.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel

from controller.algorithms.allotment import best_options, term_costs, term_layers
from controller.algorithms.archive import IntArray
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.algorithms.relaxation import Relaxation
from controller.core.architecture import Architecture, ChoiceValue
from controller.core.errors import ConfigurationError
from controller.core.learning import (
    Coefficients,
    FloatVector,
    Laboratory,
    LearningStep,
    MixableSpace,
    Supernet,
)
from controller.core.mixing import mixtures
from controller.core.protocols import Problem, Rng
from controller.core.trial import Trial

_LATENCY = "latency_ms"
_WHOLE_NETWORKS = 6  # timed as a whole, to rescale the sums of their operators' times
_AIMED = 0.96  # of the target: what is aimed at, since what comes out scatters
_NEAR = 0.93  # of the target: what is near enough
_CORRECTIONS = 5
_PRICES = tuple(0.25 * 2**power for power in range(8))
_ATTEMPTS = 60
_DUAL_RATE = 0.05
_JUDGED = 25  # random architectures for each choice
_RIDGE = 2.0
_FORGETTING = 0.1  # of the usual loss, with each sample
_WATCHED = 8  # networks whose mean loss is the curve of a supernet that samples
_SHARE_OF_TIME = 0.4  # of a search's time that may be spent on learning


class _Device(BaseModel):
    """What is known of a device: a network takes base_ms + scale · the sum of its operators' times.

    Attributes:
        target_ms: What a network may take; None where less is merely better.
        costs_ms: Time of each option by choice, in the supernet.
        base_ms: What every network takes.
        scale: What becomes of an operator's time in a network.
        correction: Measured over expected, of the latest network chosen.
        weight: Of the expected latency in the loss.
    """

    target_ms: float | None
    costs_ms: dict[str, list[float]] = {}
    base_ms: float = 0.0
    scale: float = 1.0
    correction: float = 1.0
    weight: float = 0.0

    def expected_ms(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the latency of a mixture, or of a network, whose shares are 0 or 1."""
        return self.base_ms + self.scale * self.sum_ms(shares)

    def sum_ms(self, shares: Mapping[str, FloatVector]) -> float:
        """Return the sum of the operators' times."""
        return sum(float(shares[name] @ np.array(costs)) for name, costs in self.costs_ms.items())


class _State(SavedState):
    step: int
    epoch: int
    relaxation: dict[str, Any]
    usual_loss: float | None
    devices: dict[str, _Device]
    merits: dict[str, list[float]]
    chosen: list[int]
    finished: bool
    stopped: bool
    supernet: str


class Darts:
    """Learns a mixture of all options, then proposes what it makes of them.

    Until it has learnt, and where nothing is left of that, it proposes at random.

    Args:
        problem: What to search, and for what; its space must have a supernet.
        seed: Of all random draws.
        epochs: Passes of the weights over half of the training images.
        warm_up: Share of them in which only weights learn.
        sampled: Whether each step mixes one option of each choice, drawn by its share, rather than all: many times faster,
            and what is judged in the end is what was trained.
        unrolled: Whether the mixture's gradient looks one step of the weights ahead, for four more passes a step.
        part: One in so many channels goes through the operations; 4 makes mixing all options several times faster.
        travel: How far a parameter of the mixture may move in all: softmax makes its exponential of it.
        most_skips: Share of choices that may be made by passing the input on.

    Raises:
        ConfigurationError: If the space has no supernet.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        epochs: int = 25,
        warm_up: float = 0.3,
        sampled: bool = True,
        unrolled: bool = False,
        part: int = 1,
        travel: float = 5.0,
        most_skips: float = 0.5,
    ) -> None:
        if not isinstance(problem.space, MixableSpace):
            raise ConfigurationError(
                "algorithm 'darts' trains one network with all options of a space, which this space has not; "
                "expected the space cell, or another algorithm"
            )
        self._space = problem.space
        self._network = problem.space.mixed()
        self._trained = problem.space.mixed(part)
        terms = mixtures(self._network)
        self._choices = [choice for choice in problem.space.choices if choice.name in terms]
        self._layers = term_layers(self._network)
        self._relaxation = Relaxation(self._choices, terms)
        self._travel = travel
        self._epochs, self._warm_up = epochs, round(warm_up * epochs)
        self._sampled, self._unrolled = sampled, unrolled
        self._most_skips = int(most_skips * len(self._choices))
        self._devices = _devices(problem)
        self._usual_loss: float | None = None
        self._merits = {choice.name: np.zeros(len(choice.options)) for choice in self._choices}
        self._chosen: list[int] = []
        self._step = self._epoch = 0
        self._stopped = self._finished = False
        self._supernet: Supernet | None = None
        self._saved_supernet = b""
        self._proposals = Proposals(seed)

    def learn(self, laboratory: Laboratory, spent: float) -> LearningStep | None:
        """Time operators, or train for an epoch, or judge the options and choose.

        Raises:
            DeviceError: If a device cannot time the operators.
        """
        if self._finished:
            return None
        self._step += 1
        if any(not device.costs_ms for device in self._devices.values()):
            self._time_operators(laboratory)
            return LearningStep(activity="timed operators", number=self._step, curves={})
        if self._epoch < self._epochs and spent < _SHARE_OF_TIME:
            return self._learn_an_epoch(laboratory)
        self._judge(self._ready_supernet(laboratory))
        self._choose(laboratory)
        self._finished, self._supernet, self._saved_supernet = True, None, b""
        return LearningStep(activity="chose operations", number=self._step, curves=self._expected())

    def ask(self, count: int) -> list[Architecture]:
        """Return what was chosen, then what comes near it."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Count the trials as proposed: what is learnt is learnt before."""
        self._proposals.add_told(trials)

    def state(self) -> bytes:
        """Return the generator's state, the mixture, what devices told, and the supernet while it is trained."""
        saved = self._supernet.state() if self._supernet else self._saved_supernet
        return _State(
            rng=self._proposals.state(),
            step=self._step,
            epoch=self._epoch,
            relaxation=self._relaxation.state(),
            usual_loss=self._usual_loss,
            devices=self._devices,
            merits={name: values.tolist() for name, values in self._merits.items()},
            chosen=self._chosen,
            finished=self._finished,
            stopped=self._stopped,
            supernet=base64.b64encode(saved).decode("ascii"),
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._proposals.restore(restored.rng, told, pending)
        self._step, self._epoch = restored.step, restored.epoch
        self._relaxation.restore(restored.relaxation)
        self._usual_loss = restored.usual_loss
        self._devices = restored.devices
        self._merits = {name: np.array(values) for name, values in restored.merits.items()}
        self._chosen, self._finished, self._stopped = restored.chosen, restored.finished, restored.stopped
        self._saved_supernet = base64.b64decode(restored.supernet)

    def _time_operators(self, laboratory: Laboratory) -> None:
        """Learn from each device what every option costs, and what becomes of that in whole networks."""
        sampled = [self._random_options(self._proposals.rng) for _ in range(_WHOLE_NETWORKS)]
        networks = [architecture for architecture in sampled if architecture is not None]
        for name, device in self._devices.items():
            costs = term_costs(self._layers, laboratory.profile(self._network, name).layers_ms)
            device.costs_ms = {
                choice.name: [costs[choice.name].get(str(option), 0.0) for option in choice.options]
                for choice in self._choices
            }
            sums = [device.sum_ms(self._shares(architecture)) for architecture in networks]
            whole = [
                laboratory.profile(self._space.lower(architecture), name).latency_ms
                for architecture in networks
            ]
            device.base_ms, device.scale = _line(sums, whole)

    def _learn_an_epoch(self, laboratory: Laboratory) -> LearningStep:
        supernet = self._ready_supernet(laboratory)
        supernet.begin_epoch()
        before = self._relaxation.state()
        for _ in range(supernet.steps_per_epoch):
            if self._epoch >= self._warm_up and not self._stopped:
                self._learn_mixture(supernet)
            supernet.train_weights(self._mixed())
        if self._skips() > self._most_skips:
            self._relaxation.restore(before)
            self._stopped = True
        self._epoch += 1
        judged = [supernet.loss(self._mixed()) for _ in range(_WATCHED if self._sampled else 1)]
        loss, accuracy = (float(values) for values in np.mean(judged, axis=0))
        curves = {
            "alpha_entropy": self._relaxation.entropy(),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            **self._expected(),
        }
        return LearningStep(
            activity=f"trained the supernet, epoch {self._epoch} of {self._epochs}",
            number=self._step,
            curves=curves,
        )

    def _mixed(self) -> Coefficients:
        """Return what one step mixes."""
        if not self._sampled:
            # Decays, so that the mixture need not keep skips for the sake of the gradient.
            return self._relaxation.coefficients(auxiliary=1.0 - self._epoch / self._epochs)
        rng, shares = self._proposals.rng, self._relaxation.probabilities()
        return self._relaxation.coefficients(
            made={name: int(rng.choice(len(share), p=share)) for name, share in shares.items()}
        )

    def _learn_mixture(self, supernet: Supernet) -> None:
        """Take one step on the mixture, and one on the weight of each latency that has a target."""
        mixed, shares = self._mixed(), self._relaxation.probabilities()
        loss, slopes = supernet.gradient(mixed, unrolled=self._unrolled)
        if self._sampled:
            slopes = {**slopes, **self._score(loss, mixed, shares)}
        of_shares = {choice.name: np.zeros(len(choice.options)) for choice in self._choices}
        for device in self._devices.values():
            if device.target_ms is None:
                continue
            excess = device.expected_ms(shares) / device.target_ms - 1
            device.weight = max(0.0, device.weight + _DUAL_RATE * excess)
            if excess > 0:
                for name, costs in device.costs_ms.items():
                    of_shares[name] += device.weight * device.scale * np.array(costs) / device.target_ms
        steps = max(1, self._epochs - self._warm_up) * supernet.steps_per_epoch
        self._relaxation.step(slopes, of_shares, self._travel / steps)

    def _score(self, loss: float, mixed: Coefficients, shares: Mapping[str, FloatVector]) -> Coefficients:
        """Return the slope of the expected loss by the terms of each choice, of which those sampled alone can tell.

        The loss is compared with a moving average of earlier ones.
        """
        if self._usual_loss is None:
            self._usual_loss = loss
        advantage = loss - self._usual_loss
        self._usual_loss += _FORGETTING * advantage
        found = {}
        for choice in self._choices:
            terms = self._layers[choice.name]
            of_option = dict(zip(map(str, choice.options), shares[choice.name], strict=True))
            found[choice.name] = np.array(
                [
                    advantage / of_option[term] if coefficient and term in of_option else 0.0
                    for term, coefficient in zip(terms, mixed[choice.name], strict=True)
                ]
            )
        return found

    def _ready_supernet(self, laboratory: Laboratory) -> Supernet:
        if self._supernet is None:
            self._supernet = laboratory.supernet(self._trained, self._epochs)
            if self._saved_supernet:
                self._supernet.restore(self._saved_supernet)
        return self._supernet

    def _judge(self, supernet: Supernet) -> None:
        """Learn the merit of each option: what the loss falls by when its choice is made that way.

        Of a mixture, that is told one choice at a time. Of sampled options, it is the additive part of the losses of
        random architectures, by ridge regression.
        """
        sizes = [len(choice.options) for choice in self._choices]
        if self._sampled:
            drawn = self._proposals.rng.integers(0, sizes, size=(_JUDGED * len(sizes), len(sizes)))
            losses = [
                supernet.loss(self._relaxation.coefficients(made=self._made(places)))[0] for places in drawn
            ]
            merits = np.split(_additive(drawn, sizes, -np.array(losses)), np.cumsum(sizes)[:-1])
        else:
            whole, _ = supernet.loss(self._relaxation.coefficients())
            merits = [
                np.array(
                    [
                        whole - supernet.loss(self._relaxation.coefficients(made={choice.name: place}))[0]
                        for place in range(len(choice.options))
                    ]
                )
                for choice in self._choices
            ]
        self._merits = {choice.name: values for choice, values in zip(self._choices, merits, strict=True)}

    def _made(self, places: IntArray) -> dict[str, int]:
        return {choice.name: int(place) for choice, place in zip(self._choices, places, strict=True)}

    def _choose(self, laboratory: Laboratory) -> None:
        """Choose the best options that fit, and measure what they take until it is near the target, or below it.

        Where several devices have a target, each network is measured on all of them.
        """
        for _ in range(_CORRECTIONS):
            found, architecture = self._best_network()
            self._chosen = found
            if architecture is None or not self._devices:
                return
            network, shares = self._space.lower(architecture), self._shares(architecture)
            fits, near = True, False
            for name, device in self._devices.items():
                measured_ms = laboratory.profile(network, name).latency_ms
                device.correction = measured_ms / device.expected_ms(shares)
                if device.target_ms is not None:
                    fits = fits and measured_ms <= device.target_ms
                    near = near or measured_ms >= _NEAR * device.target_ms
            if fits and (near or self._best_network()[0] == found):
                return

    def _best_network(self) -> tuple[list[int], Architecture | None]:
        """Return the options of the network that meets the targets best and, of several, has the best merits, and it.

        Not all options that fit make a network, and edges that lead nowhere take no time: so merits are moved a little,
        more from one attempt to the next, and what comes out is judged by what is left of it.
        """
        best: tuple[tuple[float, float], list[int], Architecture] | None = None
        for attempt in range(_ATTEMPTS):
            noise = attempt / _ATTEMPTS * self._spread()
            merits = {
                name: values + noise * self._proposals.rng.gumbel(size=len(values))
                for name, values in self._merits.items()
            }
            found = self._best(merits, room=1.0)
            architecture = None if found is None else self._composed(found)
            if found is None or architecture is None:
                continue
            merit = sum(self._merits[c.name][place] for c, place in zip(self._choices, found, strict=True))
            key = (self._miss(architecture), -float(merit))
            if best is None or key < best[0]:
                best = key, found, architecture
            if not self._devices:
                break
        return ([], None) if best is None else best[1:]

    def _miss(self, architecture: Architecture) -> float:
        """Return by what share of it the expected latency misses a target; what is above counts tenfold."""
        shares = self._shares(architecture)
        missed = 0.0
        for device in self._devices.values():
            if device.target_ms is not None:
                used = device.correction * device.expected_ms(shares) / device.target_ms
                missed += 10 * max(0.0, used - _AIMED) + max(0.0, _NEAR - used)
        return missed

    def _spread(self) -> float:
        """Return how far apart the merits of a choice's options are, on average."""
        return float(np.mean([np.ptp(values) for values in self._merits.values()]))

    def _best(self, merits: Mapping[str, FloatVector], room: float) -> list[int] | None:
        """Return the options with the best merits that every device has room for.

        Where a target leaves room unused, what is slower counts as better, as little as makes use of it: a supernet that
        is trained briefly thinks too little of operations that learn slowly.

        Args:
            merits: By choice, of each option.
            room: Share of it that may be used: of the target, or of what the slowest options take.
        """
        costs = [np.zeros(len(choice.options)) for choice in self._choices]
        for device in self._devices.values():
            by_choice = [
                device.correction * device.scale * np.array(device.costs_ms[c.name]) for c in self._choices
            ]
            budget = sum(float(cost.max()) for cost in by_choice)
            if device.target_ms is not None:
                budget = _AIMED * device.target_ms - device.correction * device.base_ms
            budget = max(1e-9, room * budget)
            costs = [np.maximum(cost, other / budget) for cost, other in zip(costs, by_choice, strict=True)]
        values = [merits[choice.name] for choice in self._choices]
        spread = self._spread()
        has_target = any(device.target_ms is not None for device in self._devices.values())
        found = None
        for price in (0.0, *_PRICES) if has_target else (0.0,):
            priced = [value + price * spread * cost for value, cost in zip(values, costs, strict=True)]
            found = best_options(priced, costs, self._passing, self._most_skips)
            if found is None or sum(cost[place] for cost, place in zip(costs, found, strict=True)) >= _NEAR:
                break
        return found

    def _propose(self) -> Architecture | None:
        if self._chosen:
            first = self._composed(self._chosen)
            if first is not None and first not in self._proposals:
                self._proposals.add(first)
                return first
        near = (self._near,) if self._finished else ()
        return self._proposals.fresh(*near, self._space.sample)

    def _near(self, rng: Rng) -> Architecture:
        """Return what is best by merits that are a little different, in some of the room."""
        scale = self._spread() / 4
        merits = {
            name: values + scale * rng.gumbel(size=len(values)) for name, values in self._merits.items()
        }
        room = 1.0 if rng.random() < 0.5 else rng.uniform(0.2, 1.0)
        found = self._best(merits, room)
        architecture = None if found is None else self._composed(found)
        return self._space.sample(rng) if architecture is None else architecture

    def _random_options(self, rng: Rng) -> Architecture | None:
        for _ in range(_ATTEMPTS):
            found = self._composed([int(rng.integers(len(choice.options))) for choice in self._choices])
            if found is not None:
                return found
        return None

    def _composed(self, places: Sequence[int]) -> Architecture | None:
        sizes = self._space.mixed_sizes()
        values: dict[str, ChoiceValue] = {
            choice.name: sizes[choice.name] for choice in self._space.choices if choice.name in sizes
        }
        for choice, place in zip(self._choices, places, strict=True):
            values[choice.name] = choice.options[place]
        return self._space.compose(values)

    def _shares(self, architecture: Architecture) -> dict[str, FloatVector]:
        return {
            choice.name: np.array([float(option == architecture[choice.name]) for option in choice.options])
            for choice in self._choices
        }

    @cached_property
    def _passing(self) -> list[IntArray]:
        """1 for the options of each choice that pass their input on, else 0."""
        terms = [[self._layers[c.name].get(str(option)) for option in c.options] for c in self._choices]
        return [
            np.array([found is not None and not any(found) for found in of_choice], dtype=np.int64)
            for of_choice in terms
        ]

    def _skips(self) -> int:
        """Return how many choices the mixture has made by passing the input on: with more than all other options together."""
        shares = self._relaxation.probabilities()
        return sum(
            float(shares[choice.name] @ passing) > 0.5
            for choice, passing in zip(self._choices, self._passing, strict=True)
        )

    def _expected(self) -> dict[str, float]:
        shares = self._relaxation.probabilities()
        return {
            f"expected_{_LATENCY}@{name}": device.expected_ms(shares)
            for name, device in self._devices.items()
        }


def _devices(problem: Problem) -> dict[str, _Device]:
    """Return the devices whose latency counts, with the tightest bound on it."""
    found: dict[str, _Device] = {}
    for objective in problem.objectives:
        if objective.metric.name == _LATENCY and objective.device:
            found.setdefault(objective.device, _Device(target_ms=None))
    for constraint in problem.constraints:
        objective = constraint.objective
        if objective.metric.name == _LATENCY and objective.device and constraint.upper:
            device = found.setdefault(objective.device, _Device(target_ms=None))
            device.target_ms = min(constraint.bound, device.target_ms or constraint.bound)
    return found


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


def _line(sums: Sequence[float], whole: Sequence[float]) -> tuple[float, float]:
    """Return base and scale of the line nearest to the points, neither below 0; the mean ratio where no line fits."""
    if len(set(sums)) > 1:
        scale, base = np.polyfit(sums, whole, 1)
        if scale > 0 and base >= 0:
            return float(base), float(scale)
    total = sum(sums)
    return 0.0, sum(whole) / total if total > 0 else 1.0
