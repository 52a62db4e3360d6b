"""Training one network on one accelerator."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from controller.core.errors import ConfigurationError, EdgeNASError
from controller.core.network import Network
from controller.models.module import NetworkModule, seeded_module
from controller.training.dataset import Dataset, DatasetInfo, Split
from controller.training.recipe import Schedule, TrainingRecipe

logger = logging.getLogger(__name__)

_EVALUATION_BATCH = 500
_EVALUATION_BYTES = 500e6  # of activations at a time
_SMALLEST_BFLOAT16_MAP = 16  # pixels; below, converting costs more than it saves
_WARM_UP_SHARE = 0.3  # of the steps of a one-cycle run


WorthMore = Callable[[float], bool]
"""Whether a network that has this accuracy is worth more training."""


class TrainingFailedError(EdgeNASError):
    """Training did not lead to a usable network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork:
    """A network with weights.

    Attributes:
        module: On the CPU, in evaluation mode.
        accuracy: Share of the validation images classified right.
        losses: Mean training loss of each epoch that it was trained for.
        seconds: Time that training and validating took.
    """

    module: NetworkModule
    accuracy: float
    losses: tuple[float, ...]
    seconds: float


def detect_accelerator(wanted: str = "auto") -> torch.device:
    """Return the accelerator to train on: CUDA, else Apple's GPU, else the CPU.

    Args:
        wanted: `auto`, or a name that torch knows.

    Raises:
        ConfigurationError: If the one wanted is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    present = [name for name, there in available.items() if there]
    try:
        accelerator = torch.device(present[0] if wanted == "auto" else wanted)
    except RuntimeError:
        accelerator = None
    if accelerator is None or accelerator.type not in present:
        raise ConfigurationError(
            f"accelerator {wanted!r} is not available here; expected auto or one of {', '.join(present)}"
        )
    return accelerator


def detect_precision(
    accelerator: torch.device, image_shape: tuple[int, int, int], wanted: str = "auto"
) -> torch.dtype:
    """Return the number format to multiply in: bfloat16 where the hardware does so natively and it pays.

    Args:
        accelerator: Where training runs.
        image_shape: (channels, height, width).
        wanted: `auto`, `float32` or `bfloat16`.

    Raises:
        ConfigurationError: If wanted is none of these.
    """
    if wanted in ("float32", "bfloat16"):
        return torch.float32 if wanted == "float32" else torch.bfloat16
    if wanted != "auto":
        raise ConfigurationError(f"precision {wanted!r} is unknown; expected auto, float32 or bfloat16")
    native = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": torch.cpu._is_avx512_bf16_supported,
    }.get(accelerator.type, lambda: False)
    pays = min(image_shape[1:]) >= _SMALLEST_BFLOAT16_MAP and native()
    return torch.bfloat16 if pays else torch.float32


class Trainer:
    """Trains networks on one dataset, which it holds on the accelerator.

    Args:
        dataset: Its test part is read by `test_accuracy` alone.
        accelerator: Where to train.
        precision: Number format of matrix multiplications; weights stay float32.
    """

    def __init__(self, dataset: Dataset, accelerator: torch.device, precision: torch.dtype) -> None:
        self.info = dataset.info
        self.accelerator = accelerator
        self.precision = precision
        self._test = dataset.test
        self.images, self._validation = (
            Split(images=part.images.to(accelerator), labels=part.labels.to(accelerator))
            for part in (dataset.train, dataset.validation)
        )

    def train(
        self, network: Network, recipe: TrainingRecipe, worth_more: Mapping[int, WorthMore] | None = None
    ) -> TrainedNetwork:
        """Return the network trained by the recipe. Equal arguments give equal weights on one machine.

        Args:
            network: What to train, from initial weights that depend on the recipe's seed alone.
            recipe: How to train it.
            worth_more: Told of the accuracy after so many epochs; training ends there where the answer is no.

        Raises:
            TrainingFailedError: If the loss becomes infinite or undefined, or the memory does not suffice.
        """
        try:
            return self._train_within_memory(network, recipe, worth_more or {})
        except RuntimeError as error:
            # Torch has a type of its own for a full GPU, and only a text for a full CPU.
            if (
                not isinstance(error, torch.OutOfMemoryError)
                and "not enough memory" not in str(error)
                and "can't allocate memory" not in str(error)
            ):
                raise
            if self.accelerator.type == "cuda":
                torch.cuda.empty_cache()
            raise TrainingFailedError(
                f"training ran out of memory with batches of {recipe.batch_size}; choose a smaller --batch-size"
            ) from error

    def _train_within_memory(
        self, network: Network, recipe: TrainingRecipe, worth_more: Mapping[int, WorthMore]
    ) -> TrainedNetwork:
        started = time.perf_counter()
        module = seeded_module(network, recipe.seed).to(self.accelerator)
        generator = torch.Generator().manual_seed(recipe.seed)
        steps = max(1, len(self.images) // recipe.batch_size)
        optimizer, scheduler = _optimizer(module, recipe, total_steps=steps * recipe.epochs)
        losses = []
        for epoch in range(recipe.epochs):
            module.train()
            total = torch.zeros((), device=self.accelerator)
            for images, labels in self.batches(self.images, recipe.batch_size, generator):
                total += self._step(module, optimizer, images, labels, recipe.label_smoothing)
                scheduler.step()
            losses.append(float(total) / steps)
            if not math.isfinite(losses[-1]):
                raise TrainingFailedError(
                    f"training diverged in epoch {epoch + 1} with learning rate {recipe.learning_rate:g}; lower it"
                )
            if epoch + 1 < recipe.epochs and (asked := worth_more.get(epoch + 1)) is not None:
                accuracy = self._accuracy(module, self._validation)
                if not asked(accuracy):
                    break
        else:
            accuracy = self._accuracy(module, self._validation)
        seconds = time.perf_counter() - started
        return TrainedNetwork(
            module=module.to("cpu").eval(), accuracy=accuracy, losses=tuple(losses), seconds=seconds
        )

    def test_accuracy(self, module: NetworkModule) -> float:
        """Return the share of test images classified right: for the chosen network, after the search."""
        return self._accuracy(module.to(self.accelerator), self._test)

    def batches(
        self, part: Split, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield shuffled batches, augmented where images are natural; the rest that fills none is left for another epoch's order."""
        order = torch.randperm(len(part), generator=generator)
        for start in range(0, max(1, len(order) - batch_size + 1), batch_size):
            chosen = order[start : start + batch_size].to(self.accelerator)
            images = part.images[chosen]
            if self.info.natural:
                images = augment(images, generator)
            yield normalise(images, self.info), part.labels[chosen]

    def _step(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        images: torch.Tensor,
        labels: torch.Tensor,
        label_smoothing: float,
    ) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            loss = functional.cross_entropy(module(images), labels, label_smoothing=label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which matrix multiplications have the trainer's precision."""
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.accelerator.type, dtype=self.precision)

    @torch.inference_mode()
    def _accuracy(self, module: NetworkModule, part: Split) -> float:
        """Return the share of images classified right, computed in float32 as a deployed model does."""
        module.eval()
        correct = 0
        count = int(min(_EVALUATION_BATCH, max(1, _EVALUATION_BYTES // module.network.peak_activation_bytes)))
        for start in range(0, len(part), count):
            images = part.images[start : start + count].to(self.accelerator)
            labels = part.labels[start : start + count].to(self.accelerator)
            correct += int((module(normalise(images, self.info)).argmax(dim=1) == labels).sum())
        return correct / len(part)


def normalise(images: torch.Tensor, info: DatasetInfo) -> torch.Tensor:
    """Return what a network reads: float32, channels last, mean 0 and deviation 1 per channel.

    Args:
        images: uint8, shape (n, channels, height, width).
        info: Gives mean and deviation.
    """
    mean = torch.tensor(info.mean, device=images.device)[:, None, None]
    std = torch.tensor(info.std, device=images.device)[:, None, None]
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images shifted by up to an eighth of their size, and half of them flipped left to right.

    Args:
        images: uint8, shape (n, channels, height, width).
        generator: On the CPU.
    """
    count, _, height, width = images.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    flip = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(flip, width - 1 - columns, columns) + torch.randint(
        2 * pad_x + 1, (count, 1), generator=generator
    )
    rows = torch.arange(height).expand(count, height) + torch.randint(
        2 * pad_y + 1, (count, 1), generator=generator
    )
    example = torch.arange(count, device=images.device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[
        example, rows.to(images.device)[:, :, None], columns.to(images.device)[:, None, :]
    ]
    return shifted.permute(0, 3, 1, 2)


def _optimizer(
    module: nn.Module, recipe: TrainingRecipe, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    decayed = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    free = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)
    if recipe.schedule is Schedule.ONE_CYCLE:
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=total_steps + 1,
            pct_start=_WARM_UP_SHARE,
            cycle_momentum=False,
        )
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)
