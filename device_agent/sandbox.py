"""Takes from a worker what a model has no use for: the network, files, other processes, and the board's resources.

A model may be hostile, and a runtime that parses it may have a hole. `Sandbox` is entered at the worker's start, while
the process has one thread, and sealed once the runtime is imported and before the model is touched. It takes no second
process: the worker that the agent started is the one that is measured. Like `worker.py`, which loads this file, it is
self-contained and in Python 3.6 syntax.

Whatever a kernel, a container or a policy refuses is left out, and told in `missing`; the other layers still hold.

Source: unshare(2), user_namespaces(7), mount_namespaces(7), seccomp(2), capabilities(7), setrlimit(2). Numbers of system
calls from Linux: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

import ctypes
import errno
import glob
import os
import struct
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

# The layers, as a person reads them behind "without".
NETWORK = "a network of its own"
VIEW = "a read-only view of the files"
PRIVILEGES = "dropped privileges"
CALLS = "a filter of system calls"
LAYERS = (NETWORK, VIEW, PRIVILEGES, CALLS)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET, CLONE_THREAD = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x40000000,
    0x00010000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)

# What the kernel gives everyone, and what makes a processor of graphics or of networks. No other device can be opened:
# a read-only view does not keep root, even without capabilities, from writing to a disk's or rebooting by a watchdog's.
DEVICES = (
    "/dev/null /dev/zero /dev/full /dev/random /dev/urandom "
    "/dev/nvidia* /dev/nvidia-caps/* /dev/nvhost* /dev/nvmap /dev/nvgpu/*/* /dev/nvsci* /dev/host1x* /dev/dri/* /dev/kfd "
    "/dev/dxg /dev/mali* /dev/kgsl* /dev/ion /dev/dma_heap/* /dev/adsprpc* /dev/fastrpc* /dev/accel/* /dev/apex_* "
    "/dev/hailo* /dev/galcore /dev/rknpu*"
).split()
# Where others keep their keys. Beside the agent's own folder, since an agent may run as root, or as its developer.
SECRETS = (
    "/etc/shadow /etc/gshadow /etc/ssh /etc/ssl/private /run/secrets /run/credentials ~/.ssh ~/.gnupg ~/.aws ~/.azure "
    "~/.config/gcloud ~/.docker ~/.kube ~/.netrc ~/.git-credentials ~/.pypirc ~/.edgenas"
).split()
# The folder for temporary files is in memory: it is gone with the worker, and cannot fill the disk. A profile may take
# as much as one file of `worker.py` may.
TEMPORARY_BYTES = 512 << 20

# Heaps of threads, and what else is reserved and never touched.
ADDRESS_MARGIN_BYTES = 8 << 30
CPU_MARGIN_S = 10
# Where a job has no end.
CPU_LIMIT_S = 1e9
OPEN_FILES = 1024
# The kernel counts all threads of the user, on newer kernels all within the namespace: beyond all that the board has.
FURTHER_THREADS = 512

# By machine: how seccomp names it, and the column of the tables below.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
SECCOMP = (317, 277)
# In every inference with threads, so that on kernels without a cache of verdicts (before 5.11) they do not go through
# the whole list: futex, sched_yield, read, write, mmap, munmap, mprotect, madvise.
FREQUENT = ((202, 98), (24, 124), (0, 63), (1, 64), (9, 222), (11, 215), (10, 226), (28, 233))
# The first of those that Linux 5.1 and later have added, on all machines alike: io_uring, the new mounts, pidfd, clone3.
# They are answered as an older kernel would, for which every library has another way, clone instead of clone3 for one.
RECENT = 424
DENIED = (
    # socket, socketpair, connect, bind, listen, accept, accept4, sendto, sendmsg, sendmmsg
    *(
        (41, 198),
        (53, 199),
        (42, 203),
        (49, 200),
        (50, 201),
        (43, 202),
        (288, 242),
        (44, 206),
        (46, 211),
        (307, 269),
    ),
    # execve, execveat, fork, vfork (which arm64 has not)
    *((59, 221), (322, 281), (57, None), (58, None)),
    # ptrace, process_vm_readv, process_vm_writev, kcmp
    *((101, 117), (310, 270), (311, 271), (312, 272)),
    # mount, umount2, pivot_root, chroot, unshare, setns, open_by_handle_at
    *((165, 40), (166, 39), (155, 41), (161, 51), (272, 97), (308, 268), (304, 265)),
    # bpf, perf_event_open, add_key, request_key, keyctl, userfaultfd, personality
    *((321, 280), (298, 241), (248, 217), (249, 218), (250, 219), (323, 282), (135, 92)),
    # kexec_load, kexec_file_load, init_module, finit_module, delete_module
    *((246, 104), (320, 294), (175, 105), (313, 273), (176, 106)),
    # setpriority, ioprio_set, sched_setparam, sched_setscheduler, sched_setattr: of the agent, whose user is the same
    *((141, 140), (251, 30), (142, 118), (144, 119), (314, 274)),
    # shmget, semget, msgget, mq_open: memory that no limit counts
    *((29, 194), (64, 190), (68, 186), (240, 180)),
)
# The same, but a driver of a GPU may need it: memfd_create.
DENIED_BESIDE_ACCELERATORS = ((319, 279),)
# Allowed on oneself, whose id is the first argument: kill, tkill, tgkill (by which abort ends a process),
# rt_sigqueueinfo, rt_tgsigqueueinfo.
SIGNALS = ((62, 129), (200, 130), (234, 131), (129, 138), (297, 240))
PRLIMIT, CLONE, FCNTL = (302, 261), (56, 220), (72, 25)
# By these a process has the kernel send any signal to any other of its user: F_SETOWN, F_SETSIG, F_SETOWN_EX.
FCNTL_DENIED = (8, 10, 15)


class Sandbox:
    """The worker's own confinement, entered when it is made.

    Attributes:
        missing: Layers that could not be had, each with the reason.
    """

    def __init__(self, hidden: Sequence[str], needed: Sequence[str], temporary: str) -> None:
        """Enter: single-threaded, before anything is imported that brings threads.

        Args:
            hidden: Folders of which nothing is to be seen but the model; those that do not exist are passed over.
            needed: What is there and must stay readable.
            temporary: The worker's own folder for temporary files; what is in it is no longer seen.
        """
        self.missing: Dict[str, str] = {}
        self._temporary = os.path.realpath(temporary)
        # The hidden folders from below what hides them, until the model is known.
        self._beneath: List[Tuple[str, int]] = []
        if self._have((NETWORK, VIEW), lambda: isolate(needed)):
            self._have((VIEW,), lambda: self._hide(hidden, needed))
        self._have((PRIVILEGES,), drop_privileges)
        self._have((CALLS,), filter_flags)

    def _have(self, layers: Sequence[str], build: Callable[[], object]) -> bool:
        try:
            build()
        except AttributeError as error:
            # Off Linux, where the C library has no such function.
            reason = str(error)
        except OSError as error:
            reason = "{}: {}".format(error.filename, error.strerror) if error.filename else str(error)
        else:
            return True
        self.missing.update((layer, reason) for layer in layers)
        return False

    def _hide(self, hidden: Sequence[str], needed: Sequence[str]) -> None:
        """Make a read-only view of the files in which only the folder for temporary ones can be written.

        Raises:
            OSError: If the kernel does not allow it, or what is needed lies in a folder to hide.
        """
        working = os.getcwd()
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        folders = [os.path.realpath(folder) for folder in hidden if os.path.isdir(folder)]
        for folder in folders:
            for path in needed:
                if is_below(path, folder):
                    raise OSError("'{}' would be hidden with '{}'; keep it elsewhere".format(path, folder))
            self._beneath.append((folder, os.open(folder, os.O_PATH | os.O_DIRECTORY)))
        devices = {os.path.realpath(path) for pattern in DEVICES for path in glob.glob(pattern)}
        devices = {path for path in devices if not os.path.isdir(path)}
        for path in devices:
            mount(path, path, None, MS_BIND)
        secrets = [os.path.realpath(os.path.expanduser(path)) for path in SECRETS]
        secrets = [path for path in secrets if not any(is_below(one, path) for one in needed)]
        # The agent's own folder last, as it may hold one of the others.
        for path in secrets + ["/proc/{}".format(os.getppid())] + folders:
            if os.path.isdir(path):
                mount("tmpfs", path, "tmpfs", 0, "size=4k,mode=755")
            elif os.path.exists(path):
                # Bound again below, without devices: there it cannot even be opened.
                mount("/dev/null", path, None, MS_BIND)
        os.makedirs(self._temporary, exist_ok=True)
        mount("tmpfs", self._temporary, "tmpfs", 0, "size={},mode=700".format(TEMPORARY_BYTES))
        # By this file the worker sets its own peak of memory to zero.
        marks = "/proc/{}/clear_refs".format(os.getpid())
        mount(marks, marks, None, MS_BIND)
        for point, number, options in mounts():
            # What another mount lies over, as systemd's and containers' do, is out of reach, and its options are not those
            # of what is seen there, which a namespace's own users may not loosen.
            if mounted_at(point) not in (number, None):
                continue
            flags = MS_REMOUNT | MS_BIND | MS_NOSUID
            flags |= MS_NOEXEC if "noexec" in options else 0
            flags |= MS_RDONLY if "ro" in options or point not in (self._temporary, marks) else 0
            flags |= MS_NODEV if "nodev" in options or point not in devices else 0
            try:
                mount(None, point, None, flags)
            except OSError as error:
                # Below what hides it, or closed to this user: the model cannot get there either.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EINVAL):
                    raise
        # A folder is left by its path alone: the worker may stand in one that is hidden now.
        try:
            os.chdir(working)
        except OSError:
            os.chdir("/")

    def reveal(self, path: str) -> str:
        """Return by what path the model can be opened from now on; nothing else of the hidden folders ever can.

        Raises:
            OSError: If it cannot be opened.
        """
        for folder, descriptor in self._beneath:
            if is_below(path, folder):
                below = os.path.relpath(os.path.realpath(os.path.dirname(path)), folder)
                name = os.path.basename(path)
                model = os.open(os.path.join(below, name), os.O_RDONLY, dir_fd=descriptor)
                # A name of its own, as some runtimes go by its ending.
                path = os.path.join(self._temporary, name)
                os.symlink("/proc/self/fd/{}".format(model), path)
        for _, descriptor in self._beneath:
            os.close(descriptor)
        self._beneath = []
        return path

    def seal(self, memory_bytes: Optional[int], cpu_s: float, *, accelerated: bool) -> None:
        """Set the limits and the filter: in all threads, and for good.

        Args:
            memory_bytes: What the model may have beyond what is mapped now; None for no limit.
            cpu_s: Processor time that the job may take from now on, in seconds.
            accelerated: Whether more than the threads of the job runs the model. The driver of a GPU reserves
                hundreds of gigabytes of addresses, and shares memory by descriptors.

        Raises:
            OSError: If the filter cannot be set, which was there when the sandbox was entered.
        """
        limit_resources(None if accelerated else memory_bytes, cpu_s)
        if CALLS not in self.missing:
            set_filter(accelerated)


def is_below(path: str, folder: str) -> bool:
    """Tell whether a path is a folder, which has no symbolic links in it, or leads into it."""
    return (os.path.realpath(os.path.dirname(path)) + os.sep).startswith(folder + os.sep) or path == folder


def call(name: str, *arguments: object, told: str = "") -> int:
    """Call the C library and return what it returns.

    Raises:
        OSError: If that is negative, with the function and `told` for its file.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(getattr(libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), " ".join((name, told)).strip())
    return result


