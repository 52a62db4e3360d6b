"""The modules of a supernet's own primitives."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from controller.core.mixing import Mixture
from controller.core.network import INPUT, Network


class MixtureSum(nn.Module):
    """Adds its inputs, each times a coefficient.

    Args:
        name: Of the mixture.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.mixture = name
        self.coefficients: torch.Tensor | None = None

    def forward(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Return the weighted sum, the plain one where no coefficients were given; None is left out."""
        weights = torch.ones(len(inputs)) if self.coefficients is None else self.coefficients
        terms = [weight * value for weight, value in zip(weights, inputs, strict=True) if value is not None]
        total: torch.Tensor = terms[0]
        for term in terms[1:]:
            total = total + term
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


def dormant_layers(network: Network, coefficients: Mapping[str, Sequence[float]]) -> frozenset[str]:
    """Return the layers that nothing reads but terms with a coefficient of 0, by name.

    Of a mixture without any other term the last one stays, for its shape.
    """
    layers = {layer.name: layer for layer in network.layers}
    needed, waiting = set[str](), [network.output.name]
    while waiting:
        name = waiting.pop()
        if name == INPUT or name in needed:
            continue
        needed.add(name)
        primitive, inputs = layers[name].primitive, layers[name].inputs
        if isinstance(primitive, Mixture):
            pairs = zip(inputs, coefficients[primitive.name], strict=True)
            inputs = tuple(source for source, coefficient in pairs if coefficient) or inputs[-1:]
        waiting += inputs
    return frozenset(layers) - needed
