"""Who is working on a run: one process at a time."""

import os
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process on a machine, told from a later one that got the same number."""

    host: str
    pid: int
    started_at: float

    @classmethod
    def this_process(cls) -> "Owner":
        """Return the owner that this process is."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started_at=psutil.Process().create_time())

    @classmethod
    def parse(cls, text: str) -> "Owner | None":
        """Return the owner that `str` wrote; None for the empty text of a run that nobody works on."""
        if not text:
            return None
        host, pid, started_at = text.rsplit(" ", 2)
        return cls(host=host, pid=int(pid), started_at=float(started_at))

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.started_at:.2f}"

    @property
    def gone(self) -> bool:
        """Whether the process is known to have ended. Of another machine's process that is never known."""
        if self.host != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started_at) > 1
        except psutil.NoSuchProcess:
            return True