def mount(source: Optional[str], target: str, kind: Optional[str], flags: int, options: str = "") -> None:
    """Mount, bind or remount a folder or a file."""
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    call("mount", *names, ctypes.c_ulong(flags), os.fsencode(options), told=target)


def mounts() -> List[Tuple[str, int, List[str]]]:
    """Return where something is mounted, its number, and with which options; a place may come several times."""
    with open("/proc/self/mountinfo", "rb") as lines:
        rows = [line.split() for line in lines]
    # Blanks and the like are written as \040.
    points = [row[4].decode("unicode_escape").encode("latin-1") for row in rows]
    return [(os.fsdecode(point), int(row[0]), row[5].decode().split(",")) for point, row in zip(points, rows)]


def mounted_at(path: str) -> Optional[int]:
    """Return the number of the mount that is seen at a path; None where that cannot be told."""
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        with open("/proc/self/fdinfo/{}".format(descriptor)) as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("mnt_id:")), None)
    finally:
        os.close(descriptor)


def isolate(needed: Sequence[str]) -> None:
    """Move into namespaces of users, mounts, network, IPC and names, as the same user.

    Raises:
        OSError: If the kernel does not allow it, or root could then not read what is needed.
    """
    if os.geteuid() == 0:
        check_readable(needed)
    user, group = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", "{0} {0} 1".format(user)),
        ("gid_map", "{0} {0} 1".format(group)),
    ):
        with open("/proc/self/" + file, "w") as opened:
            opened.write(text)


