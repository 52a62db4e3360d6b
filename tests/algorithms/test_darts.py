"""Differentiable search with a real supernet, on a device whose latencies are known exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from controller.algorithms.darts import Darts
from controller.core.errors import ConfigurationError
from controller.core.learning import LearningStep, Profile
from controller.core.network import Network
from controller.core.objective import Constraint, Objective
from controller.core.primitives import AvgPool2d, Conv2d, MaxPool2d
from controller.core.protocols import Problem
from controller.spaces import CellSpace, ChainSpace, Limits
from controller.training.data import load_dataset
from controller.training.recipe import TrainingRecipe
from controller.training.supernet import TrainedSupernet
from controller.training.trainer import Trainer

SPACE = CellSpace(input_shape=(1, 8, 8), classes=10, channels=(4, 8), cells=(1,))
RECIPE = TrainingRecipe(batch_size=32)
LATENCY = "latency_ms@pi4"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    dataset = load_dataset("digits", downloads=tmp_path_factory.mktemp("none"), train_images=300)
    return Trainer(dataset, torch.device("cpu"), torch.float32)


@dataclass
class Bench:
    """A device that takes 0.1 ms, and for each layer a time by its multiply-accumulates or its pixels; half as much when fused."""

    trainer: Trainer
    profiled: list[Network] = field(default_factory=list)

    def supernet(self, network: Network) -> TrainedSupernet:
        return TrainedSupernet(self.trainer, network, RECIPE)

    def profile(self, network: Network, device: str) -> Profile:
        assert device == "pi4"
        self.profiled.append(network)
        layers_ms = times(network)
        return Profile(latency_ms=0.1 + 0.5 * sum(layers_ms.values()), layers_ms=layers_ms)


class UnevenBench(Bench):
    """A device on which a network takes up to a quarter more or less than the sum of its layers, as its fusions will have it."""

    def profile(self, network: Network, device: str) -> Profile:
        whole = super().profile(network, device)
        return Profile(latency_ms=self.factor(network) * whole.latency_ms, layers_ms=whole.layers_ms)

    def factor(self, network: Network) -> float:
        return 0.75 + 0.5 * np.random.default_rng([network.macs, network.parameters]).random()


def times(network: Network) -> Mapping[str, float]:
    found = {}
    for layer in network.layers:
        if isinstance(layer.primitive, Conv2d):
            found[layer.name] = 0.01 + layer.macs / 1e6
        elif isinstance(layer.primitive, MaxPool2d | AvgPool2d):
            found[layer.name] = 0.01
    return found


def problem(*constraints: str, space: object = SPACE, objectives: tuple[str, ...] = ("accuracy",)) -> Problem:
    return Problem(
        space=space,
        objectives=tuple(Objective.parse(text) for text in objectives),
        constraints=tuple(Constraint.parse(text) for text in constraints),
    )


def darts(*constraints: str, **options: object) -> Darts:
    return Darts(problem(*constraints), 0, **{"epochs": 3, "warm_up": 0.3, "part": 2, **options})


def learnt(algorithm: Darts, bench: Bench) -> list[LearningStep]:
    steps = []
    while (step := algorithm.learn(bench, 0.0)) is not None:
        steps.append(step)
    return steps


def latency_ms(network: Network) -> float:
    return 0.1 + 0.5 * sum(times(network).values())


@pytest.fixture(scope="module")
def run(trainer: Trainer) -> tuple[Darts, list[LearningStep]]:
    """A search for at most 0.25 ms that has learnt; whoever asks it moves it on."""
    algorithm = darts(f"{LATENCY}<=0.25")
    return algorithm, learnt(algorithm, Bench(trainer))


def test_darts_meets_a_latency_and_uses_it(run: tuple[Darts, list[LearningStep]]):
    for proposed in run[0].ask(12):
        assert 0.9 <= latency_ms(SPACE.lower(proposed)) / 0.25 <= 1


def test_darts_chooses_what_is_near_the_target_where_sums_over_operators_are_not(trainer: Trainer):
    near = 0
    for seed in range(4):
        algorithm, bench = Darts(problem(f"{LATENCY}<=0.25"), seed, epochs=1), UnevenBench(trainer)
        learnt(algorithm, bench)
        (chosen,) = algorithm.ask(1)
        network = SPACE.lower(chosen)
        near += 0.9 <= bench.factor(network) * latency_ms(network) / 0.25 <= 1
    assert near >= 3


def test_darts_makes_at_most_half_of_its_choices_by_passing_the_input_on(
    run: tuple[Darts, list[LearningStep]],
):
    for architecture in run[0].ask(5):
        assert sum(value == "skip_connect" for value in architecture.values.values()) <= 3


def test_darts_tells_its_curves(run: tuple[Darts, list[LearningStep]]):
    first, *epochs, _ = run[1]
    assert [step.number for step in run[1]] == [1, 2, 3, 4, 5]
    assert first.activity == "timed operators"
    wanted = {"alpha_entropy", "validation_loss", "validation_accuracy", f"expected_{LATENCY}"}
    assert all(set(step.curves) == wanted for step in epochs)
    entropies = [step.curves["alpha_entropy"] for step in epochs]
    # Weights alone learn first; then the mixture makes up its mind.
    assert entropies[0] == pytest.approx(1.0)
    assert entropies[-1] < 0.99
    assert epochs[-1].curves["validation_loss"] < epochs[0].curves["validation_loss"]


def test_darts_state_is_small_once_it_has_learnt(run: tuple[Darts, list[LearningStep]]):
    assert len(run[0].state()) < 20_000


@pytest.mark.slow
def test_darts_lowers_the_expected_latency_towards_its_target(trainer: Trainer):
    _, first, *_, last, _ = learnt(darts(f"{LATENCY}<=0.12", warm_up=0.3), Bench(trainer))
    assert last.curves[f"expected_{LATENCY}"] < first.curves[f"expected_{LATENCY}"]


def test_darts_stopped_after_every_step_goes_on_as_if_it_had_not_been(
    trainer: Trainer, run: tuple[Darts, list[LearningStep]]
):
    interrupted, steps = darts(f"{LATENCY}<=0.25"), []
    while (step := interrupted.learn(Bench(trainer), 0.0)) is not None:
        steps.append(step)
        state = interrupted.state()
        interrupted = darts(f"{LATENCY}<=0.25")
        interrupted.restore(state, [], [])
    assert steps == run[1]


def test_darts_ends_its_learning_early_where_the_time_is_spent(trainer: Trainer):
    algorithm, bench = darts(epochs=50), Bench(trainer)
    assert algorithm.learn(bench, 0.1).activity == "trained the supernet, epoch 1 of at most 50"
    assert algorithm.learn(bench, 0.7).activity == "chose operations"
    assert algorithm.learn(bench, 0.7) is None


def test_darts_has_time_to_learn_however_long_its_operators_took(trainer: Trainer):
    algorithm, bench = darts(f"{LATENCY}<=0.25", epochs=50), Bench(trainer)
    activities = [algorithm.learn(bench, spent).activity for spent in (0.0, 0.6, 0.63, 0.66, 0.72)]
    assert activities == [
        "timed operators",
        *(f"trained the supernet, epoch {epoch} of at most 50" for epoch in (1, 2, 3)),
        "chose operations",
    ]


def test_darts_trains_its_supernet_once_whatever_time_is_left(trainer: Trainer):
    algorithm = darts(epochs=50)
    assert algorithm.learn(Bench(trainer), 1.0).activity == "trained the supernet, epoch 1 of at most 50"


@pytest.mark.slow
def test_darts_looks_one_step_ahead_where_asked(trainer: Trainer):
    options = {"epochs": 1, "warm_up": 0.0}
    first, second = (
        learnt(darts(unrolled=unrolled, **options), Bench(trainer)) for unrolled in (False, True)
    )
    assert first[0].curves["alpha_entropy"] != second[0].curves["alpha_entropy"]


def test_darts_of_a_target_below_everything_takes_the_cheapest_there_is(trainer: Trainer):
    algorithm = darts(f"{LATENCY}<=0.01", epochs=1)
    learnt(algorithm, Bench(trainer))
    (chosen,) = algorithm.ask(1)
    assert SPACE.lower(chosen).output.shape == (10,)


def test_darts_refuses_a_space_without_a_supernet():
    space = ChainSpace(input_shape=(1, 8, 8), classes=10)
    with pytest.raises(ConfigurationError, match="trains one network with all options of a space"):
        Darts(problem(space=space), 0)


@pytest.mark.slow
def test_darts_proposes_various_latencies_where_less_is_merely_better(trainer: Trainer):
    algorithm = Darts(problem(objectives=("accuracy", LATENCY)), 0, epochs=1, part=2)
    learnt(algorithm, Bench(trainer))
    latencies = [latency_ms(SPACE.lower(architecture)) for architecture in algorithm.ask(12)]
    assert np.ptp(latencies) > 0.1


def test_darts_keeps_to_bounds_on_parameters(trainer: Trainer):
    algorithm = darts("params_m<=0.007", epochs=1)
    assert [step.activity for step in learnt(algorithm, Bench(trainer))] == [
        "trained the supernet, epoch 1 of at most 1",
        "chose operations",
    ]
    proposed = [SPACE.lower(architecture).parameters for architecture in algorithm.ask(10)]
    rng = np.random.default_rng(0)
    sampled = [SPACE.lower(SPACE.sample(rng)).parameters for _ in range(200)]
    # Few networks are that small, and what is proposed is not just the smallest.
    assert np.mean(np.array(sampled) <= 7000) < 0.3
    assert max(proposed) <= 7000
    assert np.median(proposed) > min(sampled)


def test_darts_finds_networks_where_few_keep_to_the_limits_of_a_preset(trainer: Trainer):
    space = CellSpace(
        input_shape=(1, 8, 8),
        classes=10,
        channels=(4, 8),
        cells=(1,),
        limits=Limits(parameters=7000, macs=1e9, peak_activation_bytes=1e9),
    )
    algorithm = Darts(problem(space=space), 0, epochs=1)
    learnt(algorithm, Bench(trainer))
    chosen = algorithm.ask(1)[0]
    operations = [str(value) for name, value in chosen.values.items() if "<-" in name]
    assert space.lower(chosen).parameters <= 7000
    # Convolutions learn best, and some fit in.
    assert any("conv" in operation for operation in operations)
