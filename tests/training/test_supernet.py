import numpy as np
import pytest
import torch

from controller.core.learning import Coefficients
from controller.core.mixing import Mixture, mixtures
from controller.core.network import INPUT, NetworkBuilder
from controller.core.primitives import Conv2d, Sigmoid
from controller.spaces import CellSpace
from controller.spaces.skeleton import add_head
from controller.training.dataset import Dataset, DatasetInfo, Split
from controller.training.recipe import TrainingRecipe
from controller.training.supernet import TrainedSupernet
from controller.training.trainer import Trainer

SPACE = CellSpace(
    input_shape=(1, 6, 6),
    classes=2,
    nodes=3,
    operations=("zero", "skip_connect", "conv1x1", "max_pool_3x3"),
    channels=(4,),
    cells=(1,),
)
RECIPE = TrainingRecipe(batch_size=16, learning_rate=0.4)


def stripes(count: int, seed: int) -> Split:
    """Return images of upright and of level stripes, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    upright = torch.tensor([0, 200] * 3).expand(6, 6)
    images = torch.where(labels[:, None, None].bool(), upright, upright.T)
    noise = torch.randint(0, 56, images.shape, generator=generator)
    return Split(images=(images + noise).to(torch.uint8)[:, None], labels=labels)


def trainer() -> Trainer:
    info = DatasetInfo(
        name="digits",
        path=None,
        classes=("level", "upright"),
        image_shape=(1, 6, 6),
        mean=(0.5,),
        std=(0.3,),
        natural=False,
        split_seed=0,
    )
    data = Dataset(
        info=info, train=stripes(64, 0), validation=stripes(16, 1), test=stripes(16, 2), skipped_files=()
    )
    return Trainer(data, torch.device("cpu"), torch.float32)


def supernet(part: int = 2) -> TrainedSupernet:
    return TrainedSupernet(trainer(), SPACE.mixed(part), RECIPE)


def even(part: int = 2) -> Coefficients:
    return {name: np.full(len(terms), 0.25) for name, terms in mixtures(SPACE.mixed(part)).items()}


def epoch(training: TrainedSupernet, progress: float = 0.5) -> list[float]:
    training.begin_epoch()
    return [training.train_weights(even(), progress) for _ in range(training.steps_per_epoch)]


def test_supernet_learns():
    training = supernet()
    before, _ = training.loss(even())
    for _ in range(4):
        epoch(training)
    after, accuracy = training.loss(even())
    assert after < 0.8 * before
    assert accuracy > 0.9


def test_supernet_restored_between_epochs_goes_on_as_if_it_had_not_been_stopped():
    undisturbed, stopped = supernet(), supernet()
    assert epoch(undisturbed) == epoch(stopped)
    restored = supernet()
    restored.restore(stopped.state())
    assert epoch(restored) == epoch(undisturbed)
    assert restored.loss(even()) == undisturbed.loss(even())


def test_gradient_of_a_coefficient_is_the_slope_of_the_loss():
    gradient = supernet().gradient(even(), unrolled=False)
    (loss,) = supernet().losses([even()])
    for name, term in (("1<-0", 1), ("2<-1", 0), ("node_2", 1)):
        coefficients = even()
        coefficients[name][term] += 0.01
        (moved,) = supernet().losses([coefficients])
        assert (moved - loss) / 0.01 == pytest.approx(gradient[name][term], rel=0.2, abs=2e-3)


def test_losses_are_of_one_batch():
    training = supernet()
    first, second = training.losses([even(), even()])
    assert first == second
    assert training.losses([even()]) != [first]


def test_weights_move_less_as_training_comes_to_its_end():
    def moved(progress: float) -> float:
        training = supernet()
        before = [weights.detach().clone() for weights in training._weights]
        training.train_weights(even(), progress)
        return max(
            float((now.detach() - then).abs().max())
            for now, then in zip(training._weights, before, strict=True)
        )

    assert moved(0.0) > 1.5 * moved(0.5) > 4 * moved(1.0)


def smooth_supernet() -> TrainedSupernet:
    """Return one without kinks, for finite differences: a mixture of a convolution and the sigmoid of another."""
    builder = NetworkBuilder(input_shape=(1, 6, 6))
    with builder.block("mix", "mix"):
        first = builder.add("first", Conv2d(4, 3), INPUT)
        second = builder.add("gate", Sigmoid(), builder.add("second", Conv2d(4, 3), INPUT))
        mixed = builder.add("mixture", Mixture("choice", ("first", "second")), first, second)
        bent = builder.add("bent", Sigmoid(), mixed)
    add_head(builder, bent, 2)
    return TrainedSupernet(trainer(), builder.build(), RECIPE)


def test_gradient_one_step_ahead_is_the_slope_of_the_loss_that_this_step_leaves():
    """Equation 6 of DARTS, checked by taking the step: the loss after one step of the weights, as the mixture varies."""

    def loss_after_a_step(first: float) -> float:
        training, coefficients = smooth_supernet(), {"choice": np.array([first, 0.5])}
        held, taken = next(training._streams[1]), next(training._streams[0])
        slopes = torch.autograd.grad(
            training._loss(taken, training._tensors(coefficients)), training._weights
        )
        with torch.no_grad():
            for weights, slope in zip(training._weights, slopes, strict=True):
                weights -= training._rate * (slope + RECIPE.weight_decay * weights)
        return float(training._loss(held, training._tensors(coefficients)).detach())

    even_parts = {"choice": np.array([0.5, 0.5])}
    ahead = smooth_supernet().gradient(even_parts, unrolled=True)
    here = smooth_supernet().gradient(even_parts, unrolled=False)
    slope = (loss_after_a_step(0.52) - loss_after_a_step(0.48)) / 0.04
    assert ahead["choice"][0] == pytest.approx(slope, rel=0.02)
    assert abs(here["choice"][0] - slope) > 5 * abs(ahead["choice"][0] - slope)


def test_gradients_leave_the_weights_as_they_were():
    training = supernet()
    before = [weights.clone() for weights in training._weights]
    training.gradient(even(), unrolled=True)
    assert all(torch.equal(*pair) for pair in zip(before, training._weights, strict=True))


def test_supernet_of_a_single_image_trains():
    short = trainer()
    short.images = Split(images=short.images.images[:1], labels=short.images.labels[:1])
    training = TrainedSupernet(short, SPACE.mixed(), RECIPE)
    training.begin_epoch()
    training.train_weights(
        {name: np.full(len(terms), 0.3) for name, terms in mixtures(SPACE.mixed()).items()}, progress=0.0
    )