def check_readable(needed: Sequence[str]) -> None:
    """Make sure that root, whose capabilities are about to go, can read what another user's home may hold.

    Raises:
        OSError: If it could not.
    """
    capabilities = get_capabilities()
    set_capabilities([(0, permitted, inherited) for _, permitted, inherited in capabilities])
    try:
        closed = [path for path in needed if not os.access(path, os.R_OK, effective_ids=True)]
    finally:
        set_capabilities(capabilities)
    if closed:
        raise OSError(
            "'{}' is closed to root without capabilities; run the agent as its owner".format(closed[0])
        )


CAPABILITY_VERSION = 0x20080522


def get_capabilities() -> List[Tuple[int, ...]]:
    """Return effective, permitted and inheritable capabilities, each in two words, low bits first."""
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    call("capget", header, data)
    return [tuple(data[0:3]), tuple(data[3:6])]


def set_capabilities(words: Sequence[Tuple[int, ...]]) -> None:
    """Set what `get_capabilities` returns."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * 6)(*(word for triple in words for word in triple)))


def drop_privileges() -> None:
    """Give up all capabilities, and the way to gain any by starting a program.

    Raises:
        OSError: If the kernel does not allow it.
    """
    no_new_privileges, drop_from_bounds, ambient, clear_all = 38, 24, 47, 4
    control(no_new_privileges, 1)
    # Who has no capabilities may not change what bounds them, and needs not.
    if any(effective for effective, _, _ in get_capabilities()):
        with open("/proc/sys/kernel/cap_last_cap") as file:
            last = int(file.read())
        for capability in range(last + 1):
            control(drop_from_bounds, capability)
    control(ambient, clear_all)
    set_capabilities([(0, 0, 0), (0, 0, 0)])


def control(option: int, value: int) -> None:
    """Change the calling thread: prctl(2)."""
    call("prctl", option, *(ctypes.c_ulong(number) for number in (value, 0, 0, 0)), told=str(option))


def limit_resources(memory_bytes: Optional[int], cpu_s: float) -> None:
    """Bound addresses, processor time, open files and threads; without a capability no limit can be raised again."""
    try:
        import resource
    except ImportError:
        # Off Unix.
        return

    def limit(kind: int, value: int, grace: int = 0) -> None:
        _, hard = resource.getrlimit(kind)
        ceiling = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
        resource.setrlimit(kind, (min(value, ceiling), ceiling))

    # Beyond it the kernel says so with SIGXCPU, and a second later ends the process.
    limit(resource.RLIMIT_CPU, int(time.process_time() + min(cpu_s, CPU_LIMIT_S)) + CPU_MARGIN_S, grace=1)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    try:
        with open("/proc/loadavg") as file:
            # "0.20 0.18 0.12 1/80 11206": running and existing threads of the whole board.
            threads = int(file.read().split()[3].split("/")[1])
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except (IOError, OSError):
        return
    limit(resource.RLIMIT_NPROC, threads + FURTHER_THREADS)
    if memory_bytes is not None:
        limit(resource.RLIMIT_AS, mapped + memory_bytes + ADDRESS_MARGIN_BYTES)


def machine() -> Tuple[int, int]:
    """Return how seccomp names this machine, and its column in the tables.

    Raises:
        OSError: If they have none.
    """
    name = os.uname().machine
    if name not in MACHINES or sys.maxsize < 1 << 32:
        raise OSError(
            "there is no list of system calls for a {}-bit {}".format(8 * struct.calcsize("P"), name)
        )
    return MACHINES[name]


def filter_flags() -> int:
    """Return the flags with which this kernel takes a filter for all threads.

    Raises:
        OSError: If it takes none.
    """
    all_threads, speculation_allowed = 1, 4
    # Without the second, kernels before 5.16 turn on the mitigation of speculative store bypass for whoever has a
    # filter, which makes the model slower than it will be where it is used. Before 4.17 there is neither.
    for flags in (all_threads | speculation_allowed, all_threads):
        try:
            call_seccomp(flags, None)
        except OSError as error:
            # It has understood all but the filter, which is not there.
            if error.errno == errno.EFAULT:
                return flags
            if error.errno != errno.EINVAL:
                raise
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), "seccomp")


def call_seccomp(flags: int, program: Any) -> int:
    """Set a filter: seccomp(2)."""
    number, set_filter_mode = SECCOMP[machine()[1]], 1
    arguments = (ctypes.c_long(argument) for argument in (number, set_filter_mode, flags))
    return call("syscall", *arguments, program, told="seccomp")


def set_filter(accelerated: bool) -> None:
    """Filter system calls from now on, in all threads.

    Raises:
        OSError: If the kernel does not allow it.
    """
    code = filter_code(os.getpid(), accelerated)
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))
    if call_seccomp(filter_flags(), program):
        raise OSError("seccomp: a thread has another filter")


def filter_code(process: int, accelerated: bool) -> bytes:
    """Return the filter in the kernel's byte code, for the process with this id."""
    load, equal, not_below, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, deny, unknown = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    architecture, column = machine()

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    def argument(place: int) -> bytes:
        # Its lower half: the kernel takes no more of the ids, flags and commands that are looked at.
        return step(load, 16 + 8 * place)

    def rule(test: int, value: int, *then: bytes) -> List[bytes]:
        return [step(test, value, 0, len(then))] + list(then)

    def calls(rows: Sequence[Tuple[int, Optional[int]]], *then: bytes) -> List[bytes]:
        numbers = [row[column] for row in rows]
        return [part for number in numbers if number is not None for part in rule(equal, number, *then)]

    allowed, denied = step(answer, allow), step(answer, deny)
    own = [argument(0), *rule(equal, process, allowed), denied]
    code = [
        step(load, 4),
        step(equal, architecture, 1, 0),
        denied,
        step(load, 0),
        *calls(FREQUENT, allowed),
        # Those of the x32 interface have a high bit set, and end here as well.
        *rule(not_below, RECENT, step(answer, unknown)),
        *calls(DENIED, denied),
        *calls(() if accelerated else DENIED_BESIDE_ACCELERATORS, denied),
        *calls(SIGNALS, *own),
        *calls([PRLIMIT], argument(0), *rule(equal, 0, allowed), denied),
        *calls([CLONE], argument(0), *rule(any_bit, CLONE_THREAD, allowed), denied),
        *calls(
            [FCNTL],
            argument(1),
            *(part for command in FCNTL_DENIED for part in rule(equal, command, denied)),
            allowed,
        ),
        allowed,
    ]
    return b"".join(code)
