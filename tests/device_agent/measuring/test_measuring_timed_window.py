import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from device_agent.measuring.timed_window import TimedWindow

LIMIT_S = 10
# Longer than any test here lasts.
HELD_S = 600.0


class Held(threading.Event):
    """Tells when somebody looks at it, which a thread that is held does before it sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at = threading.Event()

    def is_set(self) -> bool:
        self.looked_at.set()
        return super().is_set()


def held(window: TimedWindow, pool: ThreadPoolExecutor) -> tuple[Future[bool], Held]:
    """Return a wait in another thread, once it has begun, and its event to give up."""
    gave_up = Held()
    waiting = pool.submit(window.wait_until_closed, gave_up)
    assert gave_up.looked_at.wait(LIMIT_S)
    assert not waiting.done()
    return waiting, gave_up


def test_nobody_is_held_while_nothing_is_timed():
    window = TimedWindow()
    assert window.wait_until_closed(threading.Event())
    with window.open(HELD_S):
        pass
    assert window.wait_until_closed(threading.Event())


def test_all_are_held_until_the_window_closes():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool:
        with window.open(HELD_S):
            waiting = [held(window, pool)[0] for _ in range(3)]
            assert wait(waiting, 0.1).done == set()
        assert [entry.result(LIMIT_S) for entry in waiting] == [True, True, True]


def test_window_within_a_window_closes_with_the_outer_one():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool, window.open(HELD_S):
        with window.open(HELD_S):
            waiting, gave_up = held(window, pool)
        assert wait([waiting], 0.1).done == set()
        gave_up.set()
        window.wake()


def test_window_closes_with_a_measurement_that_fails():
    window = TimedWindow()
    with pytest.raises(RuntimeError), window.open(HELD_S):
        raise RuntimeError("the worker died")
    assert window.wait_until_closed(threading.Event())


def test_who_gives_up_is_let_go_alone():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool, window.open(HELD_S):
        (leaving, gave_up), (staying, later) = held(window, pool), held(window, pool)
        gave_up.set()
        window.wake()
        assert leaving.result(LIMIT_S) is False
        assert wait([staying], 0.1).done == set()
        later.set()
        window.wake()


@pytest.mark.parametrize(
    "end", [lambda window, gave_up: window.stop(), lambda window, gave_up: gave_up.set()]
)
def test_nobody_goes_on_once_it_ended(end: Callable[[TimedWindow, threading.Event], None]):
    window, gave_up = TimedWindow(), threading.Event()
    end(window, gave_up)
    assert window.wait_until_closed(gave_up) is False


def test_stop_lets_all_go():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool, window.open(HELD_S):
        waiting = [held(window, pool)[0] for _ in range(3)]
        window.stop()
        assert [entry.result(LIMIT_S) for entry in waiting] == [False, False, False]


def test_model_that_never_returns_holds_others_no_longer_than_the_limit():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool, window.open(0.3):
        waiting, _ = held(window, pool)
        assert waiting.result(LIMIT_S)


def test_longest_of_several_limits_counts():
    window = TimedWindow()
    with ThreadPoolExecutor() as pool, window.open(HELD_S):
        with window.open(0.0):
            waiting, gave_up = held(window, pool)
        assert not waiting.done()
        gave_up.set()
        window.wake()
        assert not waiting.result(LIMIT_S)
