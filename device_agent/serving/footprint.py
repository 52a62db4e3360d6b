"""Keeps the agent small: a board's memory is for its models.

Freed memory mostly stays with the allocator. Each thread has an arena of its own, and the server has many
threads. After six jobs an agent of 51 MB had 63 MB, 59 MB with two arenas.
"""

import ctypes
import gc

# Source: glibc, malloc.h.
M_ARENA_MAX = -8
ARENAS = 2


def share_arenas() -> None:
    """Have the threads that are started from now on share two arenas; does nothing without glibc."""
    _call("mallopt", M_ARENA_MAX, ARENAS)


def give_memory_back() -> None:
    """Return freed memory to the system; does nothing without glibc."""
    gc.collect()
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
