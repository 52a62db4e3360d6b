"""Who is working on a run: one process at a time."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_UNKNOWN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told from a later one that got the same number.

    Attributes:
        host: Name of its machine, for people.
        pid: Its number.
        machine: Which machine that is.
        boot: Which start of the machine.
        container: Which space of process numbers there.
        started: When it started, in a count that no change of the clock moves where the system has one.
    """

    host: str
    pid: int
    machine: str
    boot: str
    container: str
    started: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return the owner that this process is."""
        pid, host = os.getpid(), socket.gethostname()
        return cls(
            host=host,
            pid=pid,
            machine=_first_line("/etc/machine-id") or host,
            boot=_first_line("/proc/sys/kernel/random/boot_id") or _UNKNOWN,
            container=_process_numbers(),
            started=_started(pid) or _UNKNOWN,
        )

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Return the owner that `str` wrote; None for the empty text of a run that nobody works on."""
        if not text:
            return None
        host, pid, machine, boot, container, started = text.split(" ")
        return cls(host=host, pid=int(pid), machine=machine, boot=boot, container=container, started=started)

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.machine} {self.boot} {self.container} {self.started}"

    @property
    def gone(self) -> bool:
        """Whether the process is known to have ended. Of a process elsewhere that is never known."""
        here = Owner.this_process()
        if self.machine != here.machine:
            return False
        if self.boot != here.boot:
            return True
        return self.container == here.container and _started(self.pid) != self.started


def _first_line(path: str) -> str:
    """Return the first word of a file; empty where there is none."""
    try:
        return Path(path).read_text(encoding="ascii").split()[0]
    except (OSError, IndexError):
        return ""


def _process_numbers() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return _UNKNOWN


def _started(pid: int) -> str | None:
    """Return when a process started; None where there is none, or only what its parent never asked about."""
    try:
        # Fields 3 and 22, after the name in brackets, which may hold anything: state, and clock ticks since boot.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    try:
        return f"{psutil.Process(pid).create_time():.0f}"
    except psutil.NoSuchProcess:
        return None
