"""Trials to save, and processes that work on a store."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.core.architecture import Architecture
from controller.core.trial import Trial, TrialState

LIMIT_S = 60


def pending(index: int) -> Trial:
    return Trial(index=index, architecture=Architecture.of({"index": index}))


def complete(index: int) -> Trial:
    """Return a trial with something in every field."""
    return Trial(
        index=index,
        architecture=Architecture.of({"layer_1.operation": "conv3x3", "index": index}),
        state=TrialState.COMPLETE,
        epochs=5,
        values={"accuracy": 0.1 + 0.2, "latency_ms@pi4": 3.21},
        violation=0.25,
        reason="12 breaks latency_ms@pi4<=10",
        training_s=12.5,
        measuring_s=3.25,
        measurements={"pi4": f"request {index}"},
        flags={"pi4": ("CI_NOT_REACHED", "THROTTLED")},
    )


@contextmanager
def process(script: str, database: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a Python script on a store; whatever is left of it at the end is killed."""
    command = [sys.executable, "-c", script, str(database), *arguments]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=LIMIT_S)


def line_from(running: "subprocess.Popen[str]") -> str:
    """Return the next line that a process prints; empty where it has ended."""
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")
