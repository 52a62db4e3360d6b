"""A search in this process: real training, a real store, and a bench that the test controls."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from controller.algorithms import Evolution
from controller.core.measurement import (
    Conditions,
    ExportedModel,
    LatencyStatistics,
    Measurement,
    MeasurementMode,
    MemoryUsage,
)
from controller.core.objective import Constraint, Objective
from controller.core.protocols import SearchAlgorithm
from controller.evaluation import Board
from controller.search import Budget, Search
from controller.spaces import ChainSpace
from controller.store.records import Run
from controller.store.store import Store
from controller.training.data import load_dataset
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer

DEVICE = "bench"
RECIPE = TrainingRecipe(epochs=1, batch_size=12, learning_rate=0.05)


@dataclass
class ScriptedBench:
    """Answers with a latency that depends on the model's bytes alone, and remembers what it was asked.

    Attributes:
        before: Called with the model's name before each answer; may block or raise.
    """

    before: Callable[[str], object] = lambda _: None
    asked: list[tuple[str, MeasurementMode]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def measure(
        self, model: ExportedModel, *, request_id: str, model_name: str, mode: MeasurementMode
    ) -> Measurement:
        """Return a latency of 1 ms for each 10 kB."""
        with self.lock:
            self.asked.append((model_name, mode))
        self.before(model_name)
        return measurement(request_id, model, model_name, mode, latency_ms=len(model.data) / 1e4)


def measurement(
    request_id: str, model: ExportedModel, name: str, mode: MeasurementMode, *, latency_ms: float
) -> Measurement:
    """Return a measurement as a board with no sensors would make it."""
    unknown = Conditions(
        temperature_c=None,
        clock_mhz=None,
        governor=None,
        load_average_1min=None,
        available_memory_bytes=None,
        cpu_pressure_percent=None,
    )
    return Measurement(
        request_id=request_id,
        model_sha256=model.sha256,
        model_name=name,
        runtime="onnx",
        runtime_version="scripted 1",
        provider="CPUExecutionProvider",
        threads=1,
        input_shapes={"input": (1, 3, 12, 12)},
        mode=mode,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        latency=LatencyStatistics(
            median_ms=latency_ms,
            median_ci_low_ms=latency_ms,
            median_ci_high_ms=latency_ms,
            mean_ms=latency_ms,
            min_ms=latency_ms,
            max_ms=latency_ms,
            mad_ms=0.0,
            p90_ms=latency_ms,
            p99_ms=None,
            mild_outliers=0,
            severe_outliers=0,
            samples=64,
        ),
        load_ms=1.0,
        first_inference_ms=1.0,
        warmup_ms=(),
        samples_ms=(latency_ms,) * 64,
        memory=MemoryUsage(
            baseline_bytes=0,
            after_load_bytes=0,
            after_first_inference_bytes=0,
            after_last_inference_bytes=0,
            peak_bytes=len(model.data),
            pss_bytes=None,
            method="scripted",
        ),
        energy_mj=None,
        energy_absent_reason="no sensor",
        before=unknown,
        after=unknown,
        flags=(),
    )


class CountingTrainer(Trainer):
    """A real trainer that remembers what it trained."""

    def __init__(self, folder: Path) -> None:
        dataset = load_dataset(f"folder:{folder}", downloads=folder)
        super().__init__(dataset, torch.device("cpu"), torch.float32)
        self.trained: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def train(self, network, recipe):  # type: ignore[no-untyped-def]
        """Train, after whatever the test wants to happen first."""
        self.trained.append(network.parameters)
        self.before()
        return super().train(network, recipe)


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
    boards: Mapping[str, Board] | None = None

    def run(self) -> Run:
        """Return a new run."""
        return self.store.create_run({"config": {}}, {})

    def search(self, run: Run, algorithm: SearchAlgorithm | None = None, **changes: object) -> Search:
        """Return a search of this laboratory."""
        objectives = [Objective.parse(text, DEVICE) for text in self.objectives]
        arguments = {
            "run": run,
            "store": self.store,
            "space": self.space,
            "algorithm": algorithm or Evolution(self.space, objectives, seed=0, population=4),
            "objectives": objectives,
            "constraints": [Constraint.parse(text, DEVICE) for text in self.constraints],
            "budget": Budget.parse(self.budget),
            "trainer": self.trainer,
            "recipe": RECIPE,
            "boards": {DEVICE: Board(bench=self.bench, shares_processor=self.shares_processor)},
        }
        return Search(**{**arguments, **changes})  # type: ignore[arg-type]
