"""What a search makes of figures that something else than the model shaped, as their flags say: it leaves them out, or keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.core.measurement import CONTAMINATING, Measurement, MeasurementMode
from controller.core.objective import Objective
from controller.core.trial import Trial

_SCALED = ("latency_ms", "latency_ms_p90")
"""The figures that follow the speed of a board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagPolicy:
    """How a search treats flagged figures.

    Attributes:
        keep: Whether to choose by them as by any other.
        devices: Those that something is chosen by.
    """

    keep: bool
    devices: frozenset[str]

    @classmethod
    def of(cls, wanted: Sequence[Objective], *, keep: bool) -> "FlagPolicy":
        """Return the policy of a search that chooses by these objectives, its constraints' among them."""
        return cls(keep=keep, devices=frozenset(o.device for o in wanted if o.device))

    @property
    def most_attempts(self) -> int:
        """How often a board may measure one model in one job; 0 for as often as it likes.

        Whoever chooses by flagged figures has no use for a second attempt at others.
        """
        return 1 if self.keep else 0

    def leaves_out(self, device: str) -> bool:
        """Return whether nothing is chosen by a device's flagged figures."""
        return not self.keep and device in self.devices

    def disturbed(self, trial: Trial) -> dict[str, list[str]]:
        """Return the flags of a trial that forbid to choose by its figures, by device."""
        found = {
            device: [flag for flag in flags if flag in CONTAMINATING]
            for device, flags in trial.flags.items()
            if self.leaves_out(device)
        }
        return {device: flags for device, flags in found.items() if flags}

    def judged(self, device: str, measurement: Measurement) -> dict[str, float]:
        """Return the figures that constraints are checked by.

        In a search that keeps flagged figures, times on a board that is slower or faster than usual are put to its usual speed,
        for such a state passes. What is published is checked as measured.
        """
        kept = self.keep and measurement.mode is MeasurementMode.SEARCH and "CANARY" in measurement.flags
        speed = measurement.usual_speed if kept else 1.0
        figures = measurement.metrics
        figures.update({name: speed * figures[name] for name in _SCALED if name in figures})
        return {f"{name}@{device}": value for name, value in figures.items()}
