"""What every registered search algorithm keeps to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from example_table import write_table

from controller.algorithms import ALGORITHMS, WITH_SUPERNET
from controller.core.architecture import Architecture
from controller.core.learning import CurvedAlgorithm, MixableSpace
from controller.core.objective import Objective
from controller.core.protocols import Allocation, Problem, SearchAlgorithm, SearchSpace
from controller.core.table import read_table
from controller.core.trial import Trial, TrialState
from controller.spaces import CellSpace, ChainSpace, MobileSpace
from controller.spaces.tabular import TabularSpace

OBJECTIVES = (Objective.parse("accuracy"), Objective.parse("latency_ms@pi4"))
CHAINS = (
    ChainSpace(input_shape=(1, 8, 8), classes=10, max_layers=4, channels=(4, 8, 12, 16), stem_channels=4),
    ChainSpace(
        input_shape=(1, 4, 4),
        classes=2,
        min_layers=1,
        max_layers=2,
        operations=("conv1x1", "max_pool"),
        channels=(4,),
        max_skip_distance=0,
        stem_channels=4,
    ),
)
# A layer is a convolution or a pool, at stride 1 or 2; there are one or two layers.
CHAINS_OF_TINY = 4 + 4 * 4
CELLS = (
    CellSpace(input_shape=(1, 8, 8), classes=10, channels=(4, 8), cells=(1,)),
    CellSpace(
        input_shape=(1, 4, 4),
        classes=2,
        nodes=3,
        operations=("zero", "conv1x1", "max_pool_3x3"),
        channels=(4,),
        cells=(1,),
    ),
)
# One of two on the edge past node 1, or one of two on each edge through it, and there one of three past it.
CELLS_OF_TINY = 2 + 4 * 3
SPACES_OF: dict[str, tuple[tuple[SearchSpace, SearchSpace], int]] = {"darts": (CELLS, CELLS_OF_TINY)}
"""A large and a tiny space, and the size of the latter, for algorithms that search no chains."""
GROUNDS: dict[str, Callable[[Path], SearchSpace]] = {
    "cells": lambda _: CellSpace(input_shape=(1, 8, 8), classes=10, channels=(4, 8), cells=(1, 2)),
    "mobile": lambda _: MobileSpace(
        input_shape=(3, 16, 16), classes=10, channels=((8, 16), (16, 24)), max_depth=2
    ),
    "table": lambda folder: TabularSpace(read_table(write_table(folder / "table.csv"))),
}
"""Spaces of other kinds."""
OPEN = 4  # candidates that a search has asked for and not yet told of

every_algorithm = pytest.mark.parametrize("name", ALGORITHMS)


def large(name: str) -> SearchSpace:
    return SPACES_OF.get(name, (CHAINS, 0))[0][0]


def tiny(name: str) -> tuple[SearchSpace, int]:
    (_, space), size = SPACES_OF.get(name, (CHAINS, CHAINS_OF_TINY))
    return space, size


def build(name: str, space: SearchSpace | None = None, seed: int = 0) -> SearchAlgorithm:
    return ALGORITHMS[name](Problem(space=space or large(name), objectives=OBJECTIVES), seed)


def outcome(index: int, architecture: Architecture, space: SearchSpace) -> Trial:
    """Return what became of a candidate: of each eight one failed, two were rejected, one is over a bound, one was stopped."""
    kind = int(architecture.id, 16) % 8
    if kind == 0:
        return Trial(index=index, architecture=architecture, state=TrialState.FAILED, reason="diverged")
    if kind <= 2:
        return Trial(
            index=index,
            architecture=architecture,
            state=TrialState.REJECTED,
            values={"latency_ms@pi4": 12.0},
            violation=0.2 * kind,
            reason="12 breaks latency_ms@pi4<=10",
        )
    figures = space.figures(architecture)
    latency_ms = 10 * figures["macs_m"]
    if kind == 4:
        return Trial(
            index=index,
            architecture=architecture,
            state=TrialState.STOPPED,
            epochs=2,
            values={"accuracy_2_epochs": 0.3, "latency_ms@pi4": latency_ms},
            reason="others were better",
        )
    return Trial(
        index=index,
        architecture=architecture,
        state=TrialState.COMPLETE,
        epochs=5,
        values={"accuracy": 1 - 1 / (1 + 1000 * figures["params_m"]), "latency_ms@pi4": latency_ms},
        violation=0.1 if kind == 3 else 0.0,
    )


@dataclass
class Session:
    """A search with a few candidates open at a time: it asks for one, or tells of the oldest."""

    algorithm: SearchAlgorithm
    space: SearchSpace
    open: list[Trial] = field(default_factory=list)
    told: list[Trial] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def step(self) -> None:
        if len(self.open) < OPEN:
            (architecture,) = self.algorithm.ask(1)
            self.open.append(outcome(len(self.asked), architecture, self.space))
            self.asked.append(architecture.id)
        else:
            self.told.append(self.open.pop(0))
            self.algorithm.tell(self.told[-1:])

    def go_on_with(self, algorithm: SearchAlgorithm) -> None:
        """Have another process go on."""
        algorithm.restore(self.algorithm.state(), self.told, [trial.architecture for trial in self.open])
        self.algorithm = algorithm


def session(name: str, *, steps: int, seed: int = 0, interrupted: bool = False) -> Session:
    """Return a session after some steps; interrupted, another process goes on after each of them."""
    current = Session(build(name, seed=seed), large(name))
    for _ in range(steps):
        current.step()
        if interrupted:
            current.go_on_with(build(name, seed=seed))
    return current


@every_algorithm
def test_algorithm_depends_on_its_seed_alone(name: str):
    assert session(name, steps=120, seed=3).asked == session(name, steps=120, seed=3).asked


@every_algorithm
def test_algorithm_with_another_seed_asks_for_something_else(name: str):
    assert session(name, steps=20, seed=3).asked != session(name, steps=20, seed=4).asked


@every_algorithm
def test_algorithm_interrupted_after_every_step_goes_on_as_if_it_had_not_been(name: str):
    assert session(name, steps=44, interrupted=True).asked == session(name, steps=44).asked


@every_algorithm
@pytest.mark.parametrize("ground", GROUNDS)
def test_algorithm_interrupted_goes_on_in_any_space(name: str, ground: str, tmp_path: Path):
    space = GROUNDS[ground](tmp_path)
    if name in WITH_SUPERNET and not isinstance(space, MixableSpace):
        pytest.skip("needs a supernet")
    undisturbed, interrupted = Session(build(name, space), space), Session(build(name, space), space)
    for step in range(34):
        undisturbed.step()
        interrupted.step()
        if step in (13, 14):
            interrupted.go_on_with(build(name, space))
    assert interrupted.asked == undisturbed.asked
    assert len(set(undisturbed.asked)) == len(undisturbed.asked)


@every_algorithm
def test_algorithm_state_is_what_it_was_restored_from(name: str):
    current = session(name, steps=120)
    state = current.algorithm.state()
    current.go_on_with(build(name))
    assert current.algorithm.state() == state


@every_algorithm
def test_algorithm_state_is_not_moved_by_reading_it(name: str):
    undisturbed, read = session(name, steps=60), session(name, steps=60)
    for _ in range(20):
        read.algorithm.state()
        undisturbed.step()
        read.step()
    assert read.asked == undisturbed.asked


@every_algorithm
def test_algorithm_never_asks_for_the_same_twice(name: str):
    asked = session(name, steps=250).asked
    assert len(asked) == 127
    assert len(set(asked)) == len(asked)


@every_algorithm
def test_algorithm_asks_for_networks_of_its_space(name: str):
    algorithm = build(name)
    for architecture in algorithm.ask(40):
        algorithm.tell([outcome(0, architecture, large(name))])
    assert all(large(name).lower(architecture).output.shape == (10,) for architecture in algorithm.ask(40))


@every_algorithm
@pytest.mark.parametrize("count", [0, 1, 7, 30])
def test_algorithm_asks_for_as_many_as_wanted(name: str, count: int):
    algorithm = build(name)
    first = algorithm.ask(count)
    algorithm.tell([outcome(index, architecture, large(name)) for index, architecture in enumerate(first)])
    assert len(first) == count
    assert len(algorithm.ask(count)) == count


@every_algorithm
@pytest.mark.parametrize(
    "became",
    [
        {"state": TrialState.FAILED, "reason": "diverged"},
        {"state": TrialState.REJECTED, "violation": 0.5, "reason": "12 breaks latency_ms@pi4<=8"},
        {"state": TrialState.DISTURBED, "reason": "measured under disturbance: NOISE"},
        {
            "state": TrialState.COMPLETE,
            "violation": 0.5,
            "values": {"accuracy": 0.9, "latency_ms@pi4": 12.0},
        },
        {"state": TrialState.COMPLETE, "values": {"accuracy": 0.9, "latency_ms@pi4": 12.0}},
    ],
    ids=("failed", "disturbed", "rejected", "complete but over a bound", "equally good"),
)
def test_algorithm_goes_on_where_every_trial_became_the_same(name: str, became: dict[str, object]):
    algorithm = build(name)
    for index in range(40):
        (architecture,) = algorithm.ask(1)
        algorithm.tell([Trial(index=index, architecture=architecture, **became)])
    assert len(algorithm.ask(5)) == 5


@every_algorithm
def test_algorithm_does_not_ask_for_what_it_was_told_of_unasked(name: str):
    space, size = tiny(name)
    algorithm, other = build(name, space), build("random", space, seed=7)
    told = other.ask(size // 2)
    for index, architecture in enumerate(told):
        values = {"accuracy": index / 10, "latency_ms@pi4": 10.0 - index / 3}
        algorithm.tell(
            [Trial(index=index, architecture=architecture, state=TrialState.COMPLETE, values=values)]
        )
    asked = algorithm.ask(size)
    assert asked
    assert not set(asked) & set(told)


@every_algorithm
def test_algorithm_may_be_told_of_nothing(name: str):
    told, untold = build(name), build(name)
    told.tell([])
    assert told.ask(5) == untold.ask(5)


@every_algorithm
def test_algorithm_returns_fewer_once_the_space_is_used_up(name: str):
    space, size = tiny(name)
    algorithm = build(name, space)
    asked = algorithm.ask(size + 10)
    for index, architecture in enumerate(asked):
        values = {"accuracy": 0.5, "latency_ms@pi4": float(index)}
        algorithm.tell(
            [Trial(index=index, architecture=architecture, state=TrialState.COMPLETE, values=values)]
        )
    assert size // 2 < len(asked) <= size
    assert len(set(asked)) == len(asked)
    assert algorithm.ask(3) == []


@every_algorithm
def test_algorithm_that_shows_how_its_learning_goes_tells_finite_points(name: str):
    if not isinstance(build(name), CurvedAlgorithm):
        pytest.skip("shows nothing")
    current = session(name, steps=24)
    assert isinstance(current.algorithm, CurvedAlgorithm)
    assert current.told
    assert current.algorithm.points
    assert all(np.isfinite(value) for value in current.algorithm.points.values())


@every_algorithm
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 16, 100])
def test_algorithm_that_allots_training_looks_before_the_last_epoch(name: str, epochs: int):
    algorithm = build(name)
    if not isinstance(algorithm, Allocation):
        pytest.skip("trains all candidates to the end")
    rungs = list(algorithm.rungs(epochs))
    assert rungs == sorted(set(rungs))
    assert all(0 < rung < epochs for rung in rungs)
