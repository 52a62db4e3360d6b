"""How energy is to be found in one job: by a sensor, by a formula, or not at all, with the reason."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_agent.benchmark import BenchmarkSpec, EnergyReading
from device_agent.errors import SensorError
from device_agent.measuring.energy import PASS_S, EnergyPass, InferenceWindow
from device_agent.runtimes.catalogue import RUNTIMES
from device_agent.runtimes.worker_process import OnPhase, WorkerProcess
from device_agent.sensors import modelled
from device_agent.sensors.base import PowerMeter, PowerSource
from device_agent.sensors.catalogue import choose, known_sources, named
from device_agent.sensors.modelled import EnergyModel
from device_agent.sensors.raspberry_pi_pmic import LinearCalibration

logger = logging.getLogger(__name__)

NOT_ASKED = "energy was not asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOptions:
    """Where power is read.

    Attributes:
        source: Name of the source; empty for the best sensor.
        energy_model: The user's formula, used where it is asked for by its name; None for none.
        calibration: The user's line for the rails of a Raspberry Pi 5; None for none.
    """

    source: str = ""
    energy_model: EnergyModel | None = None
    calibration: LinearCalibration | None = None

    def sources(self) -> tuple[PowerSource, ...]:
        """Return the sensors to choose from, best first."""
        return known_sources(self.calibration)

    @property
    def is_formula(self) -> bool:
        """Whether energy comes from the formula unless a request names a sensor."""
        return self.source == modelled.NAME

    def check(self) -> None:
        """Find out before any job what none could do anything about.

        Raises:
            SensorError: If the source is none that the agent knows, or the formula and there are no coefficients.
        """
        if self.source and not (self.is_formula and self.energy_model is not None):
            named(self.source, self.sources())


class PowerPlan:
    """What a job does about energy. Its owner calls `close()`.

    `meter` is None where no pass is needed: `unmeasured` is then what there is to know, or why there is nothing.
    """

    def __init__(
        self,
        *,
        source: PowerSource | None = None,
        meter: PowerMeter | None = None,
        known: EnergyReading | None = None,
        absent_reason: str = "",
        wait: Callable[[float], None],
    ) -> None:
        self.meter = meter
        self.unmeasured = known, absent_reason
        self._source = source
        self._wait = wait

    def close(self) -> None:
        """Let go of the sensor, whatever it makes of that: what was measured stands."""
        if self.meter is None:
            return
        try:
            self.meter.close()
        except Exception:
            logger.warning("a power sensor cannot be closed", exc_info=True)

    def measure(
        self, worker: WorkerProcess, deadline_s: float, on_phase: OnPhase
    ) -> tuple[EnergyReading | None, str]:
        """Go through the worker's energy pass; return the energy, or None and the reason.

        A sensor that fails ends the pass, not the job. Too little time for a pass leaves it out.

        Args:
            worker: Waits to be idle.
            deadline_s: Of the job, on the monotonic clock.
            on_phase: Called, from this thread, at the start of every phase.

        Raises:
            BenchmarkFailedError: If the worker ends or the job is cancelled.
        """
        assert self.meter is not None
        assert self._source is not None
        reading = EnergyPass(self.meter, wait=self._wait, deadline_s=deadline_s)
        failures: list[str] = []
        left_s = deadline_s - time.monotonic()
        if left_s < PASS_S:
            failures.append(
                f"the job had {max(0.0, left_s):.0f} s left, where {PASS_S:.0f} s are expected; raise its time limit"
            )

        def look(sample: Callable[[], None]) -> None:
            if failures:
                return
            try:
                sample()
            except SensorError as error:
                failures.append(str(error))

        worker.expect("idle", on_phase)
        look(reading.idle)
        worker.answer("run")
        begin_s = worker.expect("running", on_phase)["begin_s"]
        look(lambda: reading.sample_while(lambda: worker.alive() and reading.wants_more(begin_s)))
        worker.answer("stop")
        ended = worker.expect("stopped", on_phase)
        look(reading.idle)
        worker.answer("go")
        if failures:
            return None, failures[0]
        window = InferenceWindow(begin_s=begin_s, end_s=ended["end_s"], inferences=ended["inferences"])
        try:
            return reading.result(window, self._source), ""
        except SensorError as error:
            return None, str(error)


def plan_power(
    root: Path, options: PowerOptions, spec: BenchmarkSpec, model_path: Path, wait: Callable[[float], None]
) -> PowerPlan:
    """Return what a job does about energy; a source that cannot be read becomes the reason why it is absent.

    Args:
        root: Where the board's files are read.
        options: The agent's own.
        spec: Whether energy is asked for, and by which source.
        model_path: The model's file.
        wait: Sleeps; ends the job where it is cancelled.
    """
    if not spec.energy:
        return PowerPlan(absent_reason=NOT_ASKED, wait=wait)
    wanted = spec.power_source or options.source
    try:
        if wanted == modelled.NAME and options.energy_model is not None:
            known = _by_formula(options.energy_model, spec, model_path)
            return PowerPlan(known=known, wait=wait)
        on_gpu = spec.provider in RUNTIMES[spec.runtime].gpu_providers
        source = choose(root, wanted, sources=options.sources(), on_gpu=on_gpu)
        return PowerPlan(source=source, meter=source.open(root), wait=wait)
    except SensorError as error:
        return PowerPlan(absent_reason=f"{error}{_or_by_formula(options, wanted)}", wait=wait)


def _or_by_formula(options: PowerOptions, wanted: str) -> str:
    if wanted or options.energy_model is None:
        return ""
    return f"; or name the power source {modelled.NAME!r}, the formula {options.energy_model}"


def _by_formula(model: EnergyModel, spec: BenchmarkSpec, model_path: Path) -> EnergyReading:
    return EnergyReading(
        net_mj=model.energy_mj(macs=spec.macs, model_bytes=model_path.stat().st_size),
        gross_mj=None,
        idle_mw=None,
        active_mw=None,
        source=modelled.NAME,
        scope="",
        updates_per_s=None,
        inferences=None,
        modelled=True,
        calibration=str(model),
    )
