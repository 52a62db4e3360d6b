"""How one candidate becomes known: analysed, measured on boards, trained; each figure saved at once.

The cheapest comes first: a candidate that breaks a constraint by analysis or by measurement is never trained.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from controller.core.errors import BenchmarkFailedError, ConfigurationError, ExportError
from controller.core.measurement import ExportedModel, Measurement, MeasurementMode, ModelFormat
from controller.core.network import Network
from controller.core.objective import Constraint, Objective, Source, broken
from controller.core.trial import Trial, TrialState
from controller.models.artifact import export
from controller.models.module import NetworkModule, seeded_module
from controller.store.store import Store
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer, TrainingFailedError

TEST_ACCURACY = "test_accuracy"
"""Key of the figure that the front gets after the search; never an objective."""


class Bench(Protocol):
    """Something that measures models on a board."""

    def measure(
        self, model: ExportedModel, *, request_id: str, model_name: str, mode: MeasurementMode
    ) -> Measurement:
        """Return the model's figures; the same request id gives the same figures."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A device that takes part in a search.

    Attributes:
        bench: Measures on it.
        shares_processor: Whether it is the machine that trains.
    """

    bench: Bench
    shares_processor: bool


@dataclass(kw_only=True)
class Candidate:
    """A trial that is being evaluated, and the measurements of it that are under way."""

    trial: Trial
    network: Network
    measuring: dict[str, Future[tuple[Measurement, float]]] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether nothing more will be learnt of it."""
        return self.trial.finished and not self.measuring


