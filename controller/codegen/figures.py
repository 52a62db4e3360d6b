"""The figures of a network as a reader of the generated project sees them."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.core.objective import FRACTION, METRICS, Direction, Metric, Source

TEST_ACCURACY = Metric(
    name="test_accuracy",
    unit=FRACTION,
    direction=Direction.MAXIMISE,
    source=Source.TRAINING,
    description="share of test images classified right; the search never saw them",
)
_KNOWN = {**METRICS, TEST_ACCURACY.name: TEST_ACCURACY}
_ALWAYS = ("accuracy", TEST_ACCURACY.name)
_ALWAYS_PER_DEVICE = ("latency_ms", "peak_memory_mb", "energy_mj")
_ORDER = ("accuracy", TEST_ACCURACY.name, *(name for name in METRICS if name != "accuracy"))
_HOW = {
    Source.ANALYSIS: "computed from the layers",
    Source.DEVICE: "measured on the device, with model.onnx",
    Source.TRAINING: "computed after training, with weights.pt",
}
ABSENT = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A row of the table of figures.

    Attributes:
        key: The objective's key, e.g. `latency_ms@pi4`.
        name: The metric's name, e.g. `latency_ms`.
        meaning: What the metric is.
        value: Four significant digits, or ABSENT.
        unit: The metric's unit.
        device: Where it was measured; empty for figures of the network itself.
        how: How the value came about; empty where it is absent.
    """

    key: str
    name: str
    meaning: str
    value: str
    unit: str
    device: str
    how: str

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value != ABSENT


def figures(values: Mapping[str, float]) -> tuple[Figure, ...]:
    """Return the known figures and those that a reader would look for in vain, by device.

    Args:
        values: By objective key.
    """
    devices = list(dict.fromkeys(key.partition("@")[2] for key in values if "@" in key))
    expected = [*_ALWAYS, *(f"{name}@{device}" for device in devices for name in _ALWAYS_PER_DEVICE)]

    def position(key: str) -> tuple[int, int]:
        name, _, device = key.partition("@")
        return (
            devices.index(device) + 1 if device else 0,
            _ORDER.index(name) if name in _ORDER else len(_ORDER),
        )

    keys = sorted(dict.fromkeys((*values, *expected)), key=position)
    return tuple(_figure(key, values.get(key)) for key in keys)


def _figure(key: str, value: float | None) -> Figure:
    name, _, device = key.partition("@")
    metric = _KNOWN.get(name)
    return Figure(
        key=key,
        name=name,
        meaning=metric.description if metric else "",
        value=ABSENT if value is None else _rounded(value),
        unit=metric.unit if metric else "",
        device=device,
        how=_HOW[metric.source] if metric and value is not None else "",
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
