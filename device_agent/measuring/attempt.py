"""One attempt at one measurement: drives a worker through its job and looks at the board around it."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from device_agent.benchmark import (
    BenchmarkSpec,
    CanaryReading,
    EnergyReading,
    GroupedLatency,
    Interference,
    LatencySummary,
    Phase,
    RaisedFlag,
)
from device_agent.board import clock, throttling
from device_agent.board.conditions import (
    Conditions,
    available_memory_bytes,
    governor,
    power_mode,
    read_conditions,
)
from device_agent.board.limits import online_cpus
from device_agent.board.load import LoadSnapshot, WindowLoad, interference, read_load
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.canary import (
    CANARY_FILE,
    canary_at_best_ms,
    canary_digest,
    canary_reading,
    drift_corrected_ms,
)
from device_agent.measuring.flags import CONTAMINATED_CANARY, Evidence, energy_flags, raise_flags
from device_agent.measuring.gate import GateOutcome
from device_agent.measuring.latency import summarise, summarise_groups
from device_agent.measuring.power import NOT_ASKED, PowerPlan
from device_agent.measuring.speed import SpeedGate
from device_agent.measuring.timed_window import TimedWindow
from device_agent.measuring.worker_result import (
    WorkerPasses,
    WorkerResult,
    job_message,
    parse_passes,
    parse_result,
    passes_missed,
)
from device_agent.runtimes.worker_process import OnPhase, WorkerProcess

# What a model may allocate, of what the board could give.
MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The board at one moment, with the model running on it."""

    conditions: Conditions
    load: LoadSnapshot
    throttling: throttling.ThrottleState
    clock_mhz: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What was found beside the latency, in passes of their own.

    Attributes:
        energy: None for the reason in `energy_absent_reason`.
        flags: Of the energy pass.
    """

    energy: EnergyReading | None
    energy_absent_reason: str
    flags: tuple[RaisedFlag, ...]
    worker: WorkerPasses


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one attempt found.

    Attributes:
        waited_s: At both gates, and in pauses of the timed part.
        key: What the reference model's speed depended on.
        evidence: What the flags were raised by.
        flags: Of the timed part.
        passes: None where another attempt follows anyway.
    """

    waited_s: float
    key: str
    evidence: Evidence
    result: WorkerResult
    latency: LatencySummary
    grouped: GroupedLatency | None
    canary: CanaryReading | None
    drift_corrected_ms: float | None
    before: Conditions
    after: Conditions
    interference: Interference
    flags: tuple[RaisedFlag, ...]
    passes: Passes | None = None


