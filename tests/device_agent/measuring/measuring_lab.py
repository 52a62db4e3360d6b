"""A measurer with a board of files, a small model and real workers."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
from agent_harness import conv_model, sha256_of
from sensor_trees import write

from device_agent.benchmark import (
    BenchmarkRecord,
    BenchmarkRequest,
    BenchmarkSpec,
    Measurement,
    MeasurementMode,
    Phase,
    Progress,
)
from device_agent.measuring.baselines import Baselines
from device_agent.measuring.measurer import Measurer, MeasuringConfig
from device_agent.measuring.timed_window import TimedWindow
from device_agent.runtimes.worker_process import StopSignal

SPEC = BenchmarkSpec(runtime="onnx", threads=1, input_shapes=(), seed=0, mode=MeasurementMode.SEARCH)


class Laboratory:
    """Measures one small model on a board of files, and notes what is announced.

    The board tells nothing but what a test writes below `root`, so that a busy machine is not seen there.

    Attributes:
        progress: Everything announced of the latest job.
        on_progress: What else happens when something is announced.
    """

    def __init__(self, folder: Path, **config: object) -> None:
        self.root = folder / "board"
        self.root.mkdir(parents=True, exist_ok=True)
        self.model = folder / "conv.onnx"
        self.model.write_bytes(conv_model())
        self.baselines_file = folder / "baselines.json"
        self.baselines = Baselines(self.baselines_file)
        values = {
            "worker_python": sys.executable,
            "job_timeout_s": 120.0,
            "gate_limit_s": 0.0,
            "measure_limit_s": 1.0,
            "retries": 0,
            "root": self.root,
        }
        self.measurer = Measurer(MeasuringConfig(**(values | config)), self.baselines, TimedWindow())
        self.stop = StopSignal()
        self.progress: list[Progress] = []
        self.on_progress: Callable[[Progress], None] = lambda progress: None

    def board(self, *, clock_mhz: int = 2000, cooling_state: int = 0, temperature_c: int = 40) -> None:
        """Set the board's clock, its cooling device and its temperature."""
        write(
            self.root,
            {
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": str(1000 * clock_mhz),
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
                "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
                "sys/class/thermal/cooling_device0/cur_state": str(cooling_state),
                "sys/class/thermal/thermal_zone0/temp": str(1000 * temperature_c),
            },
        )

    def record(self, *, stop: StopSignal | None = None, **spec: object) -> BenchmarkRecord:
        """Run a job to its end."""
        request = BenchmarkRequest(
            request_id="job",
            model_sha256=sha256_of(self.model.read_bytes()),
            model_name="",
            spec=replace(SPEC, **spec),
        )
        self.stop = stop or StopSignal()
        self.progress = []
        return self.measurer.measure(request, self.model, self.stop, self._note)

    def measure(self, **spec: object) -> Measurement:
        """Run a job to its end and return its figures."""
        return self.record(**spec).measurement

    def phases(self) -> list[Phase]:
        return [progress.phase for progress in self.progress]

    def worker(self) -> psutil.Process:
        """The worker of the running job."""
        (worker,) = workers()
        return worker

    def _note(self, progress: Progress) -> None:
        self.progress.append(progress)
        self.on_progress(progress)


@contextlib.contextmanager
def laboratory(folder: Path, **config: object) -> Iterator[Laboratory]:
    """Give a laboratory whose waiting worker is let go at the end."""
    opened = Laboratory(folder, **config)
    try:
        yield opened
    finally:
        opened.measurer.release()


def workers() -> list[psutil.Process]:
    """Every worker that this process has started and not ended."""
    found = []
    for child in psutil.Process().children():
        # One that has just ended has no command line.
        with contextlib.suppress(psutil.Error):
            if any(part.endswith("worker.py") for part in child.cmdline()):
                found.append(child)
    return found
