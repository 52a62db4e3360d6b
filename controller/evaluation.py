"""How one candidate becomes known: analysed, measured on boards, trained; each figure saved at once.

The cheapest comes first: a candidate that breaks a constraint by analysis or by measurement is never trained.

A measurement whose flags say that something else shaped the figures, and whose agent has tried more than once
by then, gets one more job behind those that already wait. Flagged again, the candidate is left out before it
is trained, unless the search keeps flagged figures (`controller.flags`).
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch

from controller.core.errors import BenchmarkFailedError, ExportError
from controller.core.measurement import (
    ExportedModel,
    Measurement,
    MeasurementMode,
    ModelFormat,
)
from controller.core.network import Network, analyse
from controller.core.objective import Constraint, Objective, Source, broken, decisive
from controller.core.options import MeasurementOptions
from controller.core.protocols import Allocation
from controller.core.trial import Trial, TrialState, accuracy_after
from controller.core.waiting import wait_for_any
from controller.flags import FlagPolicy
from controller.models.artifact import export
from controller.models.module import NetworkModule, seeded_module
from controller.store.store import Store
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer, TrainingFailedError, WorthMore

TEST_ACCURACY = "test_accuracy"
"""Key of the figure that the front gets after the search; never an objective."""
_AGAIN = "-again"
"""End of the request id of a second job for one candidate."""
_SEARCH, _FULL = MeasurementMode.SEARCH, MeasurementMode.FULL


class Bench(Protocol):
    """Something that measures models on a board."""

    def measure(
        self,
        model: ExportedModel,
        *,
        request_id: str,
        model_name: str,
        mode: MeasurementMode,
        options: MeasurementOptions,
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
    """A trial that is being evaluated, and the measurements of it that are under way.

    Attributes:
        trial: What is known of it.
        network: What its architecture lowers to.
        most_attempts: How often flags may have a board measure it in one job; 0 for as often as the board likes.
        weights: What it was trained to, where it is measured for the front.
        measuring: Answers that are awaited, by device.
        evidence: Why its latest figures may not be the model's own, by device.
        judged: The figures of its latest measurements that constraints are checked by, by objective key.
    """

    trial: Trial
    network: Network
    most_attempts: int
    weights: Mapping[str, torch.Tensor] | None = None
    measuring: dict[str, Future[tuple[Measurement, float]]] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    judged: dict[str, float] = field(default_factory=dict)

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
        threads: Threads inside one operator on every board; 0 for as many as it has physical cores.
        flags: What it makes of figures that something else than the model shaped.
        allocation: Decides how much training a candidate is worth; None for all that the recipe says.
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
        flags: FlagPolicy,
        threads: int = 0,
        allocation: Allocation | None = None,
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._wanted = decisive(objectives, constraints)
        self._constraints = tuple(constraints)
        self._constrained_devices = {constraint.objective.device for constraint in constraints}
        self._flags = flags
        for_energy = devices_asked_for_energy(self._wanted)
        self._options = {
            name: MeasurementOptions(threads=threads, energy=name in for_energy) for name in boards
        }
        self._trainer = trainer
        self._recipe = recipe
        self._allocation = allocation
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
        candidate = self._candidate(trial, network, self._flags.most_attempts)
        if trial.finished:
            return candidate
        self._learn(candidate, {**trial.values, **analyse(network)})
        if candidate.trial.finished:
            return candidate
        for device in self._boards:
            if device not in trial.measurements:
                self._submit(candidate, device)
        return candidate

    def _candidate(self, trial: Trial, network: Network, most_attempts: int) -> Candidate:
        candidate = Candidate(trial=trial, network=network, most_attempts=most_attempts)
        if trial.measurements:
            for device, measurement in self._store.measurements(self._run_id, trial).items():
                candidate.judged.update(self._flags.judged(device, measurement))
        return candidate

    def abandon(self, candidate: Candidate) -> None:
        """Take back what boards were asked about a candidate and have not begun to measure."""
        for future in candidate.measuring.values():
            future.cancel()

    def may_train(self, candidate: Candidate) -> bool:
        """Return whether a candidate is worth training now: no board can still reject it.

        Where it has to prove its worth while it is trained, all else about it has to be known.
        """
        untrained = not candidate.trial.finished and not candidate.trial.epochs
        if self._allocation is not None and candidate.measuring:
            return False
        doubtful = self._constrained_devices.union(candidate.evidence)
        return untrained and not doubtful.intersection(candidate.measuring)

    def occupies_processor(self, candidate: Candidate) -> bool:
        """Return whether a candidate is being measured on the machine that trains."""
        return any(self._boards[device].shares_processor for device in candidate.measuring)

    def collect(self, candidate: Candidate) -> None:
        """Add to a candidate what boards have answered since.

        Raises:
            DeviceUnreachableError: If a device stays away.
        """
        for device, future in list(candidate.measuring.items()):
            if future.done():
                del candidate.measuring[device]
                self._take(candidate, device, future)

    def train(self, candidate: Candidate) -> None:
        """Train a candidate, as long as that is worth it, and learn its accuracy."""
        try:
            trained = self._trainer.train(candidate.network, self._recipe, self._worth_more(candidate))
        except TrainingFailedError as error:
            self._save(candidate, replace(candidate.trial, state=TrialState.FAILED, reason=str(error)))
            return
        seconds = candidate.trial.training_s + trained.seconds
        epochs = len(trained.losses)
        candidate.trial = replace(candidate.trial, epochs=epochs, training_s=seconds)
        if epochs < self._recipe.epochs:
            reason = f"others were better than its accuracy of {trained.accuracy:.4g} after {epochs} of {self._recipe.epochs} epochs"
            self._save(candidate, replace(candidate.trial, state=TrialState.STOPPED, reason=reason))
            return
        values = {**candidate.trial.values, "accuracy": trained.accuracy}
        self._learn(candidate, values, trained.module.state_dict())

    def _worth_more(self, candidate: Candidate) -> dict[int, WorthMore]:
        """Return what is asked about a candidate after some epochs of its training."""
        allocation = self._allocation
        if allocation is None:
            return {}

        def asked(accuracy: float, epochs: int) -> bool:
            values = {**candidate.trial.values, accuracy_after(epochs): accuracy}
            candidate.trial = replace(candidate.trial, values=values)
            return allocation.worth_more(candidate.trial, epochs)

        return {rung: partial(asked, epochs=rung) for rung in allocation.rungs(self._recipe.epochs)}

    def confirmed(self, trial: Trial) -> bool:
        """Return whether a trial was measured thoroughly, with its trained weights, and tested."""
        measured = all(
            trial.measurements[device].startswith(self._request_id(trial, device, _FULL))
            for device in self._boards
        )
        return measured and TEST_ACCURACY in trial.values

    def confirm(self, trial: Trial, network: Network, *, in_haste: bool = False) -> Trial:
        """Return a trained trial measured thoroughly with its weights, and judged on the test images.

        Args:
            trial: Trained and measured in the search.
            network: What its architecture lowers to.
            in_haste: Whether boards are to measure once only, whatever disturbs them.
        """
        candidate = self._candidate(trial, network, 1 if in_haste else self._flags.most_attempts)
        candidate.weights = self._store.weights(self._run_id, trial.id)
        module = NetworkModule(network)
        module.load_state_dict(candidate.weights)
        self._learn(candidate, {**trial.values, TEST_ACCURACY: self._trainer.test_accuracy(module)})
        for device in self._boards:
            self._submit(candidate, device)
        while candidate.measuring:
            wait_for_any(candidate.measuring.values())
            self.collect(candidate)
        return candidate.trial

    def _submit(self, candidate: Candidate, device: str, *, again: bool = False) -> None:
        candidate.measuring[device] = self._pools[device].submit(
            self._measure,
            candidate.trial,
            candidate.network,
            device,
            replace(self._options[device], most_attempts=candidate.most_attempts),
            candidate.weights,
            again=again,
        )

    def _measure(
        self,
        trial: Trial,
        network: Network,
        device: str,
        options: MeasurementOptions,
        weights: Mapping[str, torch.Tensor] | None,
        *,
        again: bool,
    ) -> tuple[Measurement, float]:
        """Return a measurement, saved, and the seconds it took. Runs in a thread of its own.

        Weights do not change what an operator costs, so candidates are measured before they are trained.
        """
        started = time.monotonic()
        module = seeded_module(network, self._recipe.seed)
        mode = _SEARCH
        if weights is not None:
            module.load_state_dict(weights)
            mode = _FULL
        model = export(module, ModelFormat.ONNX)
        # The digest keeps a request apart from one for the bytes that another version exported.
        request_id = f"{self._request_id(trial, device, mode)}-{model.sha256[:8]}"
        measurement = self._boards[device].bench.measure(
            model,
            request_id=request_id + _AGAIN if again else request_id,
            model_name=trial.id,
            mode=mode,
            options=options,
        )
        self._store.save_measurement(self._run_id, trial.id, device, measurement)
        if mode is _FULL:
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
        candidate.trial = replace(candidate.trial, measuring_s=candidate.trial.measuring_s + seconds)
        wanted = [objective.metric.name for objective in self._wanted if objective.device == device]
        missing = [name for name in wanted if name not in measurement.metrics]
        if self._is_doubtful(candidate, device, measurement, missing):
            candidate.evidence[device] = _evidence(measurement)
            if not measurement.request_id.endswith(_AGAIN):
                self._submit(candidate, device, again=True)
                return
        if missing:
            reason = f"{missing[0]} on {device!r} is unknown: {_why_unknown(missing[0], measurement)}"
            self._save(candidate, replace(candidate.trial, state=TrialState.FAILED, reason=reason))
            return
        candidate.trial = replace(
            candidate.trial,
            measurements={**candidate.trial.measurements, device: measurement.request_id},
            flags=_flags(candidate.trial.flags, device, measurement.flags),
        )
        candidate.judged.update(self._flags.judged(device, measurement))
        figures = {f"{name}@{device}": value for name, value in measurement.metrics.items()}
        self._learn(candidate, {**candidate.trial.values, **figures})

    def _is_doubtful(
        self, candidate: Candidate, device: str, measurement: Measurement, missing: Sequence[str]
    ) -> bool:
        """Return whether another job may well answer better, and the answer matters.

        Figures of the front are published with their flags, for the agent has tried more than once. Where it was asked to
        try once, that is too little to turn a candidate down for.
        """
        left_out = self._flags.leaves_out(device) and measurement.mode is _SEARCH
        judged = self._flags.judged(device, measurement)
        turned_down = candidate.most_attempts == 1 and bool(broken(self._constraints, judged))
        disturbed = bool(measurement.contaminated) and (left_out or turned_down)
        doubtful = "energy_mj" in missing or disturbed
        return doubtful and candidate.trial.state in (TrialState.PENDING, TrialState.COMPLETE)

    def _learn(
        self,
        candidate: Candidate,
        values: Mapping[str, float],
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Give a candidate new figures and the state that follows from them, and save it."""
        trial = candidate.trial
        disturbed = self._flags.disturbed(trial) if trial.state is TrialState.PENDING else {}
        judged = {
            key: candidate.judged.get(key, value)
            for key, value in values.items()
            if key.partition("@")[2] not in disturbed
        }
        excess = broken(self._constraints, judged)
        measured = set(self._boards) <= set(trial.measurements)
        state, reason = trial.state, trial.reason
        if state is TrialState.PENDING and excess and not trial.epochs:
            state = TrialState.REJECTED
            self.abandon(candidate)
            reason = ", ".join(
                f"{_told(constraint.objective.key, values, judged)} breaks {constraint}"
                for constraint in excess
            )
        elif state is TrialState.PENDING and measured and disturbed:
            # Not before every device has answered: whichever comes first, what becomes of it is the same.
            state = TrialState.DISTURBED
            reason = "flagged in two jobs: " + "; ".join(
                f"{candidate.evidence.get(device, ', '.join(flags))} on {device!r}"
                for device, flags in disturbed.items()
            )
        elif state is TrialState.PENDING and measured and trial.epochs:
            state = TrialState.COMPLETE
        violation = sum(constraint.violation(judged) for constraint in excess)
        self._save(
            candidate, replace(trial, values=values, state=state, reason=reason, violation=violation), weights
        )

    def _save(
        self, candidate: Candidate, trial: Trial, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        candidate.trial = trial
        self._store.save_trial(self._run_id, trial, weights)


def _told(key: str, values: Mapping[str, float], judged: Mapping[str, float]) -> str:
    measured, at_usual_speed = f"{values[key]:.4g}", f"{judged[key]:.4g}"
    return measured if measured == at_usual_speed else f"{measured}, {at_usual_speed} at the usual speed,"


def _flags(
    known: Mapping[str, tuple[str, ...]], device: str, flags: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """Return known with the flags of a device's newest measurement in place of its older ones."""
    others = {name: value for name, value in known.items() if name != device}
    return {**others, device: flags} if flags else others


def _evidence(measurement: Measurement) -> str:
    """Return the flags that say that something else shaped the figures, with what the agent saw."""
    seen = {raised.flag: f"{raised.flag}: {raised.reason}" for raised in measurement.flag_reasons}
    return ", ".join(seen.get(flag, flag) for flag in measurement.contaminated)


def _why_unknown(metric: str, measurement: Measurement) -> str:
    if metric != "energy_mj":
        return f"{measurement.latency.samples} inferences are too few to tell it"
    return measurement.energy_absent_reason or "it was modelled, not measured"


def devices_named(wanted: Sequence[Objective]) -> list[str]:
    """Return the devices that something is measured on, each once, in order."""
    return list(dict.fromkeys(o.device for o in wanted if o.metric.source is Source.DEVICE and o.device))


def devices_asked_for_energy(wanted: Sequence[Objective]) -> set[str]:
    """Return the devices whose energy decides over candidates."""
    return {o.device for o in wanted if o.metric.name == "energy_mj" and o.device}
