"""Interrupts and requests to end, as a search sees them.

Python raises KeyboardInterrupt wherever it happens to be, and drops it where that is a destructor or a
callback of the garbage collector. So it is also remembered, and raised again at the next report.
"""

import signal
import threading
from types import FrameType

_requested = threading.Event()


def listen() -> None:
    """Raise KeyboardInterrupt on SIGTERM, and on SIGINT unless a shell has it ignored."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def check() -> None:
    """Raise KeyboardInterrupt if there was one before.

    Raises:
        KeyboardInterrupt: If so.
    """
    if _requested.is_set():
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt
