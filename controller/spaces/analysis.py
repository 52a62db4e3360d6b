"""What analysis tells of a space's networks, each lowered once: to keep to limits as it is drawn, and to be judged by."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from controller.core.architecture import Architecture
from controller.core.network import Network, analyse

_KEPT = 5000  # more than an algorithm compares before it proposes one; some 4 kB each

Figures = Callable[[Architecture], Mapping[str, float]]
"""Tells the figures of an architecture, by metric name."""


def analysed(lower: Callable[[Architecture], Network]) -> Figures:
    """Return what tells the figures of the networks that lower returns, and keeps those it told last."""

    @lru_cache(_KEPT)
    def figures(architecture: Architecture) -> Mapping[str, float]:
        return MappingProxyType(analyse(lower(architecture)))

    return figures
