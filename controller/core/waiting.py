"""Waiting in short pieces.

The kernel may hand a signal to any thread; Python runs its handler in the main one, but wakes nobody for that.
A main thread that waited in one piece, for minutes, would sleep on.
"""

from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

PIECE_S = 0.5
"""Longest time to wait without looking up: a signal is heard within it."""


def wait_for_any(futures: Collection[Future[Any]]) -> None:
    """Return once one of the futures is done."""
    while not wait(futures, PIECE_S, FIRST_COMPLETED).done:
        pass
