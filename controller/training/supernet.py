"""Training a network that holds every option of a space, by gradients for its weights and for what it mixes.

Weights learn from one half of the training images, mixtures from the other. All normalisation is by the batch at hand:
running statistics would be those of mixtures that have moved on.

Source: Liu et al. 2019, DARTS, sections 2.3 and 3, equations 6 to 8.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from controller.core.learning import Coefficients, FloatVector
from controller.core.mixing import mixtures
from controller.core.network import Network
from controller.models.mixing import dormant_layers, set_coefficients
from controller.models.module import seeded_module
from controller.training.dataset import Split
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer, TrainingFailedError, normalise

_MOST_CLIPPED = 5.0  # norm of a gradient step
_SHIFT = 0.01  # norm by which weights are moved for finite differences
_RATE_SHARE = 0.5  # of the recipe's peak learning rate: a supernet has no schedule that begins gently
_LEAST_RATE = 0.02  # of its own peak, at the end
_JUDGED = 300  # images that `loss` is computed on, at most
_JUDGED_BATCH = 150

Batch = tuple[torch.Tensor, torch.Tensor]


class TrainedSupernet:
    """A supernet in training; see `controller.core.learning.Supernet`.

    Args:
        trainer: Has the images.
        network: With mixtures.
        recipe: Batch size, rates and seed; its epochs and schedule are not looked at.
    """

    def __init__(self, trainer: Trainer, network: Network, recipe: TrainingRecipe) -> None:
        self._trainer = trainer
        self._recipe = recipe
        self._terms = mixtures(network)
        self._module = seeded_module(network, recipe.seed).to(trainer.accelerator).train()
        for part in self._module.modules():
            if isinstance(part, nn.BatchNorm2d):
                # A scale of its own would undo what the mixture says.
                part.weight.requires_grad_(False)
                part.bias.requires_grad_(False)
        self._weights = [weights for weights in self._module.parameters() if weights.requires_grad]
        self._optimizer = torch.optim.SGD(
            self._weights, lr=self._peak_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._halves = _halved(trainer.images, recipe.seed)
        self._batch_size = min(recipe.batch_size, *(len(half) for half in self._halves))
        self._rate = self._peak_rate
        self.begin_epoch()

    @property
    def steps_per_epoch(self) -> int:
        """Batches of either half of the images."""
        return max(1, min(len(half) for half in self._halves) // self._batch_size)

    def begin_epoch(self) -> None:
        """Go through the images anew, in another order."""
        self._streams = [self._stream(half) for half in self._halves]

    def train_weights(self, coefficients: Coefficients, progress: float) -> float:
        """Take one step of gradient descent on the weights; return the loss before it.

        Args:
            coefficients: Of each mixture.
            progress: How much of all training is done: the learning rate comes down along half a cosine.

        Raises:
            TrainingFailedError: If the loss is infinite or undefined.
        """
        self._rate = self._peak_rate * (
            _LEAST_RATE + (1 - _LEAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
        )
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(next(self._streams[0]), self._tensors(coefficients))
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailedError(
                f"the supernet diverged with learning rate {self._rate:g}; lower training.learning_rate"
            )
        nn.utils.clip_grad_norm_(self._weights, _MOST_CLIPPED)
        self._optimizer.step()
        return value

    def gradient(self, coefficients: Coefficients, *, unrolled: bool) -> Coefficients:
        """Return the gradient of the loss on a batch of the other half by the coefficients.

        Args:
            coefficients: Of each mixture.
            unrolled: Whether to look one step of the weights ahead, to second order by finite differences.
        """
        batch = next(self._streams[1])
        if not unrolled:
            gradient, _ = self._gradients(batch, coefficients)
            return gradient
        ahead = next(self._streams[0])
        _, by_weights = self._gradients(ahead, coefficients, for_weights=True)
        rate, before = self._rate, [weights.detach().clone() for weights in self._weights]
        steps = [
            slope + self._recipe.weight_decay * weights + self._recipe.momentum * self._momentum(weights)
            for slope, weights in zip(by_weights, before, strict=True)
        ]
        try:
            self._place(before, steps, -rate)
            gradient, direction = self._gradients(batch, coefficients, for_weights=True)
            shift = _SHIFT / max(1e-12, math.sqrt(sum(float((d**2).sum()) for d in direction)))
            self._place(before, direction, shift)
            above, _ = self._gradients(ahead, coefficients)
            self._place(before, direction, -shift)
            below, _ = self._gradients(ahead, coefficients)
        finally:
            self._place(before, before, 0.0)
        return {
            name: values - rate * (above[name] - below[name]) / (2 * shift)
            for name, values in gradient.items()
        }

    @torch.no_grad()
    def losses(self, samples: Sequence[Coefficients]) -> list[float]:
        """Return the loss with each of several coefficients on one batch of the other half."""
        batch = next(self._streams[1])
        return [float(self._loss(batch, self._tensors(coefficients))) for coefficients in samples]

    @torch.no_grad()
    def loss(self, coefficients: Coefficients) -> tuple[float, float]:
        """Return loss and accuracy on up to 300 images of the half that mixtures learn from, without augmentation."""
        self._mix(self._tensors(coefficients))
        held = self._halves[1]
        total, correct, count = 0.0, 0, min(_JUDGED, len(held))
        for start in range(0, count, _JUDGED_BATCH):
            images = normalise(held.images[start : min(start + _JUDGED_BATCH, count)], self._trainer.info)
            labels = held.labels[start : start + len(images)]
            with self._trainer.autocast():
                logits = self._module(images)
            total += float(functional.cross_entropy(logits.float(), labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
        return total / count, correct / count

    def state(self) -> bytes:
        """Return what `restore` needs; taken between epochs."""
        buffer = io.BytesIO()
        torch.save(
            {
                "module": self._module.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "generator": self._generator.get_state(),
            },
            buffer,
        )
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        """Continue from what `state` returned."""
        saved = torch.load(io.BytesIO(state), weights_only=True)
        self._module.load_state_dict(saved["module"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._generator.set_state(saved["generator"])
        self._rate = self._optimizer.param_groups[0]["lr"]

    def _loss(self, batch: Batch, coefficients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        self._mix(coefficients)
        with self._trainer.autocast():
            return functional.cross_entropy(
                self._module(images), labels, label_smoothing=self._recipe.label_smoothing
            )

    def _mix(self, coefficients: Mapping[str, torch.Tensor]) -> None:
        set_coefficients(self._module, coefficients)
        values = {name: tensor.tolist() for name, tensor in coefficients.items()}
        self._module.dormant = dormant_layers(self._module.network, values)

    def _gradients(
        self, batch: Batch, coefficients: Coefficients, *, for_weights: bool = False
    ) -> tuple[dict[str, FloatVector], list[torch.Tensor]]:
        """Return the gradients of the loss by the coefficients and, where asked for, by the weights."""
        tensors = {name: values.requires_grad_() for name, values in self._tensors(coefficients).items()}
        for weights in self._weights:
            weights.requires_grad_(for_weights)
        try:
            loss = self._loss(batch, tensors)
            wanted = [*tensors.values(), *(self._weights if for_weights else ())]
            slopes = torch.autograd.grad(loss, wanted, materialize_grads=True)
        finally:
            for weights in self._weights:
                weights.requires_grad_(True)
        by_name = {
            name: slope.detach().double().cpu().numpy() for name, slope in zip(tensors, slopes, strict=False)
        }
        return by_name, list(slopes[len(tensors) :])

    def _tensors(self, coefficients: Coefficients) -> dict[str, torch.Tensor]:
        return {
            name: torch.tensor(coefficients[name], dtype=torch.float32, device=self._trainer.accelerator)
            for name in self._terms
        }

    @torch.no_grad()
    def _place(self, before: Sequence[torch.Tensor], steps: Iterable[torch.Tensor], length: float) -> None:
        """Set the weights to what they were before, moved by length times steps."""
        for weights, start, step in zip(self._weights, before, steps, strict=True):
            weights.copy_(start + length * step)

    def _momentum(self, weights: torch.Tensor) -> torch.Tensor | float:
        buffer: torch.Tensor | None = self._optimizer.state[weights].get("momentum_buffer")
        return 0.0 if buffer is None else buffer

    @property
    def _peak_rate(self) -> float:
        return self._recipe.learning_rate * _RATE_SHARE

    def _stream(self, part: Split) -> Iterator[Batch]:
        while True:
            yield from self._trainer.batches(part, self._batch_size, self._generator)


def _halved(whole: Split, seed: int) -> tuple[Split, Split]:
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed)).to(whole.labels.device)
    middle = (len(whole) + 1) // 2
    # A single image is both halves.
    first, second = order[:middle], order[middle:] if len(order) > 1 else order
    return (
        Split(images=whole.images[first], labels=whole.labels[first]),
        Split(images=whole.images[second], labels=whole.labels[second]),
    )
