"""The stretches of a timed part between its pauses."""

import contextlib
from collections.abc import Callable

from device_agent.benchmark import Phase
from device_agent.board.load import LoadSnapshot, WindowLoad, combined, interference
from device_agent.measuring.timed_window import TIMED_S, TimedWindow
from device_agent.runtimes.worker_process import OnPhase


class Stretches:
    """How busy others were in the stretches of a timed part, and the window that these open.

    What the agent looks at between `begin` and `end` alone counts, so that whoever looks at more does so outside.
    """

    def __init__(self, window: TimedWindow, load: Callable[[], LoadSnapshot], on_phase: OnPhase) -> None:
        self._window = window
        self._load = load
        self._on_phase = on_phase
        self._opened = contextlib.ExitStack()
        self._first: LoadSnapshot | None = None
        self._found: list[WindowLoad] = []

    def __enter__(self) -> "Stretches":
        self._opened.enter_context(self._window.open(TIMED_S))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def begin(self) -> None:
        """Begin to look at what others do."""
        self._first = self._load()

    def end(self) -> None:
        """Look no longer."""
        assert self._first is not None
        self._found.append(interference(self._first, self._load()))

    def on_phase(self, phase: Phase, detail: str = "") -> None:
        """Close the window while the worker pauses, which others may use."""
        if phase is Phase.GATE:
            self.end()
            self._opened.close()
        self._on_phase(phase, detail)
        if phase is Phase.MEASURE:
            self._opened.enter_context(self._window.open(TIMED_S))
            self.begin()

    def load(self) -> WindowLoad:
        """Return what others did in all stretches together."""
        return combined(self._found)
