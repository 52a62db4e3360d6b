"""Real processes: a search that can be watched and killed, and an agent on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

PYTHON = Path(sys.executable)
# What is tested is not how calm this machine is: agents neither wait for that nor try again, nor measure for long.
ROUGHLY = ("--gate-limit-s", "0", "--retries", "0", "--measure-limit-s", "1")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path) -> dict[str, str]:
    """Return this process's environment with another EdgeNAS home."""
    told = {"EDGENAS_HOME": str(home), "EDGENAS_LOCAL_AGENT": " ".join(ROUGHLY), "COLUMNS": "200"}
    return {**os.environ, **told}


def command(*arguments: object) -> list[str]:
    """Return the command line of the installed `edgenas`."""
    return [str(PYTHON.with_name("edgenas")), *map(str, arguments)]


class WatchedSearch:
    """A search in a process of its own, one line a finished candidate."""

    def __init__(self, home: Path, *arguments: object) -> None:
        self.process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(home),
        )

    def wait_for_candidates(self, count: int) -> None:
        """Return once so many candidates have been told of."""
        assert self.process.stdout is not None
        seen = 0
        while seen < count:
            line = self.process.stdout.readline()
            assert line, f"the search ended after {seen} candidates: {self.process.communicate()[1]}"
            seen += line.lstrip()[:1].isdigit()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)

    def agent(self) -> psutil.Process:
        """Return the agent that it started on this machine."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "device_agent" in child.cmdline())

    def finish(self) -> tuple[int, str, str]:
        """Return exit code, standard output and error once it has ended."""
        out, err = self.process.communicate(timeout=300)
        return self.process.returncode, out, err


@contextlib.contextmanager
def running_agent(
    state_dir: Path, address: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield an agent of its own process and the address it listens on."""
    with (state_dir.parent / "agent.log").open("a") as log:
        process = subprocess.Popen(
            [
                str(PYTHON.with_name("edgenas-agent")),
                "serve",
                "--insecure",
                "--address",
                address,
                "--state-dir",
                str(state_dir),
                *ROUGHLY,
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip().removeprefix("listening on ")
        finally:
            process.kill()
            process.wait(timeout=60)
            process.stdout.close()


def shown_run(home: Path) -> dict[str, object]:
    """Return everything the store knows of the newest run."""
    shown = subprocess.run(
        command("runs", "show", "last", "--json"),
        capture_output=True,
        text=True,
        env=environment(home),
        check=True,
    )
    run: dict[str, object] = json.loads(shown.stdout)
    return run


def asked_ids(home: Path) -> list[str]:
    """Return the newest run's candidates in the order in which they were asked for."""
    trials = shown_run(home)["trials"]
    assert isinstance(trials, list)
    return [trial["id"] for trial in trials]
