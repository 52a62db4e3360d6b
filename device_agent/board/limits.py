"""Which processors this process may use, and how much of them and of the memory."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from device_agent.board.files import find_number, find_text, read_integer, read_text

CGROUPS = Path("sys/fs/cgroup")


def online_cpus(root: Path = Path("/")) -> frozenset[int]:
    """Return the processors that run; empty where the kernel does not tell."""
    return _cpu_list(read_text(root / "sys/devices/system/cpu/online"))


def allowed_cpus(root: Path = Path("/")) -> frozenset[int]:
    """Return the processors that this process may run on, by affinity and cpuset."""
    return _cpu_list(find_text(r"^Cpus_allowed_list:\s*(\S+)$", read_text(root / "proc/self/status")))


def usable_cpus() -> frozenset[int]:
    """Return the processors that this process and its workers may run on now: online, and within affinity and cpuset.

    Asked of the kernel each time: a Jetson's power mode takes cores away, and gives them back, while the agent runs.
    """
    if not hasattr(os, "sched_getaffinity"):
        # Only Linux tells, and only Linux has numbers that are missing.
        return frozenset(range(os.cpu_count() or 1))
    return frozenset(os.sched_getaffinity(0))


def cpu_list(cpus: Iterable[int]) -> str:
    """Return numbers as the kernel writes them, e.g. `0-3,8`."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][-1] + 1:
            ranges[-1][1:] = [cpu]
        else:
            ranges.append([cpu])
    return ",".join("-".join(map(str, ends)) for ends in ranges)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many cores' time the cgroups of this process allow; None where they limit nothing.

    A limit stops the threads until the next period of, as a rule, 100 ms once they have used it up.
    """
    quotas = [
        quota
        for folder in _cgroup_folders(root, "cpu")
        for quota in (_quota_v2(folder), _quota_v1(folder))
        if quota is not None
    ]
    return min(quotas, default=None)


def memory_headroom_bytes(root: Path = Path("/")) -> int | None:
    """Return what the cgroups of this process still allow it to take; None where they limit nothing.

    Cached files count as used by a cgroup, but give way: those that were not used lately are headroom.
    """
    rooms = [
        room
        for folder in _cgroup_folders(root, "memory")
        for room in (
            _room(folder, "memory.max", "memory.current", "inactive_file"),
            _room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        )
        if room is not None
    ]
    return min(rooms, default=None)


def _room(folder: Path, limit_file: str, usage_file: str, idle_cache: str) -> int | None:
    limit, usage = read_integer(folder / limit_file), read_integer(folder / usage_file)
    if limit is None or usage is None:
        return None
    cache = find_number(rf"^{idle_cache} (\d+)$", read_text(folder / "memory.stat")) or 0
    return max(0, limit - usage + int(cache))


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup for a controller and of its ancestors, whose limits hold as well.

    A container may see a path that its own mount does not show; the mount's top is then its cgroup.
    """
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / CGROUPS / controllers
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:depth])


def _quota_v2(folder: Path) -> float | None:
    """Read e.g. `200000 100000`, microseconds in each period; or `max 100000` where nothing is limited."""
    match = re.fullmatch(r"(\d+) (\d+)", read_text(folder / "cpu.max") or "")
    return int(match.group(1)) / int(match.group(2)) if match else None


def _quota_v1(folder: Path) -> float | None:
    quota = read_integer(folder / "cpu.cfs_quota_us")
    period = read_integer(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and quota > 0 and period else None


def _cpu_list(text: str | None) -> frozenset[int]:
    """Return the numbers in a list of the kernel's, e.g. `0-3,8`."""
    cpus: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text or ""):
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)
