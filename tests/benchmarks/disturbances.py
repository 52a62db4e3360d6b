"""Whether injected disturbances are flagged, and how many undisturbed runs are flagged all the same.

Every job is one attempt (no retries). A disturbance begins at a random moment of the ten seconds that a timed part
takes at least, its pauses left out:

    hog      a process that computes without end, on top of the job's own threads
    pause    the worker is stopped for 0.3 s, as a swapped-out or suspended process is
    clock    the clock in a tree of sysfs files falls from 2400 to 1800 MHz, as by a thermal cap
    memory   the worker's mapped files are pushed out of memory, as when memory is short; needs root

Asked: at least 95 % flagged; under 5 % false alarms among the undisturbed. A flag on an undisturbed run may
still be true, since a shared machine disturbs by itself. So right before and after each undisturbed run the model is
timed by a bare loop, and an alarm counts as confirmed

    CANARY    where the run's own median, or the bare loops, differ by more than 2 % from their median over all
              undisturbed rounds, in its direction: something slowed more down than the reference model
    DRIFT     where the bare loops differ by more than 3 % from each other
    UNSTABLE  where a bare loop scatters as much
    NOISE     where the hypervisor's steal time passed its bound

The bare loops wait for no faster moment. How often all this would have confirmed a `CANARY` that was not there is told.
"""

import argparse
import contextlib
import ctypes
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import laboratory as lab
from edgenas.v1 import benchmark_pb2

from device_agent.measuring.flags import CANARY_SHARE, DRIFT_SHARE, STEAL_PERCENT

# The agent looks at the board for some milliseconds before the first sample is taken.
WHEN_S = (0.3, 9.5)
FULL_MHZ, CAPPED_MHZ = 2400, 1800
PAUSE_S = 0.3
PIDFD_OPEN, PROCESS_MADVISE, MADV_PAGEOUT = 434, 440, 21
EXPECTED = {"hog": "NOISE", "pause": "UNSTABLE", "clock": "FREQ", "memory": "MEM"}


