import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from board_trees import write

from device_agent.board.load import (
    CpuTime,
    LoadSnapshot,
    ProcessTime,
    WindowLoad,
    combined,
    interference,
    read_load,
)

STAT = """\
cpu  11651 7 5551 118871 312 3 47 106 5000 6
cpu0 5030 7 1327 68786 164 0 9 54 0 0
cpu1 6621 0 4224 50085 148 3 38 52 0 0
intr 4711 0 0
ctxt 1000
"""
# A program may call itself anything.
PROCESS = "42 (a) R (b) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 20 5 20 0 3 0 7700 1 2 3\n"

BEFORE = LoadSnapshot(
    time_s=100.0,
    cpu=CpuTime(cores=4, busy_s=30.0, idle_s=500.0, steal_s=1.0),
    processes=(ProcessTime(pid=42, start_ticks=7700, cpu_s=10.0),),
    cpu_stall_us=5_000_000.0,
    memory_stall_us=0.0,
    swap_ins=17,
    oom_kills=0,
)
# 2 s on 4 cores: 5.9 s idle and 0.08 s stolen leave 2.02 s of work, 1.9 s of it ours.
AFTER = LoadSnapshot(
    time_s=102.0,
    cpu=CpuTime(cores=4, busy_s=32.02, idle_s=505.9, steal_s=1.08),
    processes=(ProcessTime(pid=42, start_ticks=7700, cpu_s=11.9),),
    cpu_stall_us=5_030_000.0,
    memory_stall_us=10_000.0,
    swap_ins=20,
    oom_kills=1,
)


def test_snapshot_of_a_board(tmp_path: Path):
    write(
        tmp_path,
        {
            "proc/stat": STAT,
            "proc/42/stat": PROCESS,
            "proc/pressure/cpu": "some avg10=1.74 avg60=3.32 avg300=3.78 total=38183088\nfull total=5\n",
            "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1903959\n",
            "proc/vmstat": "nr_free_pages 5\npswpin 12\npswpout 13\noom_kill 2\n",
        },
    )
    snapshot = read_load(tmp_path, pids=[42, 43], own_proc=tmp_path / "proc")
    assert replace(snapshot, time_s=0.0) == LoadSnapshot(
        time_s=0.0,
        cpu=CpuTime(
            cores=2, busy_s=pytest.approx(172.59), idle_s=pytest.approx(1191.83), steal_s=pytest.approx(1.06)
        ),
        # Its own time in and out of the kernel, and that of children it has waited for.
        processes=(ProcessTime(pid=42, start_ticks=7700, cpu_s=2.0),),
        cpu_stall_us=38183088.0,
        memory_stall_us=1903959.0,
        swap_ins=12,
        oom_kills=2,
    )


def test_board_that_tells_nothing_has_an_empty_snapshot(tmp_path: Path):
    snapshot = read_load(tmp_path, pids=[42], own_proc=tmp_path / "proc")
    assert snapshot == LoadSnapshot(time_s=snapshot.time_s)


def test_nothing_to_compare_is_absent():
    before, after = LoadSnapshot(time_s=100.0), LoadSnapshot(time_s=102.0)
    assert interference(before, after) == WindowLoad(
        window_s=2.0,
        other_cpu_percent=None,
        steal_percent=None,
        cpu_pressure_percent=None,
        memory_pressure_percent=None,
        swap_ins=None,
    )


def test_interference_of_a_window():
    assert interference(BEFORE, AFTER) == WindowLoad(
        window_s=2.0,
        other_cpu_percent=pytest.approx(6.0),
        steal_percent=pytest.approx(1.0),
        cpu_pressure_percent=pytest.approx(1.5),
        memory_pressure_percent=pytest.approx(0.5),
        swap_ins=3,
    )


def test_busy_ticks_that_disagree_with_measured_idle_time_do_not_count():
    assert AFTER.cpu is not None
    after = replace(AFTER, cpu=replace(AFTER.cpu, busy_s=32.1))
    assert interference(BEFORE, after).other_cpu_percent == pytest.approx(6.0)


def test_busy_ticks_count_where_the_totals_do_not_add_up_to_the_window():
    # The machine stood still for a while: no core's time went on.
    after = replace(AFTER, cpu=CpuTime(cores=4, busy_s=32.02, idle_s=501.0, steal_s=1.0))
    assert interference(BEFORE, after).other_cpu_percent == pytest.approx(6.0)


def test_busy_ticks_count_where_a_core_was_plugged_in():
    after = replace(AFTER, cpu=CpuTime(cores=5, busy_s=32.02, idle_s=507.6, steal_s=1.08))
    assert interference(BEFORE, after).other_cpu_percent == pytest.approx(6.0)


def test_totals_that_step_back_are_no_interference():
    after = replace(
        AFTER,
        cpu=CpuTime(cores=4, busy_s=31.0, idle_s=507.0, steal_s=0.99),
        cpu_stall_us=4_999_990.0,
        swap_ins=0,
    )
    window = interference(BEFORE, after)
    assert (window.other_cpu_percent, window.steal_percent) == (0.0, 0.0)
    assert (window.cpu_pressure_percent, window.swap_ins) == (0.0, 0)


def test_process_that_ended_counts_as_last_seen():
    assert interference(BEFORE, replace(AFTER, processes=())).other_cpu_percent == pytest.approx(101.0)


def test_another_process_with_the_same_id_is_not_ours():
    reused = (ProcessTime(pid=42, start_ticks=9900, cpu_s=0.5),)
    assert interference(BEFORE, replace(AFTER, processes=reused)).other_cpu_percent == pytest.approx(101.0)


def test_window_of_no_length_tells_nothing_of_the_processors():
    assert interference(BEFORE, BEFORE).other_cpu_percent is None


def test_own_processes_are_not_looked_up_below_the_root_of_a_host(tmp_path: Path):
    """A container that looks at its host's files knows its processes by other numbers than the host."""
    write(tmp_path, {f"proc/{os.getpid()}/stat": PROCESS})
    (process,) = read_load(tmp_path, pids=[os.getpid()]).processes
    assert process == read_load(pids=[os.getpid()]).processes[0]


def test_process_time_of_this_system_includes_finished_work():
    code = "import sys; sum(range(3_000_000)); print('done', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        processes = read_load(pids=[child.pid, os.getpid()]).processes
    assert [process.pid for process in processes] == [child.pid, os.getpid()]
    assert processes[0].cpu_s > 0
    assert processes[0].start_ticks > processes[1].start_ticks


# --- stretches of one timed part


def window(window_s: float, **seen: float | None) -> WindowLoad:
    values = {
        "other_cpu_percent": 0.0,
        "steal_percent": 0.0,
        "cpu_pressure_percent": 0.0,
        "memory_pressure_percent": 0.0,
        "swap_ins": 0,
    }
    return WindowLoad(window_s=window_s, **(values | seen))


def test_stretches_weigh_by_their_length():
    found = combined(
        [window(9.0, other_cpu_percent=0.0, swap_ins=1), window(3.0, other_cpu_percent=40.0, swap_ins=2)]
    )
    assert found == window(12.0, other_cpu_percent=10.0, swap_ins=3)


def test_one_stretch_is_itself():
    alone = window(5.0, steal_percent=2.5, cpu_pressure_percent=7.0)
    assert combined([alone]) == alone


def test_what_one_stretch_does_not_tell_is_not_told():
    found = combined([window(5.0, steal_percent=None, swap_ins=None), window(5.0)])
    assert (found.steal_percent, found.swap_ins, found.other_cpu_percent) == (None, None, 0.0)
