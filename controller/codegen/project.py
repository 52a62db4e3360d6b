"""What a generated project is made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from controller.core.errors import ConfigurationError
from controller.core.network import Network
from controller.training.dataset import DatasetInfo
from controller.training.recipe import TrainingRecipe

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A network that was chosen, and everything that is known of it.

    Attributes:
        name: At most 60 letters, digits, `.`, `_` and `-`, e.g. `edgenas-digits-3fa2`.
        network: What was searched.
        weights: State dict of its module.
        onnx: The very file that was measured.
        dataset: What it was trained on.
        recipe: How these weights were trained.
        train_images: How many images they were trained on.
        figures: Values by objective key, e.g. `latency_ms@pi4`, and `test_accuracy`. Only what is known.
        measurements: JSON-ready, one a device: what was measured, where, with which flags.

    Raises:
        ConfigurationError: If name has other characters, or the dataset's figures do not fit the network.
    """

    name: str
    network: Network
    weights: Mapping[str, torch.Tensor]
    onnx: bytes
    dataset: DatasetInfo
    recipe: TrainingRecipe
    train_images: int
    figures: Mapping[str, float]
    measurements: Sequence[Mapping[str, object]]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"project name {self.name!r} is not 1 to 60 letters, digits, '.', '_' and '-', starting with a letter or digit"
            )
        expected = (self.network.input_shape, self.network.output.shape)
        given = (self.dataset.image_shape, (len(self.dataset.classes),))
        if expected != given:
            raise ConfigurationError(
                f"dataset '{self.dataset.name}' has images and classes of shapes {given}; the network expects {expected}"
            )
