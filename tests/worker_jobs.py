"""One job in a worker process, as the agent starts it and talks to it."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.benchmark import Phase, RuntimeDescription
from device_agent.measuring.attempt import CANARY_FILE
from device_agent.runtimes.worker_process import WorkerProcess

LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker said of itself and of a job."""

    description: RuntimeDescription
    phases: list[Phase]
    result: Mapping[str, Any]


def run_job(runtime: str, model: Path, *, python: str = sys.executable, **fields: object) -> Job:
    """Run a job in a worker of its own; `fields` replace those of a job in search mode.

    Raises:
        BenchmarkFailedError: If the worker refuses it.
    """
    job: dict[str, object] = {
        "model_path": str(model),
        "threads": 1,
        "cpu_affinity": [],
        "provider": "",
        "input_shapes": {},
        "batch_size": 1,
        "input_data": "random",
        "seed": 0,
        "precision": None,
        "mode": "search",
        "memory_limit_bytes": None,
        "canary_path": str(CANARY_FILE),
        "profile": False,
        "energy": False,
    }
    process = WorkerProcess(python, runtime)
    phases: list[Phase] = []
    try:
        description = process.greet()
        process.begin(job | fields, deadline_s=time.monotonic() + LIMIT_S, limit_s=LIMIT_S)
        for event in ("settled", "sampled"):
            process.expect(event, phases.append)
            process.answer("go")
        return Job(description=description, phases=phases, result=process.expect("result", phases.append))
    finally:
        process.close()
