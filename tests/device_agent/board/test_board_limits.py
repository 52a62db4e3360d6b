import os
from pathlib import Path

import pytest
from board_trees import CPU, write

from device_agent.board.conditions import available_memory_bytes
from device_agent.board.limits import (
    allowed_cpus,
    cpu_list,
    cpu_quota,
    memory_headroom_bytes,
    online_cpus,
    usable_cpus,
)


def test_lists_of_processors_are_read(tmp_path: Path):
    write(
        tmp_path,
        {
            f"{CPU}/online": "0-2,8\n",
            "proc/self/status": "Cpus_allowed:\t5\nCpus_allowed_list:\t0,2\nMems_allowed:\t1\n",
        },
    )
    assert online_cpus(tmp_path) == {0, 1, 2, 8}
    assert allowed_cpus(tmp_path) == {0, 2}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (
            # The limit of an ancestor holds too.
            {
                "proc/self/cgroup": "0::/system.slice/agent.service\n",
                "sys/fs/cgroup/system.slice/agent.service/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        (
            # A container of the first version sees a path that its mount does not show.
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/1f3\n1:name=systemd:/docker/1f3\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_quota_is_the_tightest_of_all_cgroups(tmp_path: Path, files: dict[str, str], quota: float | None):
    assert cpu_quota(write(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("files", "headroom"),
    [
        ({}, None),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/memory.current": "5000\n",
            },
            None,
        ),
        (
            # Of what is used, the files that nobody read lately give way.
            {
                "proc/self/cgroup": "0::/agent.service\n",
                "sys/fs/cgroup/agent.service/memory.max": "9000\n",
                "sys/fs/cgroup/agent.service/memory.current": "5000\n",
                "sys/fs/cgroup/agent.service/memory.stat": "anon 3000\ninactive_file 1500\nactive_file 500\n",
            },
            5500,
        ),
        (
            # Past its limit already, by what the kernel has not counted yet.
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "4096\n",
                "sys/fs/cgroup/memory.current": "8192\n",
            },
            0,
        ),
        (
            # The first version, and an ancestor whose limit is tighter.
            {
                "proc/self/cgroup": "9:memory:/docker/1f3\n5:cpu,cpuacct:/docker/1f3\n",
                "sys/fs/cgroup/memory/docker/1f3/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/docker/1f3/memory.usage_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "6000\n",
                "sys/fs/cgroup/memory/docker/memory.usage_in_bytes": "2000\n",
                "sys/fs/cgroup/memory/docker/memory.stat": "inactive_file 7\ntotal_inactive_file 300\n",
            },
            4300,
        ),
    ],
)
def test_headroom_of_memory_is_the_tightest_of_all_cgroups(
    tmp_path: Path, files: dict[str, str], headroom: int | None
):
    assert memory_headroom_bytes(write(tmp_path, files)) == headroom


@pytest.mark.parametrize(("limit_bytes", "available"), [(9_000_000, 8_192_000), (1_000_000, 1_000_000)])
def test_memory_for_a_model_is_bounded_by_the_board_and_by_the_cgroup(
    tmp_path: Path, limit_bytes: int, available: int
):
    files = {
        "proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 8000 kB\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": f"{limit_bytes}\n",
        "sys/fs/cgroup/memory.current": "0\n",
    }
    assert available_memory_bytes(write(tmp_path, files)) == available


def test_usable_processors_are_those_that_the_kernel_lets_this_thread_use():
    before = os.sched_getaffinity(0)
    last = max(before)
    try:
        os.sched_setaffinity(0, {last})
        assert usable_cpus() == {last}
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cpus() == before


@pytest.mark.parametrize(
    ("cpus", "text"),
    [((), ""), ((5,), "5"), ((0, 1), "0-1"), ((8, 0, 2, 3, 1), "0-3,8"), ((0, 2, 4, 5), "0,2,4-5")],
)
def test_processors_are_listed_as_the_kernel_lists_them(cpus: tuple[int, ...], text: str):
    assert cpu_list(cpus) == text
