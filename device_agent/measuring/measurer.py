"""Turns one request into one record: keeps a worker ready, tries until the figures are clean, keeps the best."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from device_agent.benchmark import (
    BenchmarkRecord,
    BenchmarkRequest,
    BenchmarkSpec,
    FailureReason,
    Phase,
    Precision,
    Progress,
    RuntimeDescription,
    UnavailableRuntime,
)
from device_agent.errors import (
    AgentError,
    BenchmarkFailedError,
    RuntimeStartingError,
    RuntimeUnavailableError,
    WorkerLostError,
)
from device_agent.measuring.attempt import Attempt, Bench, nothing_further
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.energy import PASS_S as ENERGY_S
from device_agent.measuring.gate import LIMIT_S as GATE_LIMIT_S
from device_agent.measuring.gate import Gate, GateOutcome
from device_agent.measuring.job import Job
from device_agent.measuring.power import PowerOptions, PowerPlan, plan_power
from device_agent.measuring.record import contaminating, flags_of, record_of
from device_agent.measuring.timed_window import TimedWindow
from device_agent.runtimes.catalogue import BROKEN, RUNTIMES, look_up, offered
from device_agent.runtimes.confinement import UNCONFINED, Confinement, in_words
from device_agent.runtimes.worker_process import StopSignal, WorkerProcess
from device_agent.worker import MEASURE_CAP_S

logger = logging.getLogger(__name__)

# Every caller that waits holds a thread of the server, and importing from an SD card takes tens of seconds.
RUNTIME_WAIT_S = 2.0
RETRIES = 2
# What a profile takes: a load, a second of inferences and their evaluation.
PROFILE_S = 5.0
PATIENCE_SHARE = 0.25
# The runtime that a worker is kept ready for.
USUAL_RUNTIME = "onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringConfig:
    """How the agent measures.

    Attributes:
        worker_python: Python that runs the models.
        job_timeout_s: Longest time that a job may have the board.
        gate_limit_s: Longest wait of an attempt for a cool and quiet board at its usual speed; 0 for none.
        measure_limit_s: Longest time that an attempt takes samples for, settled or not.
        retries: Further attempts where flags say that something disturbed the figures.
        power: Where power is read.
        root: Where the board's files are read.
        confinement: What the workers are kept from.
    """

    worker_python: str
    job_timeout_s: float
    gate_limit_s: float = GATE_LIMIT_S
    measure_limit_s: float = MEASURE_CAP_S
    retries: int = RETRIES
    power: PowerOptions = field(default_factory=PowerOptions)
    root: Path = Path("/")
    confinement: Confinement = UNCONFINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtimes:
    """What a worker's Python has, and what it has not.

    Attributes:
        unprotected: Layers of the sandbox that workers run without, each with the reason; None where no worker has told.
    """

    available: tuple[RuntimeDescription, ...]
    missing: tuple[UnavailableRuntime, ...]
    unprotected: Mapping[str, str] | None


class Measurer:
    """Measures models in fresh workers. One thread drives it; `runtimes()` may be called from any."""

    def __init__(self, config: MeasuringConfig, baselines: Baselines, window: TimedWindow) -> None:
        self.config = config
        self._baselines = baselines
        self._bench = Bench(
            config.root,
            baselines,
            window,
            patience_s=config.gate_limit_s,
            measure_limit_s=config.measure_limit_s,
        )
        self._gate = Gate(config.root, baselines)
        self._spare: WorkerProcess | None = None
        self._lookup = threading.Condition()
        self._described: dict[str, RuntimeDescription | UnavailableRuntime] = {}
        # Looked up is not imported: a library may be there and broken.
        self._imported: set[str] = set()
        self._unprotected: Mapping[str, str] | None = None

    def prepare(self) -> None:
        """Start the next job's worker unless it already waits.

        The first one is waited for, and tells what runtime there is. Later ones may still import it when a job is
        there: for theirs that goes on at the gate, which takes longer on most boards; before another's they are let go.

        Raises:
            RuntimeUnavailableError: Whatever the reason why there is no worker.
        """
        if self._spare is not None and self._spare.alive():
            return
        self.release()
        try:
            self._spare = self._start_worker(USUAL_RUNTIME)
            if USUAL_RUNTIME not in self._imported:
                self._greet(self._spare, USUAL_RUNTIME)
        except RuntimeUnavailableError:
            self.release()
            raise
        finally:
            for name in RUNTIMES:
                if name not in self._described:
                    self._describe(look_up(self.config.worker_python, name))

    def _start_worker(self, runtime: str, job: Job | None = None) -> WorkerProcess:
        """Return a worker that imports its runtime from now on."""
        with self._failures_told(runtime, job):
            return WorkerProcess(self.config.worker_python, RUNTIMES[runtime], self.config.confinement)

    def _greet(self, worker: WorkerProcess, runtime: str, job: Job | None = None) -> None:
        """Wait until a worker has imported its runtime, and remember what it tells; for a job while it lasts."""
        with self._failures_told(runtime, job):
            self._describe(offered(worker.greet(None if job is None else job.left_s)))
            self._imported.add(runtime)
        first, self._unprotected = self._unprotected is None, worker.missing
        if first and worker.missing:
            logger.warning(
                "models run without %s; `edgenas-agent doctor` tells what to do", in_words(worker.missing)
            )

    @contextmanager
    def _failures_told(self, runtime: str, job: Job | None = None) -> Iterator[None]:
        """Remember why there is no worker for a runtime, unless it is a job that is over.

        Raises:
            BenchmarkFailedError: If the job is over.
            RuntimeUnavailableError: Whatever the reason otherwise.
        """
        python = self.config.worker_python
        try:
            yield
        except RuntimeUnavailableError as error:
            if job is not None:
                job.check_not_over()
                if runtime in self._imported:
                    # Another worker is tried before a runtime that was there counts as missing.
                    self._imported.discard(runtime)
                    raise
            self._miss(runtime, str(error))
            raise
        except Exception as error:
            # The one thread that measures must outlive a defect, and who waits for the runtime be answered.
            logger.exception("starting a worker under '%s' hit a defect of the agent", python)
            reason = f"the agent failed to start a worker under '{python}': {error!r}; its log tells more"
            self._miss(runtime, reason)
            raise RuntimeUnavailableError(reason) from error

    def _miss(self, runtime: str, reason: str) -> None:
        """Remember that a runtime could not be imported."""
        self._imported.discard(runtime)
        self._describe(UnavailableRuntime(name=runtime, reason=reason))

    def _take_worker(self, job: Job) -> WorkerProcess:
        runtime = job.request.spec.runtime
        if runtime == USUAL_RUNTIME and self._spare is not None and self._spare.alive():
            worker, self._spare = self._spare, None
            return worker
        if self._spare is not None and not self._spare.has_spoken():
            # What it still imports would share the window of what this job times.
            self.release()
        return self._start_worker(runtime, job)

    def release(self) -> None:
        """Let the waiting worker go, so that an idle agent costs the board little memory."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def runtimes(self) -> Runtimes:
        """Return what can run models here, waiting a little for the first worker to tell.

        Raises:
            RuntimeStartingError: If the first worker has not told yet.
        """
        with self._lookup:
            if not self._lookup.wait_for(lambda: len(self._described) == len(RUNTIMES), RUNTIME_WAIT_S):
                raise RuntimeStartingError("the agent is still importing its runtime; try again")
            known = [self._described[name] for name in RUNTIMES]
        return Runtimes(
            available=tuple(entry for entry in known if isinstance(entry, RuntimeDescription)),
            missing=(*(entry for entry in known if isinstance(entry, UnavailableRuntime)), *BROKEN),
            unprotected=self._unprotected,
        )

    def _describe(self, found: RuntimeDescription | UnavailableRuntime) -> None:
        with self._lookup:
            self._described[found.name] = found
            self._lookup.notify_all()

    def measure(
        self,
        request: BenchmarkRequest,
        model_path: Path,
        stop: StopSignal,
        on_progress: Callable[[Progress], None],
    ) -> BenchmarkRecord:
        """Measure one model, each attempt in a worker of its own.

        An attempt whose flags say that something disturbed it is followed by another, and then goes through no
        passes beside the latency. Published is the least disturbed one.

        Args:
            request: What to measure and how.
            model_path: The model's file.
            stop: Ends the job from another thread.
            on_progress: Called, from this thread, as the job goes on.

        Raises:
            BenchmarkFailedError: If the model cannot be measured or the job was ended.
            RuntimeUnavailableError: If no worker can be started.
        """
        job = Job(request, model_path, stop, on_progress, self._limit_s(request))
        precision = self._inspect(job)
        attempts: list[Attempt] = []
        while True:
            job.begin_attempt()
            try:
                found = self._attempt(job)
            except Exception as error:
                if not attempts or job.stop.requested:
                    raise
                # What there is, is published with its flags: no figure is lost to a retry that fails.
                told = logger.info if isinstance(error, AgentError) else logger.exception
                told("%s: attempt %d failed: %s", request.request_id, job.attempt, error)
                break
            finally:
                # The board is warm now: another attempt waits until it has cooled down as well.
                self._baselines.note_work()
            job.waited_s += found.waited_s
            attempts.append(found)
            if contaminating(flags_of(found)):
                logger.info(
                    "%s: attempt %d carries flags: %s", request.request_id, job.attempt, _texts(found)
                )
            # What was left before its passes was left because another follows.
            assert found.passes is not None
            if found.passes.gone_through and not self._another_follows(job, found):
                break
        return record_of(job, [self._bench.judged_anew(attempt) for attempt in attempts], precision)

    def _another_follows(self, job: Job, found: Attempt, passes_s: float = 0.0) -> bool:
        """Tell whether what was found is to be measured again, which takes as long, and the passes still to come."""
        attempts = self.config.retries + 1
        return (
            contaminating(flags_of(found)) > 0
            and job.attempt < min(attempts, job.request.spec.most_attempts or attempts)
            and job.has_time_for_another(passes_s)
        )

    def _limit_s(self, request: BenchmarkRequest) -> float:
        return min(self.config.job_timeout_s, request.spec.time_limit_s or self.config.job_timeout_s)

    def _inspect(self, job: Job) -> Precision | None:
        """Look at the model's file before a runtime does; return its precision where the file tells."""
        spec = job.request.spec
        return RUNTIMES[spec.runtime].inspect(job.model_path, spec)

    def _attempt(self, job: Job) -> Attempt:
        was_there = job.request.spec.runtime in self._imported
        try:
            return self._attempt_once(job)
        except (WorkerLostError, RuntimeUnavailableError) as error:
            if isinstance(error, RuntimeUnavailableError) and not was_there:
                raise
            # A worker that waits for long may be ended by whoever is short of memory.
            logger.info("measuring %s with another worker: %s", job.request.request_id, error)
            return self._attempt_once(job)

    def _attempt_once(self, job: Job) -> Attempt:
        spec = job.request.spec
        worker = self._take_worker(job)
        job.stop.attach(worker)
        power: PowerPlan | None = None
        try:
            if self._in_doubt(spec):
                self._wait_for_the_runtime(job, worker)
            gate, patience_s = self._pass_the_gate(job, worker)
            power = plan_power(self.config.root, self.config.power, spec, job.model_path, job.wait)
            found = self._bench.attempt(
                worker,
                spec,
                job.model_path,
                library=self._libraries(spec.runtime),
                gate=gate,
                energy=power.meter is not None,
                deadline_s=job.deadline_s,
                limit_s=job.limit_s,
                speed_limit_s=patience_s - gate.waited_s,
                on_phase=job.phase,
            )
            passes_s = (ENERGY_S if power.meter is not None else 0.0) + (PROFILE_S if spec.profile else 0.0)
            if self._another_follows(job, found, passes_s):
                skipped = nothing_further(spec, power, "the attempt that was to find out failed")
                return replace(found, passes=skipped)
            passes = self._bench.look_further(
                worker,
                spec,
                power,
                deadline_s=job.deadline_s,
                on_phase=job.phase,
                stopped=lambda: job.stop.requested,
            )
            return replace(found, passes=passes)
        except BenchmarkFailedError:
            job.check_not_cancelled()
            raise
        finally:
            job.stop.detach()
            worker.close()
            if power is not None:
                power.close()

    def _in_doubt(self, spec: BenchmarkSpec) -> bool:
        """Tell whether what a spec asks for may not be there, which its sender is to hear before the gate."""
        if spec.runtime not in self._imported:
            return True
        known = self._described[spec.runtime]
        assert isinstance(known, RuntimeDescription)
        return spec.provider not in ("", *known.providers)

    def _wait_for_the_runtime(self, job: Job, worker: WorkerProcess) -> None:
        """Return once a worker has imported its runtime; the job can be cancelled meanwhile and has an end.

        Raises:
            BenchmarkFailedError: If the runtime has not the provider asked for, or the job is over.
            RuntimeUnavailableError: If there is no runtime.
        """
        spec = job.request.spec
        self._greet(worker, spec.runtime, job)
        found = self._described[spec.runtime]
        assert isinstance(found, RuntimeDescription)
        provider = spec.provider
        if provider and provider not in found.providers:
            raise BenchmarkFailedError(
                FailureReason.INVALID_SPEC,
                f"the installed build of {found.library} {found.version} has no {provider}; it has "
                f"{', '.join(found.providers)}; install another build, or name another --worker-python",
            )
        job.runtime_version = f"{found.library} {found.version}"

    def _libraries(self, runtime: str) -> str:
        """Return names and versions of what runs a model and the reference model, which is ONNX."""
        if USUAL_RUNTIME not in self._described:
            self._describe(look_up(self.config.worker_python, USUAL_RUNTIME))
        described = (self._described[name] for name in dict.fromkeys((runtime, USUAL_RUNTIME)))
        return " + ".join(
            f"{found.library} {found.version}" for found in described if isinstance(found, RuntimeDescription)
        )

    def _patience_s(self, job: Job) -> float:
        """Return how long an attempt may wait for a ready board, which leaves most of the job's time to the job."""
        return max(0.0, min(self.config.gate_limit_s, PATIENCE_SHARE * job.left_s))

    def _pass_the_gate(self, job: Job, worker: WorkerProcess) -> tuple[GateOutcome, float]:
        """Return once the board and the worker are ready: how the wait ended, and how long it might have been.

        A worker that imports its runtime for longer than the gate waits is waited for, and the board looked at anew.
        """
        while True:
            patience_s = self._patience_s(job)
            gate = self._wait_at_the_gate(job, worker, patience_s)
            was_ready = worker.has_spoken()
            self._wait_for_the_runtime(job, worker)
            if was_ready or patience_s <= 0:
                return gate, patience_s

    def _wait_at_the_gate(self, job: Job, worker: WorkerProcess, limit_s: float) -> GateOutcome:
        if limit_s > 0:
            job.phase(Phase.GATE)
        return self._gate.wait(
            (worker.pid,),
            lambda text: job.phase(Phase.GATE, text),
            job.wait,
            limit_s=limit_s,
            ready=worker.has_spoken,
        )


def _texts(attempt: Attempt) -> str:
    return "; ".join(f"{raised.flag.name}: {raised.reason}" for raised in flags_of(attempt))
