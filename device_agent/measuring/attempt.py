"""One attempt at one measurement: drives a worker through its job and looks at the board around it."""

import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from device_agent.benchmark import (
    BenchmarkSpec,
    CanaryReading,
    EnergyReading,
    Flag,
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
from device_agent.board.limits import usable_cpus
from device_agent.board.load import LoadSnapshot, WindowLoad, interference, read_load
from device_agent.errors import AgentError
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.canary import (
    CANARY_FILE,
    canary_at_best_ms,
    canary_digest,
    canary_reading,
    canary_turns_ms,
    drift_corrected_ms,
)
from device_agent.measuring.flags import CONTAMINATED_CANARY, Evidence, energy_flags, raise_flags
from device_agent.measuring.gate import GateOutcome
from device_agent.measuring.latency import summarise, summarise_groups
from device_agent.measuring.power import PowerPlan
from device_agent.measuring.speed import SpeedGate
from device_agent.measuring.stretches import Stretches
from device_agent.measuring.timed_window import TIMED_S, TimedWindow
from device_agent.measuring.worker_result import (
    Insight,
    SecondLoad,
    WorkerResult,
    job_message,
    parse_insight,
    parse_result,
    parse_second_load,
)
from device_agent.runtimes.worker_process import OnPhase, WorkerProcess
from device_agent.worker import RULES

logger = logging.getLogger(__name__)

# How long a load holds others back: most models have settled by then.
LOAD_S = 10.0
# What a model may allocate, of what the board could give.
MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The board at one moment, with the model running on it."""

    conditions: Conditions
    throttling: throttling.ThrottleState
    clock_mhz: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What was found beside the latency, in passes of their own.

    Attributes:
        energy: None for the reason in `energy_absent_reason`.
        flags: Of the energy pass.
        gone_through: False where the worker was ended before them, as another attempt was to follow.
    """

    energy: EnergyReading | None
    energy_absent_reason: str
    flags: tuple[RaisedFlag, ...]
    second_load: SecondLoad
    insight: Insight
    gone_through: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one attempt found.

    Attributes:
        waited_s: At both gates, and in pauses of the timed part.
        key: What the reference model's speed depended on.
        evidence: What the flags were raised by.
        flags: Of the timed part.
        passes: What was found beside it; None until then.
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
        measure_limit_s: Longest time to take samples for.
    """

    def __init__(
        self,
        root: Path,
        baselines: Baselines,
        window: TimedWindow,
        *,
        patience_s: float,
        measure_limit_s: float,
    ) -> None:
        self._root = root
        self._measure_limit_s = measure_limit_s
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
            speed_limit_s: Longest wait for the board to be as fast as it usually is, if the mode allows as much.
            on_phase: Called, from this thread, at the start of every phase, and when something is waited for.

        Raises:
            BenchmarkFailedError: If the model cannot be measured or the worker ends.
        """
        free_bytes = available_memory_bytes(self._root)
        speed_limit_s = min(speed_limit_s, RULES[spec.mode.value].speed_patience_s)
        job = job_message(
            spec,
            model_path=model_path,
            canary_path=CANARY_FILE,
            look=speed_limit_s > 0,
            measure_limit_s=self._measure_limit_s,
            memory_limit_bytes=None if free_bytes is None else int(MEMORY_SHARE * free_bytes),
            time_left_s=max(0.0, deadline_s - time.monotonic()),
            energy=energy,
        )
        key = self._key(spec, library)
        # The load and the first inference are timed as well.
        with self._window.open(LOAD_S):
            worker.begin(job, deadline_s=deadline_s, limit_s=limit_s)
            settled = worker.expect("settled", on_phase)
        waited_s = settled["looked_s"]
        waited_s += self._speed_gate.wait(worker, settled["canary_ns"], key, speed_limit_s, on_phase)
        on_phase(Phase.MEASURE)
        with Stretches(self._window, lambda: read_load(self._root, (worker.pid,)), on_phase) as stretches:
            before = self._look(spec)
            stretches.begin()
            worker.answer(self._speed_gate.go_on(key, speed_limit_s - waited_s))
            worker.expect("sampled", stretches.on_phase)
            stretches.end()
            after = self._look(spec)
        worker.answer("go")
        result = parse_result(worker.expect("measured", on_phase), spec)
        gate = replace(gate, waited_s=gate.waited_s + waited_s + result.paused_s)
        return self._conclude(spec, result, before, after, stretches.load(), key, gate)

    def judged_anew(self, attempt: Attempt) -> Attempt:
        """Return an attempt as it looks by what later ones have taught of the board's speed."""
        baseline_ms = self._baselines.canary_ms(attempt.key)
        if attempt.canary is None or attempt.canary.baseline_ms == baseline_ms:
            return attempt
        return _judged(attempt, baseline_ms)

    def look_further(
        self,
        worker: WorkerProcess,
        spec: BenchmarkSpec,
        power: PowerPlan,
        *,
        deadline_s: float,
        on_phase: OnPhase,
        stopped: Callable[[], bool],
    ) -> Passes:
        """Go through the passes beside the latency, with the worker of an attempt.

        One that fails, for whatever reason, costs its own figure and those behind it, which are then absent.

        Args:
            worker: Has told what it measured.
            spec: What was asked for.
            power: How energy is to be found.
            deadline_s: On the monotonic clock; later nothing is found any more.
            on_phase: Called, from this thread, at the start of every phase.
            stopped: Tells whether the job was cancelled.

        Raises:
            BenchmarkFailedError: If the job is cancelled.
        """
        found: dict[str, Any] = {}
        failure = ""
        try:
            # The second load is timed as well.
            with self._window.open(TIMED_S):
                if power.meter is None:
                    worker.answer("go")
                else:
                    found |= self._measure_energy(worker, power, deadline_s, on_phase)
                found["second_load"] = parse_second_load(worker.expect("reloaded", on_phase))
                found["insight"] = parse_insight(worker.expect("passed", on_phase))
        except Exception as error:
            if stopped():
                raise
            told = logger.info if isinstance(error, AgentError) else logger.exception
            failure = f"the passes beside the latency failed: {error}"
            told("%s", failure)
        return replace(nothing_further(spec, power, failure), gone_through=True, **found)

    def _measure_energy(
        self, worker: WorkerProcess, power: PowerPlan, deadline_s: float, on_phase: OnPhase
    ) -> dict[str, EnergyReading | str | tuple[RaisedFlag, ...] | None]:
        """Return the fields of what was found that tell of energy."""

        def look() -> tuple[LoadSnapshot, throttling.ThrottleState]:
            # What it costs to read the sensor is the agent's own work, and no disturbance.
            return read_load(self._root, (worker.pid, os.getpid())), throttling.read_throttling(self._root)

        load, throttled = look()
        worker.answer("go")
        energy, absent_reason = power.measure(worker, deadline_s, on_phase)
        load_after, throttled_after = look()
        throttles = throttling.raised(throttled, throttled_after)
        flags = energy_flags(interference(load, load_after), throttles)
        # Of a figure that is not there nothing is to be said.
        return {
            "energy": energy,
            "energy_absent_reason": absent_reason,
            "flags": flags if energy is not None else (),
        }

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

    def _look(self, spec: BenchmarkSpec) -> View:
        """Return the board now."""
        throttled = throttling.read_throttling(self._root)
        conditions = read_conditions(self._root, throttled=throttled)
        clock_mhz = clock.working_clock_mhz(self._root, spec.cpu_affinity)
        return View(conditions=conditions, throttling=throttled, clock_mhz=clock_mhz)

    def _conclude(
        self,
        spec: BenchmarkSpec,
        result: WorkerResult,
        before: View,
        after: View,
        load: WindowLoad,
        key: str,
        gate: GateOutcome,
    ) -> Attempt:
        latency = summarise(result.samples_ms)
        seen = _interference(load, result)
        throttled = throttling.raised(before.throttling, after.throttling)
        clocks = [view.clock_mhz for view in (before, after) if view.clock_mhz is not None]
        if clocks and not throttled:
            self._baselines.learn_clock(key, max(clocks))
        evidence = Evidence(
            result=result,
            latency=latency,
            interference=seen,
            fills_board=result.execution.intra_op_threads >= len(usable_cpus()),
            throttling=throttled,
            clock_mhz=min(clocks, default=None),
            expected_clock_mhz=self._expected_clock_mhz(key, spec) if clocks else None,
            canary=None,
            gate_obstacle=gate.obstacle,
        )
        # What else went wrong in the window also slowed the canary down: that is no speed of the board's own.
        found = {raised.flag for raised in raise_flags(evidence)}
        canary = canary_reading(result, None)
        if canary is not None and found.isdisjoint(CONTAMINATED_CANARY):
            self._baselines.learn_canary(key, canary_at_best_ms(result))
        # What others did passes when they end. A board that is hot slows down each time.
        if found.isdisjoint({Flag.NOISE, Flag.MEM}):
            self._speed_gate.note_pauses(key, result.vain_s, canary_turns_ms(result))
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


def nothing_further(spec: BenchmarkSpec, power: PowerPlan, reason: str) -> Passes:
    """Return what is known without the passes beside the latency; the rest is absent for this reason."""
    energy, absent_reason = power.unmeasured if power.meter is None else (None, reason)
    return Passes(
        energy=energy,
        energy_absent_reason=absent_reason,
        flags=(),
        second_load=SecondLoad(warm_load_ms=None, absent_reason=reason),
        insight=Insight(
            operators=(),
            operators_absent_reason=reason if spec.profile else "",
            provider=None,
            cpu_fallback=None,
        ),
        gone_through=False,
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
