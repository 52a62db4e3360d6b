"""What else than the measurement used the board between two moments.

A snapshot reads four small files and one for each process of ours, which takes well under a millisecond; it
belongs right before and right after what is timed, never within.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_agent.board.files import find_number, read_text

# `/proc/stat` and `/proc/PID/stat` count in these, 10 ms each on every common kernel.
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# How far the kernel's total may be off the window, as a share; beyond, the two speak of different things.
TOTALS_TOLERANCE = 0.1

# Where this process sees others. Below a root that shows a container its host, they have other numbers.
OWN_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTime:
    """CPU time of one process, its threads included. The start tells it from a later one of the same id."""

    pid: int
    start_ticks: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Time of all cores together. `idle_s` includes waits for a disk; `busy_s` is neither that nor steal."""

    cores: int
    busy_s: float
    idle_s: float
    steal_s: float

    @property
    def total_s(self) -> float:
        """All time, whatever the cores did."""
        return self.busy_s + self.idle_s + self.steal_s


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSnapshot:
    """Running totals since the board was started, at one moment; what the system does not tell is None.

    Attributes:
        time_s: On the clock of `time.monotonic`, when `cpu` was read.
        cpu: What all cores did.
        processes: Our own, as far as they were there, each with the children that it has waited for.
        cpu_stall_us: Time in which some task waited for a processor; `memory_stall_us` likewise.
        swap_ins: Pages read back from swap.
        oom_kills: Processes that the kernel killed for want of memory.
    """

    time_s: float
    cpu: CpuTime | None = None
    processes: tuple[ProcessTime, ...] = ()
    cpu_stall_us: float | None = None
    memory_stall_us: float | None = None
    swap_ins: int | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoad:
    """What else used the board in a window; what the system does not tell is None.

    `other_cpu_percent` is of one core (two busy cores are 200), `steal_percent` of all cores, the pressures
    of the time.
    """

    window_s: float
    other_cpu_percent: float | None
    steal_percent: float | None
    cpu_pressure_percent: float | None
    memory_pressure_percent: float | None
    swap_ins: int | None


def read_load(root: Path = Path("/"), pids: Sequence[int] = (), *, own_proc: Path = OWN_PROC) -> LoadSnapshot:
    """Return the totals now.

    Args:
        root: Where the board's files are read.
        pids: Processes whose work is not interference, by the numbers that this process knows them by.
        own_proc: Where these are looked up.
    """
    cpu = _cpu_time(root)
    time_s = time.monotonic()
    processes = [_process_time(own_proc, pid) for pid in pids]
    vmstat = read_text(root / "proc/vmstat")
    return LoadSnapshot(
        time_s=time_s,
        cpu=cpu,
        processes=tuple(process for process in processes if process is not None),
        cpu_stall_us=_stall_us(root, "cpu"),
        memory_stall_us=_stall_us(root, "memory"),
        swap_ins=_count(r"^pswpin (\d+)$", vmstat),
        oom_kills=_count(r"^oom_kill (\d+)$", vmstat),
    )


def interference(before: LoadSnapshot, after: LoadSnapshot) -> WindowLoad:
    """Return what else used the board between two snapshots that were given the same processes.

    A process that has ended counts with what it had used when it was last seen, at `before`: what it used
    since then counts as other processes'. So take the second snapshot while it lives. One that is in `after`
    alone does not count at all.
    """
    window_s = after.time_s - before.time_s
    other_s = steal_s = total_s = None
    if before.cpu is not None and after.cpu is not None:
        other_s = _busy_s(before.cpu, after.cpu, window_s) - _own_s(before, after)
        steal_s = after.cpu.steal_s - before.cpu.steal_s
        total_s = after.cpu.total_s - before.cpu.total_s
    return WindowLoad(
        window_s=window_s,
        other_cpu_percent=_percent(other_s, window_s),
        steal_percent=_percent(steal_s, total_s),
        cpu_pressure_percent=_percent(_growth(before.cpu_stall_us, after.cpu_stall_us), window_s * 1e6),
        memory_pressure_percent=_percent(
            _growth(before.memory_stall_us, after.memory_stall_us), window_s * 1e6
        ),
        swap_ins=_counted(before.swap_ins, after.swap_ins),
    )


