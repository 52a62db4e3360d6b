"""What a hostile model cannot reach from its worker: files, the disk, the board's time and memory."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_models as hm
import psutil
import pytest
from agent_harness import Agent, conv_model, running_agent, spec, until
from edgenas.v1 import benchmark_pb2
from hostile_models import assert_sound, bounded_agent, first_record, upload

from device_agent import worker


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with bounded_agent(tmp_path_factory.mktemp("bounded")) as running:
        yield running


def hung_model(*, constant: bool = False) -> bytes:
    return hm.loop(hm.node("Relu", ["before"], ["after"]), constant=constant)


def test_worker_can_fill_no_disk(bounded: Agent):
    hung = bounded.watch(upload(bounded, hung_model()), request_id="at-work")
    until(hung, "progress")
    (process,) = bounded.workers()
    assert process.rlimit(psutil.RLIMIT_FSIZE)[0] == 64 << 20
    assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
    assert bounded.cancel("at-work")


def test_print_beyond_the_file_limit_is_lost_and_harmless(tmp_path: Path):
    program = """
import os, sys
from device_agent import worker
worker.limit_files(1 << 20)
lost = False
for _ in range(64):
    try:
        os.write(1, bytes(1 << 15))
    except OSError as error:
        lost = True
print("lost" if lost else "kept", file=sys.stderr)
"""
    path = tmp_path / "printed"
    with path.open("wb") as printed:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=printed, stderr=subprocess.PIPE, text=True, check=True
        )
    assert done.stderr == "lost\n"
    assert path.stat().st_size == 1 << 20


def test_measuring_leaves_no_file_behind(tmp_path: Path):
    """Not even those of ONNX Runtime's own reports to its maker."""
    folders = {name: tmp_path / name for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME")}
    for folder in folders.values():
        folder.mkdir()
    prefix = ["env", *(f"{name}={folder}" for name, folder in folders.items())]
    with running_agent(tmp_path / "state", prefix=prefix) as agent:
        wanted = spec()
        wanted.profile = True
        model = agent.upload(conv_model())
        assert agent.measure(model, wanted).measurement.operators
        agent.fail(upload(agent, hm.deep_tree(100_000)))
        # One that is ended while its profile is written cannot tidy up itself.
        profiled = agent.watch(model, wanted, request_id="profiled")
        while until(profiled, "progress").progress.phase != benchmark_pb2.BENCHMARK_PHASE_PROFILE:
            pass
        assert agent.cancel("profiled")
        until(profiled, "failure")
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []


# Models that reach for files.


class Watch:
    """Tells whether any process has opened a file, from inotify(7)."""

    ACCESS, OPEN = 0x1, 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK)
        if libc.inotify_add_watch(self.descriptor, os.fsencode(path), self.ACCESS | self.OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")

    def opened(self) -> bool:
        try:
            return bool(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def outside(bounded: Agent) -> Iterator[Path]:
    """A file beside the agent's folder of models, of the size that the hostile models expect."""
    path = bounded.state_dir / "outside.bin"
    path.write_bytes(bytes(16))
    yield path
    path.unlink()


@pytest.mark.parametrize("build", [hm.external_initializer, hm.external_constant, hm.external_in_branch])
@pytest.mark.parametrize("location", ["{path}", "../outside.bin", "../../{folder}/outside.bin"])
def test_external_data_is_refused_and_its_file_never_opened(
    bounded: Agent, outside: Path, build: Callable[[str], bytes], location: str
):
    watch = Watch(outside)
    place = location.format(path=outside, folder=bounded.state_dir.name)
    failure = bounded.fail(upload(bounded, build(place)))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_EXTERNAL_DATA
    assert f"keeps its values in the file '{place}'" in failure.message
    assert not watch.opened()
    # The watch can tell, and the runtime itself would have opened it.
    outside.read_bytes()
    assert watch.opened()


@pytest.mark.slow
def test_torchscript_that_reads_a_file_is_refused_before_it_does(bounded: Agent, outside: Path):
    watch = Watch(outside)
    sha256 = upload(bounded, hm.script(hm.Reading(str(outside))), "torchscript")
    failure = bounded.fail(sha256, spec(runtime="torchscript", x=[1, 4]))
    assert failure.reason == benchmark_pb2.FAILURE_REASON_EXTERNAL_DATA
    assert "the code of the model names 'from_file'" in failure.message
    assert not watch.opened()


@pytest.mark.parametrize(
    "code",
    [
        'torch.from_file("/etc/passwd", False, 4)',
        'torch . \\\n from_file("/etc/passwd", False, 4)',
        '("/etc/passwd").from_file(False, 4)',
        'ops.aten.save(x, "/tmp/x")',
        "__torch__.torch.classes.dist_c10d.FileStore",
    ],
)
def test_code_that_names_what_opens_files_is_refused(tmp_path: Path, code: str):
    path = tmp_path / "model.pt"
    path.write_bytes(hm.computing(code))
    with pytest.raises(worker.JobError, match="opens files or sockets") as caught:
        worker.refuse_file_access(str(path))
    assert caught.value.kind == "external_data"


def test_code_of_the_format_that_stands_anywhere_is_refused(tmp_path: Path):
    path = tmp_path / "model.pt"
    path.write_bytes(hm.script(hm.Plain()))
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("archive/model.json", "{}")
    with pytest.raises(worker.JobError, match="the format of before PyTorch"):
        worker.refuse_file_access(str(path))


@pytest.mark.parametrize("code", ["torch.add(x, 1)", "__torch__.save.Network.forward(x)", "self.saved + x"])
def test_code_that_only_resembles_is_let_through(tmp_path: Path, code: str):
    path = tmp_path / "model.pt"
    path.write_bytes(hm.computing(code))
    worker.refuse_file_access(str(path))


# Models that never return.


@pytest.mark.parametrize("constant", [False, True], ids=["in the first inference", "while it loads"])
def test_cancel_ends_a_hung_model_at_once(bounded: Agent, constant: bool):
    running = bounded.watch(upload(bounded, hung_model(constant=constant)), request_id=f"hung-{constant}")
    until(running, "progress")
    before = time.monotonic()
    assert bounded.cancel(f"hung-{constant}")
    assert until(running, "failure").failure.reason == benchmark_pb2.FAILURE_REASON_CANCELLED
    # The agent's own limit is minutes away.
    assert time.monotonic() - before < 10


def test_agents_own_limit_ends_a_hung_model(tmp_path: Path):
    with bounded_agent(tmp_path, "--job-timeout-s", "1") as agent:
        hung = upload(agent, hung_model())
        wanted = spec()
        wanted.time_limit_s = 600
        waiting = agent.watch(hung, wanted), agent.watch(hung)
        for events in waiting:
            failure = until(events, "failure").failure
            assert failure.reason == benchmark_pb2.FAILURE_REASON_TIMED_OUT
            assert "longer than its time limit of 1 s" in failure.message


# A lack of memory that is not the model's alone.

CGROUP_BYTES = 600 << 20
# Takes more and more of its cgroup's memory, as any neighbour may, until a process is gone or it has what the
# cgroup holds. The kernel ends the largest process, which is to be the other one.
NEIGHBOUR = """
import pathlib, sys
pathlib.Path("/proc", sys.argv[2], "oom_score_adj").write_text("1000")
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
status, taken = pathlib.Path("/proc", sys.argv[2], "stat"), []
for _ in range(int(sys.argv[3]) >> 22):
    if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
        sys.exit()
    taken.append(bytearray(b"x" * (4 << 20)))
sys.exit("the process outlived all memory")
"""


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 600 MB, below the one of this process."""
    own = {
        controllers: path
        for _, controllers, path in (
            line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
        )
    }
    base, limit = Path("/sys/fs/cgroup"), "memory.max"
    if "memory" in own:
        base, limit = base / "memory", "memory.limit_in_bytes"
    folder = base / own.get("memory", own.get("", "/")).lstrip("/") / f"edgenas-{uuid.uuid4()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        (folder / limit).write_text(str(CGROUP_BYTES))
    except OSError as error:
        folder.rmdir()
        pytest.skip(f"no cgroup here limits memory: {error.strerror}")
    yield folder
    folder.rmdir()


def agent_within(cgroup: Path, state_dir: Path) -> contextlib.AbstractContextManager[Agent]:
    prefix = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup)]
    return running_agent(state_dir, prefix=prefix)


@pytest.mark.slow
def test_model_is_bounded_by_what_the_agents_cgroup_has_left(tmp_path: Path, small_cgroup: Path):
    with agent_within(small_cgroup, tmp_path) as agent:
        earlier = first_record(agent)
        failure = agent.fail(upload(agent, hm.loop(hm.doubling_step(), size=None)))
        assert failure.reason == benchmark_pb2.FAILURE_REASON_OUT_OF_MEMORY
        assert "measure a smaller model or batch" in failure.message
        assert_sound(agent, earlier)


@pytest.mark.slow
def test_worker_that_the_kernel_ends_for_want_of_memory_is_told_so(tmp_path: Path, small_cgroup: Path):
    with agent_within(small_cgroup, tmp_path) as agent:
        earlier = first_record(agent)
        hung = agent.watch(upload(agent, hung_model()))
        until(hung, "progress")
        (worker_process,) = agent.workers()
        command = [sys.executable, "-c", NEIGHBOUR, small_cgroup, str(worker_process.pid), str(CGROUP_BYTES)]
        # Where it takes more before what the worker held is free again, the kernel ends the neighbour behind the worker.
        assert subprocess.run(command).returncode in (0, -signal.SIGKILL)
        failure = until(hung, "failure").failure
        assert failure.reason == benchmark_pb2.FAILURE_REASON_OUT_OF_MEMORY
        assert "was killed by SIGKILL as the kernel ran out of memory" in failure.message
        assert_sound(agent, earlier)
