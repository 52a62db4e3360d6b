"""What ends `edgenas-agent serve`: a signal, or the end of standard input."""

import os
import signal
import threading
from collections.abc import Callable

END_OF_STDIN = 0


def stop_requests(*, exit_on_stdin_eof: bool) -> Callable[[], str]:
    """Listen from now on, and return a function that waits for a reason to stop and returns it.

    The kernel may hand a signal to any thread; Python runs its handler in the main one, but wakes nobody for that.
    A main thread that waits for a lock would sleep on, so it reads from the descriptor that is written to at once.
    """
    heard, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler of Python's must be there for the descriptor to be written to.
        signal.signal(number, lambda _number, _frame: None)
    if exit_on_stdin_eof:

        def watch() -> None:
            while os.read(0, 4096):
                pass
            os.write(tell, bytes([END_OF_STDIN]))

        threading.Thread(target=watch, name="stdin", daemon=True).start()

    def wait() -> str:
        (reason,) = os.read(heard, 1)
        return "end of standard input" if reason == END_OF_STDIN else signal.Signals(reason).name

    return wait