def combined(windows: Sequence[WindowLoad]) -> WindowLoad:
    """Return several windows, at least one, as if they were one; what one of them does not tell is None."""
    window_s = sum(window.window_s for window in windows)

    def mean(shares: Sequence[float | None]) -> float | None:
        told = [share for share in shares if share is not None]
        if len(told) < len(windows) or window_s <= 0:
            return None
        return sum(share * window.window_s for share, window in zip(told, windows, strict=True)) / window_s

    swap_ins = [window.swap_ins for window in windows if window.swap_ins is not None]
    return WindowLoad(
        window_s=window_s,
        other_cpu_percent=mean([window.other_cpu_percent for window in windows]),
        steal_percent=mean([window.steal_percent for window in windows]),
        cpu_pressure_percent=mean([window.cpu_pressure_percent for window in windows]),
        memory_pressure_percent=mean([window.memory_pressure_percent for window in windows]),
        swap_ins=sum(swap_ins) if len(swap_ins) == len(windows) else None,
    )


def _busy_s(before: CpuTime, after: CpuTime, window_s: float) -> float:
    """Return the time that all cores worked in the window.

    The kernel charges busy time tick by tick, to whatever runs when the tick comes, which misjudges what
    sleeps and wakes often; idle time it measures. So busy is what idle and steal leave of the window. Seen
    over windows of 2 s, beside a process with two threads that sleep every 2 ms, against the scheduler's own
    count of all others: -0.2 to +1.1 % of a core, where the sum of the busy ticks was off by -3.0 to +0.6 %.

    Where the totals do not add up to the window (a virtual machine that was paused, a core that was plugged
    in), the ticks are the better witness.
    """
    of_all_cores_s = window_s * after.cores
    total_s = after.total_s - before.total_s
    if before.cores != after.cores or abs(total_s - of_all_cores_s) > TOTALS_TOLERANCE * of_all_cores_s:
        return after.busy_s - before.busy_s
    return of_all_cores_s - (after.idle_s - before.idle_s) - (after.steal_s - before.steal_s)


def _own_s(before: LoadSnapshot, after: LoadSnapshot) -> float:
    earlier = {(process.pid, process.start_ticks): process.cpu_s for process in before.processes}
    return sum(
        process.cpu_s - earlier.get((process.pid, process.start_ticks), process.cpu_s)
        for process in after.processes
    )


def _growth(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _counted(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _percent(part: float | None, whole: float | None) -> float | None:
    """Return a share of at least 0: the kernel's totals are rounded, and some may step back a little."""
    if part is None or whole is None or whole <= 0:
        return None
    return max(100 * part / whole, 0.0)


def _cpu_time(root: Path) -> CpuTime | None:
    """Read user, nice, system, idle, iowait, irq, softirq, steal; guests, which follow, are within user."""
    text = read_text(root / "proc/stat") or ""
    match = re.search(r"^cpu +(\d+(?: \d+){7})", text, re.MULTILINE)
    if match is None:
        return None
    times = [int(ticks) / TICKS_PER_S for ticks in match.group(1).split()]
    user, nice, system, idle, iowait, irq, softirq, steal = times
    return CpuTime(
        cores=len(re.findall(r"^cpu\d+ ", text, re.MULTILINE)) or 1,
        busy_s=user + nice + system + irq + softirq,
        idle_s=idle + iowait,
        steal_s=steal,
    )


def _process_time(proc: Path, pid: int) -> ProcessTime | None:
    # A program's name, in brackets, may itself hold blanks and brackets: count from behind the last one.
    _, bracket, rest = (read_text(proc / f"{pid}/stat") or "").rpartition(")")
    fields = rest.split()
    if not bracket or len(fields) < 20:
        return None
    *times, start = (int(fields[number - 3]) for number in (14, 15, 16, 17, 22))
    return ProcessTime(pid=pid, start_ticks=start, cpu_s=sum(times) / TICKS_PER_S)


def _stall_us(root: Path, resource: str) -> float | None:
    return find_number(r"^some .*\btotal=(\d+)$", read_text(root / f"proc/pressure/{resource}"))


def _count(pattern: str, text: str | None) -> int | None:
    value = find_number(pattern, text)
    return None if value is None else int(value)
