"""One job in a worker process, as the agent starts it and talks to it."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.benchmark import Phase, RuntimeDescription
from device_agent.measuring.canary import CANARY_FILE
from device_agent.runtimes.catalogue import RUNTIMES
from device_agent.runtimes.worker_process import WorkerProcess

LIMIT_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker said of itself and of a job; `result` is what it measured and what its passes found."""

    description: RuntimeDescription
    phases: list[Phase]
    result: Mapping[str, Any]


def run_job(
    runtime: str,
    model: Path,
    *,
    python: str = sys.executable,
    on_phase: Callable[[Phase, int], None] = lambda phase, pid: None,
    **fields: object,
) -> Job:
    """Run a job in a worker of its own.

    Args:
        runtime: What runs the model.
        model: Its file.
        python: Runs the worker.
        on_phase: Told of each phase that the worker, whose process id is the second argument, announces.
        fields: Replace those of a job in search mode.

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
        "time_left_s": LIMIT_S,
        "canary_path": str(CANARY_FILE),
        "look": True,
        "measure_limit_s": 1.0,
        "profile": False,
        "energy": False,
    }
    process = WorkerProcess(python, RUNTIMES[runtime])
    phases: list[Phase] = []

    def note(phase: Phase, detail: str = "") -> None:
        phases.append(phase)
        on_phase(phase, process.pid)

    try:
        description = process.greet()
        process.begin(job | fields, deadline_s=time.monotonic() + LIMIT_S, limit_s=LIMIT_S)
        for event in ("settled", "sampled"):
            process.expect(event, note)
            process.answer("go")
        result = process.expect("measured", note)
        process.answer("go")
        for event in ("reloaded", "passed"):
            result |= process.expect(event, note)
        return Job(description=description, phases=phases, result=result)
    finally:
        process.close()


def python_that(folder: Path, begins_with: str) -> str:
    """Return a Python that runs some code of ours ahead of the worker's, e.g. to break a library."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport runpy, sys\ndel sys.argv[0]\n{begins_with}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    path.chmod(0o755)
    return str(path)


def allowed_cpus(pid: int) -> list[str]:
    """Return where each thread of a process may run, e.g. `0` or `0-1`, the one that has run longest first."""
    found = []
    for folder in Path(f"/proc/{pid}/task").iterdir():
        run_ns = int((folder / "schedstat").read_text().split()[0])
        lines = (folder / "status").read_text().splitlines()
        (allowed,) = [line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:")]
        found.append((run_ns, allowed))
    return [allowed for _, allowed in sorted(found, reverse=True)]
