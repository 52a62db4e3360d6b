"""Whether the agent may read and write what it needs."""

import os
import shutil
import tempfile
from pathlib import Path

from device_agent.board.files import find_number, read_integer, read_text
from device_agent.doctor.check import Check, failed, passed, warned
from device_agent.sensors import rapl

MIB = 1 << 20
LITTLE_DISK_BYTES = 1024 * MIB
NO_DISK_BYTES = 100 * MIB

# From 3 on, Debian's and Android's kernels keep the counters for root; 2 is the kernel's own default.
PERF_FOR_ALL = 2


def check_state_dir(state_dir: Path) -> Check:
    """Tell whether models and history can be kept."""
    folder = _existing(state_dir)
    remedy = f"make '{folder}' a folder that the agent's user may write to, or give another --state-dir"
    if not folder.is_dir():
        return failed("state folder", f"'{folder}' is not a folder", remedy)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return failed("state folder", f"'{folder}' cannot be written to: {error.strerror}", remedy)
    return passed("state folder", f"'{state_dir}'" + ("" if folder == state_dir else " can be created"))


def check_disk(state_dir: Path) -> Check:
    """Tell whether there is room for models."""
    return judge_disk(state_dir, shutil.disk_usage(_existing(state_dir)).free)


def judge_disk(state_dir: Path, free_bytes: int) -> Check:
    """Judge the free space of the disk that models are kept on."""
    finding = f"{free_bytes / MIB:,.0f} MiB free for '{state_dir}'"
    remedy = "free some, or give a --state-dir on another disk"
    if free_bytes < NO_DISK_BYTES:
        return failed("disk", f"{finding}: models will be refused", remedy)
    if free_bytes < LITTLE_DISK_BYTES:
        return warned("disk", f"{finding}: few models will fit", remedy)
    return passed("disk", finding)


def check_energy_counters(root: Path) -> tuple[Check, ...]:
    """Tell whether the counters of x86 can be read; boards without any have no row."""
    counters = sorted(root.glob("sys/class/powercap/intel-rapl:*/energy_uj"))
    closed = [path for path in counters if read_text(path) is None]
    if not counters:
        return ()
    if not closed:
        return (passed("energy counters", f"{len(counters)} can be read"),)
    return (
        warned(
            "energy counters",
            f"{len(closed)} of {len(counters)} cannot be read, so energy may be absent; they are closed "
            "because power tells what other users do (CVE-2020-8694)",
            rapl.GRANT,
        ),
    )


def check_perf(root: Path) -> Check:
    """Tell whether a profiler may count this user's own processes."""
    paranoid = read_integer(root / "proc/sys/kernel/perf_event_paranoid")
    if paranoid is None:
        return warned("perf", "this kernel has no perf events", "nothing to do: measuring needs none")
    finding = f"perf_event_paranoid is {paranoid}"
    if paranoid <= PERF_FOR_ALL or _is_root(root):
        return passed("perf", f"{finding}: own processes can be counted")
    remedy = f"sudo sysctl kernel.perf_event_paranoid={PERF_FOR_ALL}, to profile; measuring needs none"
    return warned("perf", f"{finding}: counters are for root alone", remedy)


def check_memory_marks(root: Path) -> Check:
    """Tell whether a process may reset its own high-water mark of memory."""
    if _opens_for_writing(root / "proc/self/clear_refs"):
        return passed("memory marks", "/proc/self/clear_refs resets them")
    return warned(
        "memory marks",
        "/proc/self/clear_refs cannot be written to, so peaks of memory are told by a coarser method",
        "run a kernel with CONFIG_PROC_PAGE_MONITOR, and the agent under a user of its own",
    )


def check_sacrifice(root: Path) -> Check:
    """Tell whether a worker may offer itself to the kernel when memory runs out."""
    if _opens_for_writing(root / "proc/self/oom_score_adj"):
        return passed("out of memory", "/proc/self/oom_score_adj makes the worker go first")
    return warned(
        "out of memory",
        "/proc/self/oom_score_adj cannot be written to: a large model may take other processes down",
        "run the agent with a writable /proc",
    )


def _existing(path: Path) -> Path:
    """Return the path itself or its nearest ancestor that exists."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def _is_root(root: Path) -> bool:
    return find_number(r"^Uid:\s*\d+\s+(\d+)", read_text(root / "proc/self/status")) == 0


def _opens_for_writing(path: Path) -> bool:
    """Try it: `os.access` knows nothing of what the kernel decides on opening. Nothing is written."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except OSError:
        return False
    os.close(descriptor)
    return True
