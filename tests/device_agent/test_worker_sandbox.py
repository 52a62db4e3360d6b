"""What code that has taken over a worker can still do: hostile code as a runtime's, measured by a real agent."""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from agent_harness import Agent, conv_model, lookup_model, running_agent, spec
from edgenas.v1 import benchmark_pb2
from hostile_models import assert_sound, first_record
from sensor_trees import write
from worker_jobs import python_that

from device_agent import sandbox
from device_agent.benchmark import FailureReason
from device_agent.doctor.sandbox import check_sandbox
from device_agent.errors import BenchmarkFailedError
from device_agent.runtimes.confinement import UNCONFINED, Confinement
from device_agent.runtimes.onnx import ONNX
from device_agent.runtimes.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
# The attacks, by name. Each is an expression; the agent is the parent of the process that evaluates it.
ATTACKS = """
import ctypes, fcntl, json, mmap, os, resource, socket, subprocess, tempfile, threading, time

given = json.loads(os.environ["GIVEN"])
agent = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

def open_many():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(4000)])

def start_many():
    threading.stack_size(64 << 20)
    for _ in range(2000):
        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()

def fill():
    for number in range(20):
        with open(os.path.join(tempfile.gettempdir(), str(number)), "wb") as file:
            file.write(bytes(60 << 20))

def spin():
    while True:
        pass

attacks = {
    "listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "connect": lambda: socket.create_connection(("127.0.0.1", given["port"])),
    "connect to a unix socket": lambda: socket.socket(socket.AF_UNIX).connect(given["socket"]),
    "read the key": lambda: open(given["key"]).read(),
    "read the history": lambda: open(given["history"], "rb").read(1),
    "list the models": lambda: os.listdir(given["models"]),
    "read the key from where it stood": lambda: open("../identity/agent.key").read(),
    "read the agent's memory": lambda: open("/proc/%d/mem" % agent, "rb"),
    "read the agent's environment": lambda: open("/proc/%d/environ" % agent).read(),
    "read another's environment": lambda: open("/proc/%d/environ" % given["other"]).read(),
    "read the memory of another": lambda: call("process_vm_readv", given["other"], None, 0, None, 0, 0),
    "trace": lambda: call("ptrace", 0x4206, given["other"], None, None),
    "write": lambda: open(given["outside"], "w"),
    "read the disk": lambda: open(given["disk"], "rb").read(1),
    "fork": lambda: os._exit(0) if os.fork() == 0 else None,
    "start a program": lambda: subprocess.run(["/bin/true"]),
    "become a program": lambda: call("execve", b"/none", None, None),
    "signal": lambda: os.kill(agent, 0),
    "signal by a pipe": lambda: fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, agent),
    "limit the agent": lambda: resource.prlimit(agent, resource.RLIMIT_NOFILE),
    "slow the agent down": lambda: os.setpriority(os.PRIO_PROCESS, agent, os.getpriority(os.PRIO_PROCESS, agent)),
    "gain capabilities": lambda: call("unshare", 0x10000000),
    "hide memory": lambda: os.memfd_create("x"),
    "share memory": lambda: call("shmget", 0, 4096, 0o1600),
    "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
    "escape the killer": lambda: open("/proc/self/oom_score_adj", "w").write("500"),
    "open many files": open_many,
    "start many threads": start_many,
    "take addresses": lambda: mmap.mmap(-1, 1 << 44, flags=mmap.MAP_SHARED | 0x4000),
    "fill the disk": fill,
    "spin": spin,
    "abort": os.abort,
    "keep a file": lambda: tempfile.TemporaryFile().write(b"kept"),
}

def outcome(name):
    try:
        return "did it: %r" % (attacks[name](),)
    except (OSError, RuntimeError, ValueError) as error:
        return "%s: %s" % (type(error).__name__, getattr(error, "strerror", None) or error)
"""
RUNTIME = f"""
from __main__ import RUNTIMES, JobError, Runtime
{ATTACKS}

class Hostile(Runtime):
    library = version = "hostile"

    def providers(self):
        return ["cpu"]

    def runs_on_its_threads_alone(self, job):
        return True

    def load(self, path, job):
        raise JobError("invalid_model", outcome(open(path).read()))

RUNTIMES["hostile"] = Hostile
"""
ROW = """
from pathlib import Path

from device_agent.benchmark import ModelFormat
from device_agent.runtimes.base import Runtime

HOSTILE = Runtime(
    name="hostile",
    format=ModelFormat.TORCHSCRIPT,
    package="json",
    remedy="",
    inspect=lambda path, spec: None,
    providers={"cpu": "cpu"},
    worker_file=Path(__file__).with_name("hostile_worker.py"),
)
"""