class Tree:
    """A root with the real proc and a sysfs whose clock can be changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        (folder / "proc").symlink_to("/proc")
        self._files = []
        for cpu in range(os.cpu_count() or 1):
            cpufreq = folder / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
            cpufreq.mkdir(parents=True)
            (cpufreq / "scaling_governor").write_text("performance\n")
            (cpufreq / "cpuinfo_max_freq").write_text(f"{1000 * FULL_MHZ}\n")
            self._files.append(cpufreq / "scaling_cur_freq")
        self.set_clock(FULL_MHZ)

    def set_clock(self, megahertz: int) -> None:
        for file in self._files:
            file.write_text(f"{1000 * megahertz}\n")


@contextlib.contextmanager
def hog(pid: int, tree: Tree) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def pause(pid: int, tree: Tree) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(pid, signal.SIGCONT)
    yield


@contextlib.contextmanager
def clock(pid: int, tree: Tree) -> Iterator[None]:
    tree.set_clock(CAPPED_MHZ)
    try:
        yield
    finally:
        tree.set_clock(FULL_MHZ)


@contextlib.contextmanager
def memory(pid: int, tree: Tree) -> Iterator[None]:
    page_out(pid)
    yield


class Range(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def page_out(pid: int) -> None:
    """Have the kernel reclaim what a process maps of files."""
    library = ctypes.CDLL(None, use_errno=True)
    pidfd = library.syscall(PIDFD_OPEN, pid, 0)
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[5].startswith("/"):
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                area = Range(begin, end - begin)
                library.syscall(PROCESS_MADVISE, pidfd, ctypes.byref(area), 1, MADV_PAGEOUT, 0)
    finally:
        os.close(pidfd)


KINDS: dict[str, Callable[[int, Tree], contextlib.AbstractContextManager[None]]] = {
    "hog": hog,
    "pause": pause,
    "clock": clock,
    "memory": memory,
}


def disturbed(agent: lab.Agent, sha256: str, threads: int, kind: str, tree: Tree):
    """Return the measurement of a job that is disturbed in its timed part, and in none of its pauses."""
    timed = TimedPart()
    moment_s = random.uniform(*WHEN_S)
    with contextlib.ExitStack() as stack:

        def disturb(pid: int) -> None:
            while not timed.over:
                if timed.seconds() >= moment_s:
                    stack.enter_context(KINDS[kind](pid, tree))
                    return
                time.sleep(0.01)

        disturbing: threading.Thread | None = None
        for event in lab.ask(agent, sha256, threads):
            if event.progress.phase == benchmark_pb2.BENCHMARK_PHASE_MEASURE:
                timed.begin()
                if disturbing is None:
                    (worker,) = agent.workers()
                    disturbing = threading.Thread(target=disturb, args=(worker.pid,), daemon=True)
                    disturbing.start()
            elif event.HasField("progress"):
                timed.end()
            if event.HasField("failure"):
                raise SystemExit(f"the agent could not measure: {event.failure.message}")
        timed.over = True
        if disturbing is not None:
            disturbing.join()
        if timed.seconds() < moment_s:
            raise SystemExit(
                f"the timed part took {timed.seconds():.1f} s; expected {moment_s:.1f} s or more"
            )
    return event.result.measurement


class TimedPart:
    """How long a job has been timed, its pauses left out."""

    def __init__(self) -> None:
        self.over = False
        self._before_s = 0.0
        self._since_s: float | None = None

    def begin(self) -> None:
        self._since_s = time.monotonic()

    def end(self) -> None:
        self._before_s = self.seconds()
        self._since_s = None

    def seconds(self) -> float:
        return self._before_s + (0.0 if self._since_s is None else time.monotonic() - self._since_s)


@dataclass(frozen=True)
class Calm:
    """An undisturbed run, and the bare loops right before and after it."""

    model: str
    flags: list[str]
    median_ms: float
    canary_off: float
    steal_percent: float
    bare: tuple[lab.BareLoop, lab.BareLoop]

    def confirmed(self, usual: "Usual") -> bool:
        """Tell whether something else than what raised a flag saw the machine disturbed, and in the same way."""
        seen = {
            "CANARY": self.elsewhere_off(usual, math.copysign(1.0, self.canary_off)),
            "DRIFT": abs(self.bare_change) > DRIFT_SHARE,
            "UNSTABLE": any(loop.unstable for loop in self.bare),
            "NOISE": self.steal_percent > STEAL_PERCENT,
        }
        return any(seen.get(flag, False) for flag in self.flags)

    @property
    def bare_change(self) -> float:
        """From the bare loop before to the one after, as a share."""
        before, after = self.bare
        return after.median_ms / before.median_ms - 1

    def elsewhere_off(self, usual: "Usual", sign: float) -> bool:
        """Tell whether the model, here or in a bare loop, was that much slower (sign 1) or faster (sign -1)."""
        return any(sign * off > CANARY_SHARE for off in (usual.own_off(self), usual.bare_off(self)))


class Usual:
    """What each model takes in undisturbed runs, and in bare loops around them."""

    def __init__(self, calm: list[Calm]) -> None:
        def medians(times_ms: Callable[[Calm], Iterable[float]]) -> dict[str, float]:
            of_model: dict[str, list[float]] = {}
            for run in calm:
                of_model.setdefault(run.model, []).extend(times_ms(run))
            return {name: statistics.median(found) for name, found in of_model.items()}

        self._own_ms = medians(lambda run: [run.median_ms])
        self._bare_ms = medians(lambda run: [loop.median_ms for loop in run.bare])

    def own_off(self, run: Calm) -> float:
        """Return how much longer a run's median is than usual, as a share of it."""
        return run.median_ms / self._own_ms[run.model] - 1

    def bare_off(self, run: Calm) -> float:
        """Return how much longer the bare loops around a run took than usual, as a share of it."""
        bare_ms = math.sqrt(math.prod(loop.median_ms for loop in run.bare))
        return bare_ms / self._bare_ms[run.model] - 1


