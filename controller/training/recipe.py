"""How a network is trained."""

from dataclasses import dataclass
from enum import Enum


class Schedule(Enum):
    """How the learning rate moves over the run."""

    COSINE = "cosine"
    """From the peak down to 0 along half a cosine."""
    ONE_CYCLE = "one_cycle"
    """Up to the peak over the first 30 % of steps, then down to almost 0, both along a cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """Stochastic gradient descent with Nesterov momentum; all that `train.py` needs to repeat it.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: Peak learning rate.
        momentum: Of the gradient.
        weight_decay: On weights of convolutions and linear layers, not on biases or batch norms.
        label_smoothing: Probability mass spread over all classes.
        schedule: How the learning rate moves.
        seed: Of initial weights, order of images and augmentation.
    """

    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    schedule: Schedule = Schedule.ONE_CYCLE
    seed: int = 0
