"""When something is being timed, for the threads that work for other callers meanwhile."""

import contextlib
import threading
from collections.abc import Iterator


class TimedWindow:
    """Holds other work of the agent back while a model is timed. Its methods may be called from any thread.

    Whoever times opens it before the first look at the load of the board and lets it close after the last: what a
    held thread does counts as other processes' work.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._openings = 0
        self._stopped = False

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Be open while the context is. Never waits: work that has begun, such as writing one chunk, is finished."""
        with self._changed:
            self._openings += 1
        try:
            yield
        finally:
            with self._changed:
                self._openings -= 1
                self._changed.notify_all()

    def wait_until_closed(self, gave_up: threading.Event) -> bool:
        """Return True once nothing is timed; False as soon as `gave_up` is set or the agent stops.

        Whoever sets `gave_up` calls `wake()` after it: to look again and again would be work in the window.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or gave_up.is_set() or not self._openings)
            return not (self._stopped or gave_up.is_set())

    def wake(self) -> None:
        """Have every held thread look again at whether it gave up."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """End every wait, now and later: the agent stops."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
