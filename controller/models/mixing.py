"""The modules of a supernet's own primitives."""

from collections.abc import Mapping

import torch
from torch import nn


class MixtureSum(nn.Module):
    """Adds its inputs, each times a coefficient.

    Args:
        name: Of the mixture.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.mixture = name
        self.coefficients: torch.Tensor | None = None

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum; the plain one where no coefficients were given."""
        weights = torch.ones(len(inputs)) if self.coefficients is None else self.coefficients
        total = inputs[0] * weights[0]
        for weight, other in zip(weights[1:], inputs[1:], strict=True):
            total = total + weight * other
        return total


class Slice(nn.Module):
    """Keeps the channels from start up to stop."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return those channels."""
        return image[:, self.start : self.stop]


class Shuffle(nn.Module):
    """Joins images along the channels and deals these out in turn.

    Args:
        parts: To how many.
    """

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """Return shape (n, channels, height, width)."""
        joined = torch.cat(images, dim=1)
        count, channels, height, width = joined.shape
        dealt = joined.reshape(count, self.parts, channels // self.parts, height, width).transpose(1, 2)
        return dealt.reshape(count, channels, height, width)


def set_coefficients(module: nn.Module, coefficients: Mapping[str, torch.Tensor]) -> None:
    """Give the mixtures in module their coefficients by name, one a term."""
    for part in module.modules():
        if isinstance(part, MixtureSum):
            part.coefficients = coefficients[part.mixture]