class Bench:
    """The board as attempts see it.

    Args:
        root: Where the board's files are read.
        baselines: What the board is like when nothing disturbs it; learns from every attempt.
        window: Is open while something is timed.
        patience_s: Longest time that attempts wait in vain for a board that has become slower, all together.
    """

    def __init__(self, root: Path, baselines: Baselines, window: TimedWindow, patience_s: float) -> None:
        self._root = root
        self._baselines = baselines
        self._window = window
        self._speed_gate = SpeedGate(baselines, patience_s)

    def attempt(
        self,
        worker: WorkerProcess,
        spec: BenchmarkSpec,
        model_path: Path,
        *,
        library: str,
        gate: GateOutcome,
        energy: bool,
        deadline_s: float,
        limit_s: float,
        speed_limit_s: float,
        on_phase: OnPhase,
    ) -> Attempt:
        """Take the samples of a model once, and leave the worker waiting for `look_further`, or for its end.

        Args:
            worker: Has imported its runtime and waits for a job.
            spec: What to measure and how.
            model_path: The model's file.
            library: Names and versions of what runs the model and the reference model.
            gate: How the wait for a ready board ended.
            energy: Whether the worker will have to run for an energy pass.
            deadline_s: On the monotonic clock; later the job is given up.
            limit_s: The time that the whole job had.
            speed_limit_s: Longest wait for the board to be as fast as it usually is.
            on_phase: Called, from this thread, at the start of every phase, and when something is waited for.

        Raises:
            BenchmarkFailedError: If the model cannot be measured or the worker ends.
        """
        free_bytes = available_memory_bytes(self._root)
        job = job_message(
            spec,
            model_path=model_path,
            canary_path=CANARY_FILE,
            memory_limit_bytes=None if free_bytes is None else int(MEMORY_SHARE * free_bytes),
            energy=energy,
        )
        key = self._key(spec, library)
        worker.begin(job, deadline_s=deadline_s, limit_s=limit_s)
        waited_s = self._speed_gate.wait(worker, key, speed_limit_s, on_phase)
        on_phase(Phase.MEASURE)

        def load() -> LoadSnapshot:
            return read_load(self._root, (worker.pid,))

        with self._window.open():
            before = self._look(spec, load, load_first=False)
            worker.answer(self._speed_gate.go_on(key, speed_limit_s - waited_s))
            worker.expect("sampled", on_phase)
            after = self._look(spec, load, load_first=True)
        worker.answer("go")
        result = parse_result(worker.expect("measured", on_phase), spec)
        self._speed_gate.note_pauses(key, result.paused_s, in_vain=result.paused_in_vain)
        gate = replace(gate, waited_s=gate.waited_s + waited_s + result.paused_s)
        return self._conclude(spec, result, before, after, key, gate)

    def judged_anew(self, attempt: Attempt) -> Attempt:
        """Return an attempt as it looks by what later ones have taught of the board's speed."""
        return _judged(attempt, self._baselines.canary_ms(attempt.key))

    def look_further(self, worker: WorkerProcess, power: PowerPlan, on_phase: OnPhase) -> Passes:
        """Go through the passes beside the latency, with the worker of an attempt.

        Args:
            worker: Has told what it measured.
            power: How energy is to be found.
            on_phase: Called, from this thread, at the start of every phase.

        Raises:
            BenchmarkFailedError: If the worker ends, or runs past the deadline.
        """

        def look() -> tuple[LoadSnapshot, throttling.ThrottleState]:
            # What it costs to read the sensor is the agent's own work, and no disturbance.
            return read_load(self._root, (worker.pid, os.getpid())), throttling.read_throttling(self._root)

        flags: tuple[RaisedFlag, ...] = ()
        if power.meter is None:
            worker.answer("go")
            energy, absent_reason = power.measure(worker, on_phase)
        else:
            with self._window.open():
                load, throttled = look()
                worker.answer("go")
                energy, absent_reason = power.measure(worker, on_phase)
                load_after, throttled_after = look()
            throttles = throttling.raised(throttled, throttled_after)
            flags = energy_flags(interference(load, load_after), throttles)
        return Passes(
            energy=energy,
            energy_absent_reason=absent_reason,
            flags=flags,
            worker=parse_passes(worker.expect("passed", on_phase)),
        )

    def _key(self, spec: BenchmarkSpec, library: str) -> str:
        """Return what the reference model's speed depends on that people change on purpose."""
        cpus = ",".join(map(str, spec.cpu_affinity)) or "any"
        set_to = governor(self._root) or "-", power_mode(self._root) or "-"
        software = library, f"{platform.system()} {platform.release()}", f"reference model {canary_digest()}"
        return ", ".join((f"{spec.threads} threads on {cpus}", *software, *set_to))

    def _expected_clock_mhz(self, key: str, spec: BenchmarkSpec) -> float | None:
        """Return what the governor promises, or what the board has shown where that is more or all there is."""
        known = (
            self._baselines.clock_mhz(key),
            clock.promised_clock_mhz(self._root, spec.cpu_affinity),
        )
        return max((mhz for mhz in known if mhz is not None), default=None)

    def _processors(self) -> int:
        return len(online_cpus(self._root)) or os.cpu_count() or 1

    def _look(self, spec: BenchmarkSpec, load: Callable[[], LoadSnapshot], *, load_first: bool) -> View:
        """Return the board now. What else is looked at may start programs: that must not be in the window."""
        early = load() if load_first else None
        throttled = throttling.read_throttling(self._root)
        conditions = read_conditions(self._root, throttled=throttled)
        clock_mhz = clock.working_clock_mhz(self._root, spec.cpu_affinity)
        return View(conditions=conditions, load=early or load(), throttling=throttled, clock_mhz=clock_mhz)

    def _conclude(
        self,
        spec: BenchmarkSpec,
        result: WorkerResult,
        before: View,
        after: View,
        key: str,
        gate: GateOutcome,
    ) -> Attempt:
        latency = summarise(result.samples_ms)
        seen = _interference(interference(before.load, after.load), result)
        throttled = throttling.raised(before.throttling, after.throttling)
        clocks = [view.clock_mhz for view in (before, after) if view.clock_mhz is not None]
        if clocks and not throttled:
            self._baselines.learn_clock(key, max(clocks))
        evidence = Evidence(
            result=result,
            latency=latency,
            interference=seen,
            fills_board=result.execution.intra_op_threads >= self._processors(),
            throttling=throttled,
            clock_mhz=min(clocks, default=None),
            expected_clock_mhz=self._expected_clock_mhz(key, spec) if clocks else None,
            canary=None,
            gate_obstacle=gate.obstacle,
        )
        # What else went wrong in the window also slowed the canary down: that is no speed of the board's own.
        disturbed = any(raised.flag in CONTAMINATED_CANARY for raised in raise_flags(evidence))
        canary = canary_reading(result, None)
        if canary is not None and not disturbed:
            self._baselines.learn_canary(key, canary_at_best_ms(result))
        attempt = Attempt(
            waited_s=gate.waited_s,
            key=key,
            evidence=evidence,
            result=result,
            latency=latency,
            grouped=summarise_groups(result.groups_ms, result.group_runs) if result.groups_ms else None,
            canary=canary,
            drift_corrected_ms=None,
            before=replace(before.conditions, expected_clock_mhz=evidence.expected_clock_mhz),
            after=replace(after.conditions, expected_clock_mhz=evidence.expected_clock_mhz),
            interference=seen,
            flags=(),
        )
        return _judged(attempt, self._baselines.canary_ms(key))


def _judged(attempt: Attempt, baseline_ms: float | None) -> Attempt:
    """Return an attempt with what its canary says by this baseline."""
    canary = None if attempt.canary is None else replace(attempt.canary, baseline_ms=baseline_ms)
    return replace(
        attempt,
        canary=canary,
        drift_corrected_ms=drift_corrected_ms(attempt.result, canary),
        flags=raise_flags(replace(attempt.evidence, canary=canary)),
    )


def nothing_further(spec: BenchmarkSpec, reason: str) -> Passes:
    """Return what is known where the passes beside the latency were not gone through, for this reason."""
    return Passes(
        energy=None,
        energy_absent_reason=reason if spec.energy else NOT_ASKED,
        flags=(),
        worker=passes_missed(spec, reason),
    )


def _interference(seen: WindowLoad, result: WorkerResult) -> Interference:
    return Interference(
        other_cpu_percent=seen.other_cpu_percent,
        steal_percent=seen.steal_percent,
        cpu_pressure_percent=seen.cpu_pressure_percent,
        involuntary_switches_per_inference=result.involuntary_switches / result.runs,
        major_faults=result.major_faults,
        swap_ins=seen.swap_ins,
    )
