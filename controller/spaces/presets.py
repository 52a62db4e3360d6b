"""What a class of hardware can hold: limits that every proposal of a space keeps to."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds found by analysis.

    Attributes:
        parameters: Trainable parameters.
        macs: Multiply-accumulates of one inference.
        peak_activation_bytes: Largest live activations of one inference, float32.
    """

    parameters: float
    macs: float
    peak_activation_bytes: float

    def by_metric(self) -> Mapping[str, float]:
        """Return the bounds by metric, in its unit."""
        return {
            "params_m": self.parameters / 1e6,
            "macs_m": self.macs / 1e6,
            "peak_activation_mb": self.peak_activation_bytes / 1e6,
        }

    def hold(self, figures: Mapping[str, float]) -> bool:
        """Return whether a network that analysis tells these figures of stays within all of them."""
        return all(figures[metric] <= bound for metric, bound in self.by_metric().items())


PRESETS: Mapping[str, Limits] = {
    # A single-board computer without an accelerator: about 10 ms at the 10 GMAC/s of four Cortex-A53 cores.
    "edge": Limits(parameters=1e6, macs=100e6, peak_activation_bytes=8e6),
    # A phone-class CPU: MobileNetV2 (3.5 M parameters, 300 M multiply-accumulates at 224 × 224) fits.
    "mobile": Limits(parameters=5e6, macs=400e6, peak_activation_bytes=32e6),
    # An embedded or desktop GPU: ResNet-50 (25.6 M parameters, 4.1 G multiply-accumulates) fits.
    "gpu": Limits(parameters=50e6, macs=8e9, peak_activation_bytes=512e6),
}
"""By name, smallest first."""
