"""Reinforcement learning: a policy that is rewarded for what it samples.

Source: Williams 1992, REINFORCE, with an exponential moving average as baseline and an entropy bonus; Bender et
al. 2020, TuNAS, section 3.1, for the absolute reward; Tan et al. 2019, MnasNet, section 3.1, for the soft one;
Abolafia et al. 2018, priority queue training, for imitating the best found so far.

Without a target the reward is a Chebyshev scalarisation of the objectives under weights that the policy is told, others
for each sample: one policy covers the whole front (Knowles 2006, ParEGO, for the scalarisation). The weights are a Sobol
sequence, so that any few samples in a row are rewarded for the whole front, and their mean is about the policy.
"""

import base64
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np
import torch

from controller.algorithms.archive import Archive, IntArray
from controller.algorithms.policy import Policy
from controller.algorithms.proposals import Proposals, SavedState, up_to
from controller.core.architecture import Architecture, option_places
from controller.core.errors import ConfigurationError
from controller.core.objective import Constraint, Direction
from controller.core.protocols import Problem, Rng
from controller.core.trial import Trial, TrialState
from controller.pareto.front import Box, FloatArray

_ATTEMPTS = 20
_RESAMPLED = 64
_IMITATED = 8
# The first candidates, which the policy has hardly shaped, are what rewards are scaled by: by all that are known, what the policy has
# learnt to find would be rewarded less and less.
_SCALED_BY = 20
_PENALTY = 2.0  # for each part by which a constraint is broken, where objectives span 1
_WORST = -2.0
_LEAST_RATIO = 0.01  # of a figure to its target: net energy may be 0 or less
_MOMENTS = ("exp_avg", "exp_avg_sq")  # that Adam keeps of each parameter


class Reward(Enum):
    """What the policy is rewarded for."""

    PREFERENCES = "preferences"
    """Every objective, as much as the weights say that were drawn for the sample."""
    ABSOLUTE = "absolute"
    """First objective + beta · |value / target - 1|, the target being the bound of the only constraint."""
    SOFT = "soft"
    """First objective · (value / target) ** beta."""


class _State(SavedState):
    weights: dict[str, tuple[float, ...]]
    drawn: int
    baseline: float | None
    updates: int
    policy: str
    moments: tuple[str, ...]


