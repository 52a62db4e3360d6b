from pathlib import Path

import pytest
from board_trees import CPU, write

from device_agent.board.limits import allowed_cpus, cpu_quota, online_cpus


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
