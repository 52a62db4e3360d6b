"""A search in this process: real training, a real store, and a bench that the test controls."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from example_measurement import measurement

from controller.algorithms import Evolution
from controller.core.budget import Budget
from controller.core.measurement import (
    Canary,
    ExportedModel,
    Measurement,
    MeasurementMode,
    OperatorTime,
)
from controller.core.objective import Constraint, Objective
from controller.core.options import MeasurementOptions
from controller.core.protocols import Problem, SearchAlgorithm
from controller.evaluation import Board
from controller.search import Search
from controller.spaces import ChainSpace
from controller.store.records import Run
from controller.store.store import Store
from controller.training.data import load_dataset
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer

DEVICE = "bench"
USUAL_MS = 900.0
RECIPE = TrainingRecipe(epochs=1, batch_size=12, learning_rate=0.05)


class Killed(BaseException):
    """Ends a search as SIGKILL would: nothing that handles errors sees it coming."""


@dataclass
class ScriptedBench:
    """Answers with a latency that depends on the model's bytes alone, and remembers what it was asked.

    Attributes:
        before: Called with the model's name before each answer; may block or raise.
        flags: What the answer to a request id carries.
        slower: How many times longer a model takes, by its name and how thoroughly it is measured.
        asked: Names of the models, and how thoroughly they were measured.
        requests: Request ids and what was asked besides.
    """

    before: Callable[[str], object] = lambda _: None
    flags: Callable[[str], tuple[str, ...]] = lambda _: ()
    slower: Callable[[str, MeasurementMode], float] = lambda _name, _mode: 1.0
    asked: list[tuple[str, MeasurementMode]] = field(default_factory=list)
    requests: list[tuple[str, MeasurementOptions]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def measure(
        self,
        model: ExportedModel,
        *,
        request_id: str,
        model_name: str,
        mode: MeasurementMode,
        options: MeasurementOptions,
    ) -> Measurement:
        """Return a latency of 1 ms for each 10 kB."""
        with self.lock:
            self.asked.append((model_name, mode))
            self.requests.append((request_id, options))
        self.before(model_name)
        example = measurement(request_id, median_ms=len(model.data) / 1e4 * self.slower(model_name, mode))
        return replace(
            example,
            model_sha256=model.sha256,
            model_name=model_name,
            mode=mode,
            energy_absent_reason="no sensor",
            flags=self.flags(request_id),
        )


class SlowedBench(ScriptedBench):
    """A board that is slower than usual, by its reference model too, as long as its state lasts; every network takes as long."""

    slowed_by = 1.0

    def measure(self, *arguments, **named):  # type: ignore[no-untyped-def]
        measured: Measurement = super().measure(*arguments, **named)
        by = self.slowed_by
        return replace(
            measured,
            flags=("CANARY",) if by > 1.02 else (),
            latency=replace(measured.latency, median_ms=by * USUAL_MS),
            operators=(
                OperatorTime(
                    layer="head.classifier", operator_type="Gemm", provider="CPU", mean_ms=by * 0.1, calls=1.0
                ),
            ),
            canary=Canary(before_ms=by, after_ms=by, median_ms=by, baseline_ms=1.0),
        )


class CountingTrainer(Trainer):
    """A real trainer that remembers what it trained."""

    def __init__(self, folder: Path) -> None:
        dataset = load_dataset(f"folder:{folder}", downloads=folder)
        super().__init__(dataset, torch.device("cpu"), torch.float32)
        self.trained: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def train(self, network, recipe, worth_more=None):  # type: ignore[no-untyped-def]
        """Train, after whatever the test wants to happen first."""
        self.trained.append(network.parameters)
        self.before()
        return super().train(network, recipe, worth_more)


@dataclass
class Laboratory:
    """Everything a search needs; a test changes what it is about."""

    store: Store
    trainer: CountingTrainer
    space: ChainSpace
    bench: ScriptedBench = field(default_factory=ScriptedBench)
    shares_processor: bool = False
    objectives: Sequence[str] = ("accuracy", "latency_ms")
    constraints: Sequence[str] = ()
    budget: str = "6"

    def run(self) -> Run:
        """Return a new run."""
        return self.store.create_run({"config": {}}, {})

    @property
    def problem(self) -> Problem:
        """What searches of this laboratory are about."""
        return Problem(
            space=self.space,
            objectives=tuple(Objective.parse(text, DEVICE) for text in self.objectives),
            constraints=tuple(Constraint.parse(text, DEVICE) for text in self.constraints),
        )

    def search(self, run: Run, algorithm: SearchAlgorithm | None = None, **changes: object) -> Search:
        """Return a search of this laboratory."""
        arguments = {
            "run": run,
            "store": self.store,
            "problem": self.problem,
            "algorithm": algorithm or Evolution(self.problem, seed=0, population=4),
            "budget": Budget.parse(self.budget),
            "trainer": self.trainer,
            "recipe": RECIPE,
            "boards": {DEVICE: Board(bench=self.bench, shares_processor=self.shares_processor)},
        }
        return Search(**{**arguments, **changes})  # type: ignore[arg-type]
