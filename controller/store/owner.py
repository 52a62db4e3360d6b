"""Who is working on a run: one process at a time."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told from a later one that got the same number.

    Attributes:
        host: Name of its machine, for people.
        pid: Its number.
        world: What its number is unique in: one boot of one kernel, and one container there.
        started: When it started, in a count that no change of the clock moves where the system has one.
    """

    host: str
    pid: int
    world: str
    started: str

    @classmethod
    def this_process(cls) -> "Owner":
        """Return the owner that this process is."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), pid=pid, world=_own_world(), started=_started(pid) or "")

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Return the owner that `str` wrote; None for the empty text of a run that nobody works on."""
        if not text:
            return None
        host, pid, world, started = text.split(" ")
        return cls(host=host, pid=int(pid), world=world, started=started)

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.world} {self.started}"

    @property
    def gone(self) -> bool:
        """Whether the process is known to have ended. Of a process elsewhere that is never known."""
        return self.world == _own_world() and _started(self.pid) != self.started


def _own_world() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


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