GONE, DENIED = "FileNotFoundError: No such file or directory", "PermissionError: Operation not permitted"
CLOSED = "PermissionError: Permission denied"
DEFENCES = {
    "listen": DENIED,
    "connect": DENIED,
    "connect to a unix socket": DENIED,
    "read the key": GONE,
    "read the history": GONE,
    "list the models": GONE,
    "read the key from where it stood": GONE,
    "read the agent's memory": GONE,
    "read the agent's environment": GONE,
    "read another's environment": CLOSED,
    "read the memory of another": DENIED,
    "trace": DENIED,
    "write": "OSError: Read-only file system",
    "read the disk": CLOSED,
    "fork": DENIED,
    "start a program": DENIED,
    "become a program": DENIED,
    "signal": DENIED,
    "signal by a pipe": DENIED,
    "limit the agent": DENIED,
    "slow the agent down": DENIED,
    "gain capabilities": DENIED,
    "hide memory": DENIED,
    "share memory": DENIED,
    "raise a limit": "ValueError: not allowed to raise maximum limit",
    "escape the killer": "OSError: Read-only file system",
    "open many files": "OSError: Too many open files",
    "start many threads": "RuntimeError: can't start new thread",
    "take addresses": "OSError: Cannot allocate memory",
    "fill the disk": "OSError: No space left on device",
}
# Sleeps, and allows whoever may by the kernel's own rules to look into it, which some distributions restrict.
OTHER = (
    "import ctypes, time; ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0); time.sleep(600)"
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An agent with a runtime whose models name attacks, and what they are aimed at."""

    agent: Agent
    folder: Path
    earlier: bytes

    def attack(self, name: str) -> benchmark_pb2.BenchmarkFailure:
        return self.agent.fail(self.agent.upload(name.encode()), spec(runtime="hostile"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    missing = UNCONFINED.missing(sys.executable, os.environ)
    if missing:
        pytest.skip(f"this machine has no whole sandbox: {missing}")
    folder = tmp_path_factory.mktemp("scene")
    state, site = folder / "state", folder / "site"
    (site / "hostile-1.0.dist-info").mkdir(parents=True)
    (site / "hostile-1.0.dist-info/METADATA").write_text("Name: hostile\nVersion: 1.0\n")
    (site / "hostile-1.0.dist-info/entry_points.txt").write_text(
        "[edgenas.runtimes]\nhostile = hostile:HOSTILE\n"
    )
    (site / "hostile.py").write_text(ROW)
    (site / "hostile_worker.py").write_text(RUNTIME)
    for name in ("identity", "models"):
        (state / name).mkdir(parents=True)
    (state / "identity/agent.key").write_text("secret")
    disks = [Path("/dev", path.name) for path in Path("/sys/class/block").iterdir()]
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as local,
        subprocess.Popen([sys.executable, "-c", OTHER]) as other,
        contextlib.ExitStack() as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        stack.callback(other.kill)
        local.bind(str(folder / "socket"))
        local.listen()
        given = {
            "port": server.getsockname()[1],
            "socket": str(folder / "socket"),
            "key": str(state / "identity/agent.key"),
            "history": str(state / "history.sqlite"),
            "models": str(state / "models"),
            "other": other.pid,
            "outside": str(folder / "outside"),
            "disk": next((str(path) for path in disks if os.access(path, os.R_OK)), None),
        }
        patch.setenv("GIVEN", json.dumps(given))
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (site, ROOT, ROOT / "protos"))))
        # The agent stands where its secrets are.
        with running_agent(
            state, "--require-sandbox", prefix=["env", f"--chdir={state / 'models'}"]
        ) as agent:
            yield Scene(agent=agent, folder=folder, earlier=first_record(agent))


@pytest.mark.parametrize("name", DEFENCES)
def test_worker_keeps_the_model_from(scene: Scene, name: str):
    if name == "read the disk" and json.loads(os.environ["GIVEN"])["disk"] is None:
        pytest.skip("this user can read no disk anyway")
    failure = scene.attack(name)
    assert failure.message == DEFENCES[name]
    # The same attack by the same user in a process like any other does what it is meant to.
    program = f"{ATTACKS}\nprint(outcome({name!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=scene.agent.state_dir / "models"
    )
    assert done.stdout.strip() != DEFENCES[name]
    assert not done.stderr
    (scene.folder / "outside").unlink(missing_ok=True)


def test_agent_is_sound_behind_the_attacks(scene: Scene):
    for name in DEFENCES:
        scene.attack(name)
    assert_sound(scene.agent, scene.earlier)


def test_worker_can_write_temporary_files(scene: Scene):
    assert scene.attack("keep a file").message == "did it: 4"


def test_abort_of_a_model_is_told_as_one(scene: Scene):
    failure = scene.attack("abort")
    assert failure.reason == benchmark_pb2.FAILURE_REASON_WORKER_DIED
    assert "was killed by SIGABRT" in failure.message


def test_model_that_takes_more_processor_time_than_its_job_has_is_ended(scene: Scene):
    model = scene.folder / "spin"
    model.write_text("spin")
    row = replace(ONNX, name="hostile", worker_file=scene.folder / "site/hostile_worker.py")
    worker = WorkerProcess(sys.executable, row, UNCONFINED)
    # The margin is 10 s.
    job = {
        "model_path": str(model),
        "threads": 1,
        "cpu_affinity": [],
        "time_left_s": -9,
        "memory_limit_bytes": None,
    }
    try:
        worker.greet()
        worker.begin(job, deadline_s=time.monotonic() + 60, limit_s=60)
        with pytest.raises(
            BenchmarkFailedError, match="took more processor time than its threads have"
        ) as caught:
            worker.expect("settled", lambda phase, detail="": None)
    finally:
        worker.close()
    assert caught.value.reason is FailureReason.TIMED_OUT


# The filter as the kernel reads it.

EPERM, ENOSYS = 1, 38


def verdict(code: bytes, machine: int, number: int, *arguments: int) -> int | None:
    """Return the error that a filter answers a system call with, from seccomp(2); None where it is let through."""
    data = struct.pack("=IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    tests = {0x15: int.__eq__, 0x35: int.__ge__, 0x45: int.__and__}
    place, loaded = 0, 0
    while True:
        kind, if_true, if_false, value = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        if kind == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif kind == 0x06:
            assert value & 0xFFFF0000 in (0x7FFF0000, 0x00050000)
            return None if value == 0x7FFF0000 else value & 0xFFFF
        else:
            place += if_true if tests[kind](loaded, value) else if_false


@pytest.mark.parametrize(
    ("machine", "calls"),
    [
        (
            "x86_64",
            {
                "futex": 202,
                "openat": 257,
                "socket": 41,
                "execve": 59,
                "clone": 56,
                "tgkill": 234,
                "fcntl": 72,
            },
        ),
        (
            "aarch64",
            {
                "futex": 98,
                "openat": 56,
                "socket": 198,
                "execve": 221,
                "clone": 220,
                "tgkill": 131,
                "fcntl": 25,
            },
        ),
    ],
)
def test_filter_goes_by_the_numbers_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, calls: dict[str, int]
):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    code = sandbox.filter_code(42, accelerated=False)
    own = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]

    def answer(name: str, *arguments: int) -> int | None:
        return verdict(code, own, calls[name], *arguments)

    assert answer("futex") is None
    assert answer("openat") is None
    assert answer("socket") == EPERM
    assert answer("execve") == EPERM
    # As fork() asks, and as a new thread does.
    assert answer("clone", 0x01200011) == EPERM
    assert answer("clone", 0x003D0F00) is None
    assert answer("tgkill", 42) is None
    assert answer("tgkill", 43) == EPERM
    assert answer("fcntl", 0, 1) is None
    assert answer("fcntl", 0, 8) == EPERM
    # clone3, of which libraries fall back to clone, and a call of the x32 interface.
    assert verdict(code, own, 435) == ENOSYS
    assert verdict(code, own, 0x40000000 + 41) == ENOSYS
    assert verdict(code, 0x40000003, 11) == EPERM


# Where a layer is not to be had.

NO_USER_NAMESPACES = [
    "unshare",
    "-Ur",
    "sh",
    "-c",
    'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"',
    "sh",
]
NO_SPACE = "(unshare: No space left on device)"
NO_LIST = "a filter of system calls (there is no list of system calls for a 64-bit riscv64)"
# The kernel is asked by this name alone.
RISCV = "import os, types; os.uname = lambda: types.SimpleNamespace(machine='riscv64')"


def serve(state_dir: Path, *options: str, prefix: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "device_agent", "serve", "--address", "127.0.0.1:0"]
    command += ["--state-dir", str(state_dir), "--require-sandbox", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_agent_that_must_have_a_sandbox_does_not_start_without_namespaces(tmp_path: Path):
    done = serve(tmp_path / "state", prefix=NO_USER_NAMESPACES)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"edgenas-agent: --require-sandbox: a model under '{sys.executable}' would run without a network of its own "
        f"{NO_SPACE}, a read-only view of the files {NO_SPACE}; `edgenas-agent doctor` tells what to do\n"
    )


def test_agent_that_must_have_a_sandbox_does_not_start_without_a_filter(tmp_path: Path):
    done = serve(tmp_path / "state", "--worker-python", python_that(tmp_path, RISCV), prefix=[])
    assert done.returncode == 2
    assert f"would run without {NO_LIST};" in done.stderr


def test_bench_that_must_have_a_sandbox_does_not_run_without(tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(conv_model())
    command = [sys.executable, "-m", "device_agent", "bench", str(model), "--require-sandbox"]
    command += ["--state-dir", str(tmp_path / "state"), "--worker-python", python_that(tmp_path, RISCV)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert NO_LIST in done.stderr


def test_agent_without_namespaces_measures_and_tells_once_what_is_missing(tmp_path: Path):
    with running_agent(tmp_path, prefix=NO_USER_NAMESPACES) as agent:
        for model in (conv_model(), lookup_model()):
            assert agent.measure(agent.upload(model)).measurement.latency.samples >= 64
    log = (tmp_path / "stderr.log").read_text()
    assert log.count("models run without a network of its own") == 1


# Under a unit of systemd in a container of systemd-nspawn, /run/host/os-release is such a place.
COVERED = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/covered" "$1/covered/place"
mount -t tmpfs tmpfs "$1/covered/place"
mount -t tmpfs tmpfs "$1/covered"
mkdir "$1/covered/place"
mount -t tmpfs -o ro,nodev,noexec tmpfs "$1/covered/place"
shift
exec "$@"
"""


def test_mounts_that_lie_over_others_leave_the_view_whole(tmp_path: Path):
    mounts, temporary = tmp_path / "mounts", tmp_path / "temporary"
    mounts.mkdir()
    temporary.mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", COVERED, "sh", str(mounts)]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine makes no namespaces")
    worker = UNCONFINED.command(sys.executable, None)
    variables = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([*command, *worker], capture_output=True, text=True, timeout=60, env=variables)
    assert json.loads(done.stdout)["missing"] == {}


def test_worker_whose_python_stands_in_the_hidden_folder_keeps_its_view(tmp_path: Path):
    missing = Confinement(hidden=(Path(sys.prefix),)).missing(sys.executable, os.environ)
    assert list(missing) == ["a read-only view of the files"]
    assert (
        f"would be hidden with '{sys.prefix}'; keep it elsewhere" in missing["a read-only view of the files"]
    )


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        ({"proc/sys/user/max_user_namespaces": "0"}, "sudo sysctl user.max_user_namespaces=15000"),
        (
            {"proc/sys/kernel/unprivileged_userns_clone": "0"},
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
        (
            {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "an AppArmor profile with `userns,`",
        ),
        ({".dockerenv": ""}, "--security-opt seccomp=unconfined"),
        ({}, "until then measure only models that you trust"),
    ],
)
def test_doctor_tells_what_stands_in_the_way_of_the_sandbox(
    tmp_path: Path, files: dict[str, str], remedy: str
):
    write(tmp_path, files)
    check = check_sandbox(tmp_path, {"a network of its own": "unshare: Operation not permitted"})
    assert check.finding == "models run without a network of its own (unshare: Operation not permitted)"
    assert remedy in check.remedy