def main() -> None:
    parser = lab.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="runs of each kind")
    parser.add_argument("--undisturbed", type=int, help="undisturbed runs; twice --rounds if not given")
    options = parser.parse_args()
    undisturbed = 2 * options.rounds if options.undisturbed is None else options.undisturbed
    random.seed(0)
    kinds = [kind for kind in KINDS if kind != "memory" or os.geteuid() == 0]
    found: dict[str, list[tuple[str, list[str]]]] = {kind: [] for kind in kinds}
    calm: list[Calm] = []
    with tempfile.TemporaryDirectory() as folder, lab.models(options.models) as models:
        tree = Tree(Path(folder))
        with lab.agent("--retries", "0", "--root", folder) as agent:
            keys = {model.name: agent.upload(model.data) for model in models}
            for number in range(max(options.rounds, undisturbed)):
                model = models[number % len(models)]
                if number < undisturbed:
                    calm.append(left_alone(agent, keys[model.name], model, options))
                for kind in kinds if number < options.rounds else ():
                    run = disturbed(agent, keys[model.name], options.threads, kind, tree)
                    found[kind].append((model.name, lab.contaminating(run)))
                    lab.log(options.log, kind=kind, model=model.name, flags=lab.flags(run),
                            reasons=[entry.reason for entry in run.flag_reasons])  # fmt: skip
    print(f"disturbances: {options.threads} thread(s), one attempt a job; {lab.machine()}")
    if len(kinds) < len(KINDS):
        print("  memory   not tried: needs root")
    if options.rounds:
        report_found(found)
    if calm:
        report_calm(calm)


def left_alone(agent: lab.Agent, sha256: str, model: lab.Model, options: argparse.Namespace) -> Calm:
    """Return an undisturbed run and the bare loops around it."""
    before = lab.bare_loop(model, options.threads, 1.5)
    run = lab.measure(agent, sha256, options.threads)
    after = lab.bare_loop(model, options.threads, 1.5)
    calm = Calm(
        model=model.name,
        flags=lab.contaminating(run),
        median_ms=run.latency.median_ms,
        canary_off=run.canary.median_ms / run.canary.baseline_ms - 1,
        steal_percent=run.interference.steal_percent,
        bare=(before, after),
    )
    lab.log(options.log, kind="none", **asdict(calm), reasons=[entry.reason for entry in run.flag_reasons])
    return calm


def report_found(found: dict[str, list[tuple[str, list[str]]]]) -> None:
    for kind, runs in found.items():
        flagged = [flags for _, flags in runs if flags]
        expected = [flags for flags in flagged if EXPECTED[kind] in flags]
        missed = [name for name, flags in runs if not flags]
        print(
            f"  {kind:8} {len(flagged)} of {len(runs)} flagged, {len(expected)} with {EXPECTED[kind]}; missed: {missed or 'none'}"
        )
    hits = [bool(flags) for runs in found.values() for _, flags in runs]
    print(f"  found    {sum(hits)} of {len(hits)} ({100 * sum(hits) / len(hits):.0f} %)")


def report_calm(calm: list[Calm]) -> None:
    usual = Usual(calm)
    alarms = [run for run in calm if run.flags]
    false = [run for run in alarms if not run.confirmed(usual)]
    print(
        f"  undisturbed: {len(alarms)} of {len(calm)} flagged ({100 * len(alarms) / len(calm):.0f} %), of which "
        f"{len(alarms) - len(false)} confirmed; false alarms {len(false)} ({100 * len(false) / len(calm):.0f} %)"
    )
    quiet = [run for run in calm if not run.flags]
    off = sum(run.elsewhere_off(usual, 1.0) or run.elsewhere_off(usual, -1.0) for run in quiet)
    print(f"    of the {len(quiet)} without a flag {off} would have been confirmed as slower or faster")
    for run in alarms:
        print(
            f"    {run.model}: {', '.join(run.flags)} ({100 * run.canary_off:+.1f} %); own median "
            f"{100 * usual.own_off(run):+.1f} %; bare loops {100 * usual.bare_off(run):+.1f} %, from first to last {100 * run.bare_change:+.1f} %, "
            f"{100 * max(loop.severe_share for loop in run.bare):.1f} % severe outliers, steal {run.steal_percent:.1f} %"
        )


if __name__ == "__main__":
    main()
