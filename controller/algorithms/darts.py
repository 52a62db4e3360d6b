"""Differentiable search: one network that mixes all options, whose mixture is learnt by gradients.

First, where a latency counts, the device times every operation of the supernet and a few whole networks; parameters and
multiply-accumulates are counted. Then weights and mixtures take turns, weights alone at first. At the end each option is
judged by the loss that is left when its choice is made that way, and the best options that there is room for are chosen;
what they really take is measured, and the room corrected by it, until the target is met.

Source: Liu et al. 2019, DARTS, for the mixture and its gradient; Xu et al. 2020, PC-DARTS, for partial channels and the
weights of edges; Chu et al. 2021, DARTS-, section 3.3, for the auxiliary input that decays; Liang et al. 2019, DARTS+,
section 4, for stopping at too many skips; Wang et al. 2021, Rethinking Architecture Selection in Differentiable NAS,
section 3.1, for judging options by what discretizing them leaves rather than by their shares: we do so without training
in between, and for all choices at once, so that they can share a latency;
Xie et al. 2019, SNAS, section 2.2, for sampling one option a step; we take the score function's gradient for it (Williams
1992) rather than one through a softened sample, so that options not sampled need not be computed, and compare several samples
on one batch with each other (Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free), so that what makes a
batch hard or easy does not count.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.algorithms.allotment import term_costs, term_layers
from controller.algorithms.archive import IntArray
from controller.algorithms.discretization import Discretizer, Merits
from controller.algorithms.judging import merits_in_a_mixture, merits_in_samples
from controller.algorithms.operator_cost import LATENCY, OperatorCost, costs_of
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.algorithms.relaxation import Relaxation, score_slopes
from controller.core.architecture import Architecture, ChoiceValue
from controller.core.errors import ConfigurationError
from controller.core.learning import (
    Coefficients,
    Laboratory,
    LearningStep,
    MixableSpace,
    Supernet,
)
from controller.core.measurement import CONTAMINATING
from controller.core.mixing import mixtures
from controller.core.network import LAYER_FIGURES
from controller.core.protocols import Problem, Rng
from controller.core.trial import Trial

_WHOLE_NETWORKS = 4  # timed as a whole, to rescale the sums of their operators' times
_TRIED = 3  # networks that are measured before one is chosen, at most
_COMPARED = 4  # samples of the mixture on each batch that it learns from
_WATCHED = 8  # networks whose mean loss is the curve of a supernet that samples
_SHARE_OF_TIME = 0.3  # that may be spent on learning, of what a search has left once operators are timed
_AT_TARGET = 8  # proposals that use all the room that a target leaves, before others are of interest


class _State(SavedState):
    step: int
    epoch: int
    begun: float | None
    progress: float
    relaxation: dict[str, Any]
    costs: dict[str, OperatorCost]
    merits: dict[str, list[float]]
    chosen: dict[str, ChoiceValue] | None
    finished: bool
    stopped: bool
    supernet: str


class Darts:
    """Learns a mixture of all options, then proposes what it makes of them.

    Until it has learnt, and where nothing is left of that, it proposes at random.

    Args:
        problem: What to search, and for what; its space must have a supernet.
        seed: Of all random draws.
        epochs: Passes of the weights over half of the training images, at most: where a time is the budget, a share of
            it is what there is for learning, and all schedules are stretched over that.
        warm_up: Share of the learning in which only weights learn.
        sampled: Whether each step mixes one option of each choice, drawn by its share, rather than all: many times faster,
            and what is judged in the end is what was trained.
        unrolled: Whether the mixture's gradient looks one step of the weights ahead, for four more passes a step; all
            options are mixed then.
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
        self._epochs, self._warm_up = epochs, warm_up
        self._sampled, self._unrolled = sampled and not unrolled, unrolled
        self._most_skips = int(most_skips * len(self._choices))
        self._passing = self._find_passing()
        self._discretizer = Discretizer(
            problem.space, self._choices, self._passing, self._most_skips, costs_of(problem, problem.space)
        )
        self._count_operators(np.random.default_rng(seed))
        self._faster_is_better = any(objective.metric.name == LATENCY for objective in problem.objectives)
        self._merits: Merits = {choice.name: np.zeros(len(choice.options)) for choice in self._choices}
        self._chosen: Architecture | None = None
        self._step = self._epoch = 0
        # The share of the search's time that was spent when weights began to learn.
        self._begun: float | None = None
        self._progress = 0.0
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
        if any(not cost.costs for cost in self._costs.values()):
            self._time_operators(laboratory)
            return LearningStep(activity="timed operators", number=self._step, curves={})
        if self._begun is None:
            self._begun = spent
        of_time = (spent - self._begun) / max(1e-9, _SHARE_OF_TIME * (1 - self._begun))
        progress = max(self._epoch / self._epochs, of_time)
        # An epoch is not begun of which most would come after the end.
        if not self._epoch or progress + self._pace(progress) / 2 < 1:
            return self._learn_an_epoch(laboratory, progress)
        self._merits = self._judge(self._ready_supernet(laboratory))
        self._choose(laboratory)
        self._finished, self._supernet, self._saved_supernet = True, None, b""
        return LearningStep(activity="chose operations", number=self._step, curves=self._expected())

    def ask(self, count: int) -> list[Architecture]:
        """Return what was chosen, then what comes near it."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Count the trials as proposed, and learn what they took, undisturbed: all else is learnt before."""
        self._proposals.add_told(trials)
        for trial in trials:
            shares = self._discretizer.shares(trial.architecture)
            for name, cost in self._measured().items():
                measured = trial.values.get(name)
                if (
                    cost.costs
                    and measured
                    and not CONTAMINATING.intersection(trial.flags.get(cost.device, ()))
                ):
                    cost.correct(shares, measured)

    def state(self) -> bytes:
        """Return the generator's state, the mixture, what operators cost, and the supernet while it is trained."""
        saved = self._supernet.state() if self._supernet else self._saved_supernet
        return _State(
            rng=self._proposals.state(),
            step=self._step,
            epoch=self._epoch,
            begun=self._begun,
            progress=self._progress,
            relaxation=self._relaxation.state(),
            costs=dict(self._costs),
            merits={name: values.tolist() for name, values in self._merits.items()},
            chosen=None if self._chosen is None else dict(self._chosen.values),
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
        self._begun, self._progress = restored.begun, restored.progress
        self._discretizer.costs = restored.costs
        self._merits = {name: np.array(values) for name, values in restored.merits.items()}
        self._chosen = None if restored.chosen is None else Architecture.of(restored.chosen)
        self._finished, self._stopped = restored.finished, restored.stopped
        self._saved_supernet = base64.b64decode(restored.supernet)

    @property
    def _costs(self) -> Mapping[str, OperatorCost]:
        return self._discretizer.costs

    def _measured(self) -> Mapping[str, OperatorCost]:
        return {name: cost for name, cost in self._costs.items() if cost.device}

    def _count_operators(self, rng: Rng) -> None:
        """Learn what each option adds to what analysis tells."""
        networks = self._random_networks(rng)
        for name, cost in self._costs.items():
            if not cost.device:
                of_layer = LAYER_FIGURES[name]
                by_layer = {layer.name: of_layer(layer) for layer in self._network.layers}
                self._learn_cost(
                    cost, by_layer, networks, [self._space.figures(found)[name] for found in networks]
                )

    def _time_operators(self, laboratory: Laboratory) -> None:
        """Learn from each device what every option takes, and what becomes of that in whole networks."""
        networks = self._random_networks(self._proposals.rng)
        lowered = [self._space.lower(found) for found in networks]
        for cost in self._measured().values():
            by_layer = laboratory.profile(self._network, cost.device).layers_ms
            wholes_ms = [laboratory.profile(network, cost.device).latency_ms for network in lowered]
            self._learn_cost(cost, by_layer, networks, wholes_ms)

    def _learn_cost(
        self,
        cost: OperatorCost,
        by_layer: Mapping[str, float],
        networks: Sequence[Architecture],
        wholes: Sequence[float],
    ) -> None:
        """Learn from the layers of the supernet what each option costs, and from whole networks what becomes of that."""
        terms = term_costs(self._layers, by_layer)
        cost.costs = {
            choice.name: [terms[choice.name].get(str(option), 0.0) for option in choice.options]
            for choice in self._choices
        }
        cost.fit([self._discretizer.shares(found) for found in networks], wholes)

    def _random_networks(self, rng: Rng) -> list[Architecture]:
        sampled = [self._discretizer.random(rng) for _ in range(_WHOLE_NETWORKS)]
        return [architecture for architecture in sampled if architecture is not None]

    def _learn_an_epoch(self, laboratory: Laboratory, progress: float) -> LearningStep:
        """Train for one epoch.

        Args:
            laboratory: Has the supernet.
            progress: How much of the learning was done before, by epochs or by time, whichever is more.
        """
        supernet = self._ready_supernet(laboratory)
        supernet.begin_epoch()
        before = self._relaxation.state()
        pace = self._pace(progress) / supernet.steps_per_epoch
        for step in range(supernet.steps_per_epoch):
            done = min(1.0, progress + step * pace)
            if progress >= self._warm_up and not self._stopped:
                self._learn_mixture(supernet, done, self._travel * pace / (1 - self._warm_up))
            supernet.train_weights(self._mixed(done), done)
        self._progress = progress
        if self._skips() > self._most_skips:
            self._relaxation.restore(before)
            self._stopped = True
        self._epoch += 1
        judged = [supernet.loss(self._mixed(progress)) for _ in range(_WATCHED if self._sampled else 1)]
        loss, accuracy = (float(values) for values in np.mean(judged, axis=0))
        curves = {
            "alpha_entropy": self._relaxation.entropy(),
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            **self._expected(),
        }
        return LearningStep(
            activity=f"trained the supernet, epoch {self._epoch} of at most {self._epochs}",
            number=self._step,
            curves=curves,
        )

    def _pace(self, progress: float) -> float:
        """Return how much of the learning the next epoch is likely to be: as much as the last one was."""
        return max(1 / self._epochs, progress - self._progress if self._epoch else 0.0)

    def _mixed(self, progress: float) -> Coefficients:
        """Return what one step mixes."""
        if self._sampled:
            return self._relaxation.coefficients(made=self._drawn())
        # Decays, so that the mixture need not keep skips for the sake of the gradient.
        return self._relaxation.coefficients(auxiliary=1.0 - progress)

    def _drawn(self) -> dict[str, int]:
        """Return the place of one option of each choice, drawn by its share."""
        rng, shares = self._proposals.rng, self._relaxation.probabilities()
        return {name: int(rng.choice(len(share), p=share)) for name, share in shares.items()}

    def _learn_mixture(self, supernet: Supernet, progress: float, rate: float) -> None:
        """Take one step on the mixture, and one on the weight of each bound."""
        shares = self._relaxation.probabilities()
        by_term: Coefficients = {}
        by_share = {name: np.zeros(len(share)) for name, share in shares.items()}
        if self._sampled:
            drawn = [self._drawn() for _ in range(_COMPARED)]
            losses = supernet.losses([self._relaxation.coefficients(made=made) for made in drawn])
            by_share = score_slopes(shares, drawn, losses)
        else:
            by_term = supernet.gradient(self._mixed(progress), unrolled=self._unrolled)
        for cost in self._costs.values():
            for name, slope in cost.slopes(shares).items():
                by_share[name] += slope
        self._relaxation.step(by_term, by_share, rate)

    def _ready_supernet(self, laboratory: Laboratory) -> Supernet:
        if self._supernet is None:
            self._supernet = laboratory.supernet(self._trained)
            if self._saved_supernet:
                self._supernet.restore(self._saved_supernet)
        return self._supernet

    def _judge(self, supernet: Supernet) -> Merits:
        """Return what each option is worth in what was trained."""
        if self._sampled:
            return merits_in_samples(self._choices, self._relaxation, supernet, self._proposals.rng)
        return merits_in_a_mixture(self._choices, self._relaxation, supernet)

    def _choose(self, laboratory: Laboratory) -> None:
        """Choose the network of the best options that fits, and uses the target.

        How a runtime fuses operators differs from network to network, and sums over them with it: some are measured, and
        the one that is nearest to the target is chosen.
        """
        missed: dict[Architecture, float] = {}
        while len(missed) < _TRIED:
            found = self._discretizer.best(self._merits, self._proposals.rng, besides=missed)
            if found is None:
                break
            missed[found] = self._missed(found, laboratory)
            if not missed[found]:
                break
        self._chosen = min(missed, key=missed.__getitem__, default=None)

    def _missed(self, found: Architecture, laboratory: Laboratory) -> float:
        """Measure a network, and return by what share it misses the targets; what is above counts tenfold.

        Of several devices with a target, the one that leaves least unused is what a network can be near to.
        """
        network, shares = self._space.lower(found), self._discretizer.shares(found)
        above, below = [0.0], []
        for cost in self._measured().values():
            measured_ms = laboratory.profile(network, cost.device).latency_ms
            cost.correct(shares, measured_ms)
            above.append(cost.excess(measured_ms))
            if cost.is_target:
                below.append(cost.unused(measured_ms))
        return 10 * max(above) + min(below, default=0.0)

    def _propose(self) -> Architecture | None:
        if self._chosen is not None and self._chosen not in self._proposals:
            self._proposals.add(self._chosen)
            return self._chosen
        near = (self._near,) if self._finished else ()
        return self._proposals.fresh(*near, self._space.sample)

    def _near(self, rng: Rng) -> Architecture:
        """Return what is best by merits that are a little different.

        It uses all the room while only a target was asked for, or few have used it; else some of it.
        """
        has_target = self._discretizer.has_target
        all_of_it = has_target and (not self._faster_is_better or len(self._proposals) < _AT_TARGET)
        room = 1.0 if all_of_it or rng.random() < 0.5 else rng.uniform(0.2, 1.0)
        return self._discretizer.near(self._merits, rng, room, self._proposals) or self._space.sample(rng)

    def _find_passing(self) -> list[IntArray]:
        """Return for each choice 1 for the options that pass their input on, else 0."""
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
        return {f"expected_{name}": cost.expected(shares) for name, cost in self._measured().items()}
