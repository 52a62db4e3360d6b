"""When something is being timed, for the threads that work for other callers meanwhile."""

import contextlib
import threading
import time
from collections.abc import Iterator

# Samples are taken for a minute at most, and an energy pass may wait as long for a slow sensor. A model of more than
# ten seconds an inference takes longer: what is let in then is flagged as what it is, others' work.
TIMED_S = 90.0


class TimedWindow:
    """Holds other work of the agent back while a model is timed. Its methods may be called from any thread.

    Whoever times opens it before the first look at the load of the board and lets it close after the last: what a
    held thread does counts as other processes' work.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closes_s: dict[object, float] = {}
        self._stopped = False

    @contextlib.contextmanager
    def open(self, limit_s: float) -> Iterator[None]:
        """Be open while the context is, and no longer than a limit: a model that never returns must not hold others.

        Never waits: work that has begun, such as writing one chunk, is finished.
        """
        opening = object()
        with self._changed:
            self._closes_s[opening] = time.monotonic() + limit_s
        try:
            yield
        finally:
            with self._changed:
                del self._closes_s[opening]
                self._changed.notify_all()

    def wait_until_closed(self, gave_up: threading.Event) -> bool:
        """Return True once nothing is timed; False as soon as `gave_up` is set or the agent stops.

        Whoever sets `gave_up` calls `wake()` after it: to look again and again would be work in the window.
        """
        with self._changed:
            while not self._stopped and not gave_up.is_set():
                left_s = max(self._closes_s.values(), default=0.0) - time.monotonic()
                if left_s <= 0:
                    return True
                self._changed.wait(left_s)
            return False

    def wake(self) -> None:
        """Have every held thread look again at whether it gave up."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """End every wait, now and later: the agent stops."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
