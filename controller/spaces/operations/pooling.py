"""Pooling over 3×3 windows."""

from dataclasses import dataclass

from controller.core.network import NetworkBuilder
from controller.core.primitives import AvgPool2d, MaxPool2d


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """Maximum over 3×3 windows."""

    keeps_channels: bool = True
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `pool`."""
        return builder.add("pool", MaxPool2d(3, stride=stride), source)


@dataclass(frozen=True, slots=True, kw_only=True)
class AvgPool:
    """Mean over 3×3 windows."""

    keeps_channels: bool = True
    activated: bool = False

    def lower(self, builder: NetworkBuilder, source: str, out_channels: int, stride: int) -> str:
        """Add `pool`."""
        return builder.add("pool", AvgPool2d(3, stride=stride), source)