class Reinforce:
    """Samples architectures from a policy, and makes rewarded ones likelier.

    Args:
        problem: What to search, and for what.
        seed: Of all random draws, and of the policy's initial weights.
        reward: What the policy is rewarded for.
        beta: Slope or exponent of the absolute and the soft reward, below 0.
        learning_rate: Of Adam.
        entropy_weight: Bonus for undecided policies, at first; it fades as samples come in.
        baseline_decay: Of the moving average of rewards.

    Raises:
        ConfigurationError: If a reward needs a target and there is not exactly one constraint from above.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        reward: Reward | str = Reward.PREFERENCES,
        beta: float = -0.3,
        learning_rate: float = 0.01,
        entropy_weight: float = 0.02,
        baseline_decay: float = 0.9,
    ) -> None:
        self._space = problem.space
        self._problem = problem
        self._reward_kind = Reward(reward)
        self._target = _target(problem) if self._reward_kind is not Reward.PREFERENCES else None
        self._beta = beta
        self._entropy_weight = entropy_weight
        self._decay = baseline_decay
        self._archive = Archive(problem.objectives)
        self._proposals = Proposals(seed)
        self._policy = Policy(problem.space.choices, len(problem.objectives), seed)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=learning_rate)
        self._weights: dict[str, FloatArray] = {}
        self._sequence = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            max(1, len(problem.objectives) - 1), scramble=True, seed=seed
        )
        self._baseline: float | None = None
        self._updates = 0
        self._points: dict[str, float] = {}

    @property
    def points(self) -> Mapping[str, float]:
        """Of the last trial told: its reward, the moving average that it was compared with, and the policy's entropy."""
        return self._points

    def ask(self, count: int) -> list[Architecture]:
        """Return at most count new architectures, sampled from the policy."""
        return up_to(count, self._propose)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Make what was rewarded likelier, trial by trial."""
        self._proposals.add_told(trials)
        for trial in trials:
            self._archive.add([trial])
            self._learn(len(self._archive) - 1)

    def state(self) -> bytes:
        """Return the generator's state, the policy and its optimizer."""
        moments = [
            _packed(torch.cat([self._optimizer.state[p][name].flatten() for p in self._policy.parameters()]))
            for name in _MOMENTS
            if self._updates
        ]
        return _State(
            rng=self._proposals.state(),
            weights={name: tuple(weights.tolist()) for name, weights in self._weights.items()},
            drawn=self._sequence.num_generated,
            baseline=self._baseline,
            updates=self._updates,
            policy=_packed(torch.nn.utils.parameters_to_vector(self._policy.parameters())),
            moments=tuple(moments),
        ).dump()

    def restore(self, state: bytes, told: Sequence[Trial], pending: Sequence[Architecture]) -> None:
        """Continue from state."""
        restored = _State.model_validate_json(state)
        self._archive.add(told)
        self._proposals.restore(restored.rng, told, pending)
        self._weights = {name: np.array(weights) for name, weights in restored.weights.items()}
        self._sequence.reset()  # type: ignore[no-untyped-call]
        self._sequence.fast_forward(restored.drawn)  # type: ignore[no-untyped-call]
        self._baseline, self._updates = restored.baseline, restored.updates
        torch.nn.utils.vector_to_parameters(_unpacked(restored.policy), self._policy.parameters())
        for name, packed in zip(_MOMENTS, restored.moments, strict=False):
            values, start = _unpacked(packed), 0
            for parameter in self._policy.parameters():
                moment = values[start : start + parameter.numel()].view_as(parameter).clone()
                self._optimizer.state[parameter][name] = moment
                self._optimizer.state[parameter]["step"] = torch.tensor(float(restored.updates))
                start += parameter.numel()

    def _propose(self) -> Architecture | None:
        weights = self._next_weights()
        found = self._sampled(weights)
        if found is not None:
            self._weights[found.id] = weights
        return found

    def _next_weights(self) -> FloatArray:
        """Return the next of weights that are spread evenly over all that there are."""
        if len(self._problem.objectives) == 1:
            return np.ones(1)
        cuts = np.sort(self._sequence.draw(1, dtype=torch.float64)[0].numpy())
        weights: FloatArray = np.diff(np.concatenate([[0.0], cuts, [1.0]]))
        return weights

    def _draw_weights(self, rng: Rng) -> FloatArray:
        count = len(self._problem.objectives)
        return rng.dirichlet(np.ones(count)) if count > 1 else np.ones(1)

    def _sampled(self, weights: FloatArray) -> Architecture | None:
        """Return a new architecture from the policy; invalid samples are drawn again, not punished."""
        choices, rng = self._space.choices, self._proposals.rng
        wanted = torch.tensor(weights, dtype=torch.float32)[None]
        for _ in range(_ATTEMPTS):
            chosen = self._policy.sample(torch.from_numpy(rng.random((1, len(choices)))), wanted)[0].tolist()
            architecture = self._space.compose(
                {choice.name: choice.options[index] for choice, index in zip(choices, chosen, strict=True)}
            )
            if architecture is not None and architecture not in self._proposals:
                self._proposals.add(architecture)
                return architecture
        return self._resampled(wanted)

    def _resampled(self, wanted: torch.Tensor) -> Architecture | None:
        """Return a new sample of the space, drawn by what the policy thinks of it.

        Spaces that are sparse, and policies that have made up their mind, leave little that is new to draw directly.
        """
        fresh = {
            architecture.id: architecture
            for architecture in (self._space.sample(self._proposals.rng) for _ in range(_RESAMPLED))
            if architecture not in self._proposals
        }
        if not fresh:
            return self._proposals.fresh(self._space.sample)
        drawn = list(fresh.values())
        with torch.inference_mode():
            likelihood = self._likelihood(self._encoded(drawn), wanted.expand(len(drawn), -1))[0].double()
        shares = torch.softmax(likelihood, dim=0).numpy()
        architecture = drawn[int(self._proposals.rng.choice(len(drawn), p=shares / shares.sum()))]
        self._proposals.add(architecture)
        return architecture

    def _learn(self, member: int) -> None:
        trial = self._archive.trials[member]
        # Whoever was asked for by another algorithm has no weights of its own.
        weights = self._weights.pop(trial.id, None)
        if weights is None:
            weights = self._draw_weights(np.random.default_rng(member))
        reward = self._reward(member, weights)
        baseline = reward if self._baseline is None else self._baseline
        self._baseline = self._decay * baseline + (1 - self._decay) * reward
        members, all_weights = [member], [weights]
        rng = np.random.default_rng((member, 1))
        for other, best in self._best([self._draw_weights(rng) for _ in range(_IMITATED)]):
            members.append(best)
            all_weights.append(other)
        encoded = self._encoded([self._archive.architecture(place) for place in members])
        likelihood, entropy = self._likelihood(
            encoded, torch.tensor(np.array(all_weights), dtype=torch.float32)
        )
        imitation = likelihood[1:].mean() if len(members) > 1 else torch.zeros(())
        fading = self._entropy_weight * 100 / (100 + self._updates)
        loss = -((reward - baseline) * likelihood[0] + imitation) / encoded.shape[1] - fading * entropy
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
        self._optimizer.step()
        self._updates += 1
        self._points = {"reward": reward, "baseline": baseline, "policy_entropy": entropy.item()}

    def _likelihood(self, encoded: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-likelihoods, shape (n,), and the mean entropy of a choice."""
        steps = self._policy.log_probabilities(encoded, weights)
        chosen = torch.stack(
            [step.gather(1, encoded[:, place : place + 1])[:, 0] for place, step in enumerate(steps)]
        )
        entropy = torch.stack([-(step.exp() * step).sum(dim=1).mean() for step in steps]).mean()
        return chosen.sum(dim=0), entropy

    def _encoded(self, architectures: Sequence[Architecture]) -> torch.Tensor:
        return torch.tensor(
            [option_places(self._space.choices, architecture.values) for architecture in architectures]
        )

    def _reward(self, member: int, weights: FloatArray) -> float:
        trial = self._archive.trials[member]
        if trial.state is not TrialState.COMPLETE:
            return max(_WORST, -1.0 - _PENALTY * trial.violation) if trial.violation else _WORST
        if self._target is None:
            scaled = self._gains([member])[0]
            return max(_WORST, float(_chebyshev(scaled, weights)) - _PENALTY * trial.violation)
        ratio = trial.values[self._target.objective.key] / self._target.bound
        quality = trial.values[self._problem.objectives[0].key]
        if self._reward_kind is Reward.SOFT:
            return float(quality * max(ratio, _LEAST_RATIO) ** self._beta)
        return quality + self._beta * abs(ratio - 1)

    def _best(self, all_weights: Sequence[FloatArray]) -> list[tuple[FloatArray, int]]:
        """Return the member with the largest reward under each weights; none while nothing is feasible."""
        front = self._archive.front()
        if not len(front):
            return []
        if self._target is not None:
            feasible = self._archive.feasible().tolist()
            best = max(feasible, key=lambda member: self._reward(member, all_weights[0]))
            return [(weights, best) for weights in all_weights]
        gains = self._gains(front)
        return [(weights, int(front[np.argmax(_chebyshev(gains, weights))])) for weights in all_weights]

    def _gains(self, members: Sequence[int] | IntArray) -> FloatArray:
        """Return objectives scaled to 1 for the best and 0 for the worst tenth of the first that were known; shape (n, n_objectives)."""
        known = self._archive.complete()[:_SCALED_BY]
        if len(known) == 1:
            # The only one that is known is best and worst at once.
            return np.full((len(members), len(self._problem.objectives)), 0.5)
        box = Box.around(self._archive.points(known), percentile=90)
        return np.maximum(-1.0, 1.0 - box.scaled(self._archive.points(members)))


def _chebyshev(gains: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the scalarised gain, 1 for the best of every objective at once; shape of gains without its last axis."""
    losses = weights * (1.0 - gains) / weights.max()
    scalarised: FloatArray = 1.0 - losses.max(axis=-1) - 0.05 * losses.sum(axis=-1)
    return scalarised


def _target(problem: Problem) -> Constraint:
    above = [constraint for constraint in problem.constraints if constraint.upper and constraint.bound > 0]
    if len(above) != 1 or problem.objectives[0].metric.direction is not Direction.MAXIMISE:
        raise ConfigurationError(
            f"a reward with a target has {len(above)} constraints METRIC<=BOUND and {problem.objectives[0].key} as first "
            "objective; expected exactly one, and one to maximise such as accuracy"
        )
    return above[0]


def _packed(values: torch.Tensor) -> str:
    return base64.b64encode(values.detach().numpy().tobytes()).decode("ascii")


def _unpacked(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=np.float32).copy())
