"""Where the time of an inference goes, by kind of operator."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.core.measurement import OperatorTime


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorShare:
    """What all layers of one operator type cost together.

    Attributes:
        operator_type: E.g. `Conv`.
        mean_ms: Mean time of one inference that is spent in them.
        share: Of the time of all layers, 0 to 1.
        layers: How many there are.
        calls: How often they ran in one inference.
    """

    operator_type: str
    mean_ms: float
    share: float
    layers: int
    calls: float


def by_type(times: Sequence[OperatorTime]) -> list[OperatorShare]:
    """Return the cost of each operator type, largest first."""
    total_ms = sum(time.mean_ms for time in times)
    kinds: dict[str, list[OperatorTime]] = {}
    for time in times:
        kinds.setdefault(time.operator_type, []).append(time)
    shares = [
        OperatorShare(
            operator_type=kind,
            mean_ms=sum(time.mean_ms for time in layers),
            share=_share(sum(time.mean_ms for time in layers), total_ms),
            layers=len(layers),
            calls=sum(time.calls for time in layers),
        )
        for kind, layers in kinds.items()
    ]
    return sorted(shares, key=lambda share: -share.mean_ms)


def by_layer(times: Sequence[OperatorTime]) -> list[tuple[OperatorTime, float]]:
    """Return each layer with its share of the time of all layers, slowest first."""
    total_ms = sum(time.mean_ms for time in times)
    ordered = sorted(times, key=lambda time: -time.mean_ms)
    return [(time, _share(time.mean_ms, total_ms)) for time in ordered]


def _share(part_ms: float, total_ms: float) -> float:
    return part_ms / total_ms if total_ms else 0.0