class Evaluator:
    """Evaluates the candidates of one run.

    Args:
        run_id: The run that figures are saved under.
        store: Where they are saved.
        objectives: Must all be measurable on the boards.
        constraints: Decide which candidates are worth training.
        trainer: Trains on the dataset.
        recipe: How candidates are trained.
        boards: Devices by name; every candidate is measured on each.
    """

    def __init__(
        self,
        *,
        run_id: str,
        store: Store,
        objectives: Sequence[Objective],
        constraints: Sequence[Constraint],
        trainer: Trainer,
        recipe: TrainingRecipe,
        boards: Mapping[str, Board],
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._wanted = (*objectives, *(constraint.objective for constraint in constraints))
        self._constraints = tuple(constraints)
        self._constrained_devices = {constraint.objective.device for constraint in constraints}
        self._trainer = trainer
        self._recipe = recipe
        self._boards = boards
        # One job at a time for each board: its queue stays short for other hosts.
        self._pools = {name: ThreadPoolExecutor(1, f"measure-{name}") for name in boards}

    def close(self, *, wait_for_boards: bool) -> None:
        """Let go of the boards.

        Args:
            wait_for_boards: Whether to wait for answers that are still under way.
        """
        for pool in self._pools.values():
            pool.shutdown(wait=wait_for_boards, cancel_futures=True)

    def open(self, trial: Trial, network: Network) -> Candidate:
        """Return a candidate that is analysed and, unless that rejects it, being measured on every board.

        Args:
            trial: New, or partly evaluated by an earlier process.
            network: What its architecture lowers to.
        """
        candidate = Candidate(trial=trial, network=network)
        if trial.finished:
            return candidate
        self._learn(candidate, {**trial.values, **analyse(network)})
        if candidate.trial.finished:
            return candidate
        for device, pool in self._pools.items():
            if device not in trial.measurements:
                candidate.measuring[device] = pool.submit(
                    self._measure, trial, network, device, MeasurementMode.SEARCH
                )
        return candidate

    def may_train(self, candidate: Candidate) -> bool:
        """Return whether a candidate is worth training now: no board can still reject it."""
        untrained = not candidate.trial.finished and not candidate.trial.epochs
        return untrained and not self._constrained_devices.intersection(candidate.measuring)

    def occupies_processor(self, candidate: Candidate) -> bool:
        """Return whether a candidate is being measured on the machine that trains."""
        return any(self._boards[device].shares_processor for device in candidate.measuring)

    def collect(self, candidate: Candidate) -> None:
        """Add to a candidate what boards have answered since.

        Raises:
            DeviceUnreachableError: If a device stays away.
            ConfigurationError: If a device cannot tell what an objective or constraint asks for.
        """
        for device, future in list(candidate.measuring.items()):
            if future.done():
                del candidate.measuring[device]
                self._take(candidate, device, future)

    def train(self, candidate: Candidate) -> None:
        """Train a candidate and learn its accuracy."""
        try:
            trained = self._trainer.train(candidate.network, self._recipe)
        except TrainingFailedError as error:
            self._save(candidate, replace(candidate.trial, state=TrialState.FAILED, reason=str(error)))
            return
        seconds = candidate.trial.training_s + trained.seconds
        candidate.trial = replace(candidate.trial, epochs=self._recipe.epochs, training_s=seconds)
        values = {**candidate.trial.values, "accuracy": trained.accuracy}
        self._learn(candidate, values, trained.module.state_dict())

    def confirmed(self, trial: Trial) -> bool:
        """Return whether a trial was measured thoroughly, with its trained weights, and tested."""
        full = MeasurementMode.FULL
        measured = all(
            trial.measurements[device].startswith(self._request_id(trial, device, full))
            for device in self._boards
        )
        return measured and TEST_ACCURACY in trial.values

    def confirm(self, trial: Trial, network: Network) -> Trial:
        """Return a trained trial measured thoroughly with its weights, and judged on the test images."""
        candidate = Candidate(trial=trial, network=network)
        weights = self._store.weights(self._run_id, trial.id)
        module = NetworkModule(network)
        module.load_state_dict(weights)
        self._learn(candidate, {**trial.values, TEST_ACCURACY: self._trainer.test_accuracy(module)})
        for device, pool in self._pools.items():
            candidate.measuring[device] = pool.submit(
                self._measure, trial, network, device, MeasurementMode.FULL, weights
            )
        wait(candidate.measuring.values())
        self.collect(candidate)
        return candidate.trial

    def _measure(
        self,
        trial: Trial,
        network: Network,
        device: str,
        mode: MeasurementMode,
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[Measurement, float]:
        """Return a measurement, saved, and the seconds it took. Runs in a thread of its own.

        Weights do not change what an operator costs, so candidates are measured before they are trained.
        """
        started = time.monotonic()
        module = seeded_module(network, self._recipe.seed)
        if weights is not None:
            module.load_state_dict(weights)
        model = export(module, ModelFormat.ONNX)
        measurement = self._boards[device].bench.measure(
            model,
            # The digest keeps a request apart from one for the bytes that another version exported.
            request_id=f"{self._request_id(trial, device, mode)}-{model.sha256[:8]}",
            model_name=trial.id,
            mode=mode,
        )
        self._store.save_measurement(self._run_id, trial.id, device, measurement)
        if mode is MeasurementMode.FULL:
            self._store.save_exported(self._run_id, trial.id, model)
        return measurement, time.monotonic() - started

    def _request_id(self, trial: Trial, device: str, mode: MeasurementMode) -> str:
        return f"{self._run_id}-{trial.id}-{device}-{mode.value}"

    def _take(self, candidate: Candidate, device: str, future: Future[tuple[Measurement, float]]) -> None:
        if future.cancelled():
            return
        try:
            measurement, seconds = future.result()
        except (BenchmarkFailedError, ExportError) as error:
            self._save(candidate, replace(candidate.trial, state=TrialState.FAILED, reason=str(error)))
            return
        wanted = [objective.metric.name for objective in self._wanted if objective.device == device]
        missing = [name for name in wanted if name not in measurement.metrics]
        if "energy_mj" in missing:
            raise ConfigurationError(
                f"device {device!r} does not tell energy_mj: {measurement.energy_absent_reason}; "
                "search without this objective or constraint"
            )
        if missing:
            count = measurement.latency.samples
            reason = f"{missing[0]} on {device!r} is unknown: {count} inferences are too few to tell it"
            self._save(candidate, replace(candidate.trial, state=TrialState.FAILED, reason=reason))
            return
        candidate.trial = replace(
            candidate.trial,
            measurements={**candidate.trial.measurements, device: measurement.request_id},
            flags=_flags(candidate.trial.flags, device, measurement.flags),
            measuring_s=candidate.trial.measuring_s + seconds,
        )
        figures = {f"{name}@{device}": value for name, value in measurement.metrics.items()}
        self._learn(candidate, {**candidate.trial.values, **figures})

    def _learn(
        self,
        candidate: Candidate,
        values: Mapping[str, float],
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Give a candidate new figures and the state that follows from them, and save it."""
        trial = candidate.trial
        excess = broken(self._constraints, values)
        state, reason = trial.state, trial.reason
        if state is TrialState.PENDING and trial.epochs:
            state = TrialState.COMPLETE if set(self._boards) <= set(trial.measurements) else state
        elif state is TrialState.PENDING and excess:
            state = TrialState.REJECTED
            for future in candidate.measuring.values():
                future.cancel()
            reason = ", ".join(
                f"{values[constraint.objective.key]:.4g} breaks {constraint}" for constraint in excess
            )
        violation = sum(constraint.violation(values) for constraint in excess)
        self._save(
            candidate, replace(trial, values=values, state=state, reason=reason, violation=violation), weights
        )

    def _save(
        self, candidate: Candidate, trial: Trial, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        candidate.trial = trial
        self._store.save_trial(self._run_id, trial, weights)


def _flags(
    known: Mapping[str, tuple[str, ...]], device: str, flags: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return known with the flags of a device's newest measurement in place of its older ones."""
    others = {name: value for name, value in known.items() if name != device}
    return {**others, device: flags} if flags else others


def analyse(network: Network) -> dict[str, float]:
    """Return the figures that a network's graph tells, by metric name."""
    return {
        "params_m": network.parameters / 1e6,
        "macs_m": network.macs / 1e6,
        "peak_activation_mb": network.peak_activation_bytes / 1e6,
    }


def devices_named(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> list[str]:
    """Return the devices that objectives and constraints are measured on, each once, in order."""
    wanted = (*objectives, *(constraint.objective for constraint in constraints))
    return list(dict.fromkeys(o.device for o in wanted if o.metric.source is Source.DEVICE and o.device))
