"""What the agent must know about a runtime: one row of its table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_agent.benchmark import BenchmarkSpec, ModelFormat, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime that the agent knows.

    Attributes:
        name: What a spec asks for.
        format: What it reads.
        package: What its Python must be able to import.
        remedy: What to do where it cannot, e.g. `install numpy and torch for it`.
        inspect: Checks a file against a spec before the runtime sees it, and returns its precision where the file
            tells and it is one of ours. Raises BenchmarkFailedError where the agent must not load the file.
        providers: Short names of the execution providers that EdgeNAS offers, with the runtime's own names.
        gpu_providers: Those of the runtime's own names that run a model on a graphics card.
        endings: How the names of its files end, for who names no runtime.
        worker_file: The Python file that adds its class to the worker's table; None where `worker.py` has it.
    """

    name: str
    format: ModelFormat
    package: str
    remedy: str
    inspect: Callable[[Path, BenchmarkSpec], Precision | None]
    providers: Mapping[str, str]
    gpu_providers: frozenset[str] = frozenset()
    endings: tuple[str, ...] = ()
    worker_file: Path | None = None
