import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.errors import ConfigurationError
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, ReLU
from controller.models.module import NetworkModule
from controller.training.data import load_dataset
from controller.training.dataset import Dataset, DatasetInfo, Split
from controller.training.recipe import Schedule, TrainingRecipe
from controller.training.trainer import (
    TrainedNetwork,
    Trainer,
    TrainingFailedError,
    augment,
    detect_accelerator,
    detect_precision,
    normalise,
)

CPU = torch.device("cpu")
RECIPE = TrainingRecipe(epochs=5, batch_size=32, learning_rate=0.1)
BRIEF = replace(RECIPE, epochs=1)


def network(
    *, channels: int = 16, input_shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10
) -> Network:
    builder = NetworkBuilder(input_shape=input_shape)
    source = INPUT
    for index, stride in enumerate((1, 2), start=1):
        with builder.block(f"layer_{index}", "conv3x3"):
            source = builder.add("conv", Conv2d(channels * index, 3, stride=stride), source)
            source = builder.add("relu", ReLU(), builder.add("bn", BatchNorm2d(), source))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(classes), builder.add("pool", GlobalAvgPool2d(), source))
    return builder.build()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", downloads=Path("nothing is downloaded"))


@pytest.fixture(scope="module")
def trainer(digits: Dataset) -> Trainer:
    return Trainer(digits, CPU, torch.float32)


@pytest.fixture(scope="module")
def trained(trainer: Trainer) -> TrainedNetwork:
    return trainer.train(network(), RECIPE)


def accuracy_of(module: NetworkModule, part: Split, info: DatasetInfo) -> float:
    with torch.inference_mode():
        return float((module(normalise(part.images, info)).argmax(dim=1) == part.labels).float().mean())


def shuffled(dataset: Dataset, part: str) -> Dataset:
    """Return dataset with the labels of one part turned to the next class."""
    split: Split = getattr(dataset, part)
    return replace(dataset, **{part: Split(images=split.images, labels=(split.labels + 1) % 10)})


def weights_equal(first: NetworkModule, second: NetworkModule) -> bool:
    return all(torch.equal(ours, second.state_dict()[name]) for name, ours in first.state_dict().items())


def test_trainer_learns_digits(trained: TrainedNetwork):
    assert trained.accuracy > 0.9


def test_trainer_reports_the_loss_of_each_epoch(trained: TrainedNetwork):
    assert len(trained.losses) == 5
    assert trained.losses[0] > 1.5
    assert trained.losses[-1] < 1.0
    assert trained.seconds > 0


def test_trained_accuracy_is_that_of_the_module_on_the_validation_images(
    digits: Dataset, trained: TrainedNetwork
):
    expected = accuracy_of(trained.module, digits.validation, digits.info)
    assert trained.accuracy == pytest.approx(expected, abs=1e-6)


def test_trained_module_is_ready_for_use(trained: TrainedNetwork):
    assert not trained.module.training
    assert all(parameter.device == CPU for parameter in trained.module.parameters())


def test_test_accuracy_is_that_of_the_module_on_the_test_images(
    digits: Dataset, trainer: Trainer, trained: TrainedNetwork
):
    expected = accuracy_of(trained.module, digits.test, digits.info)
    assert trainer.test_accuracy(trained.module) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", Schedule)
def test_trainer_gives_equal_weights_for_equal_seeds(trainer: Trainer, schedule: Schedule):
    recipe = replace(BRIEF, schedule=schedule)
    torch.manual_seed(1)
    first = trainer.train(network(), recipe)
    torch.manual_seed(2)
    second = trainer.train(network(), recipe)
    assert weights_equal(first.module, second.module)
    assert (first.accuracy, first.losses) == (second.accuracy, second.losses)


def test_trainer_gives_other_weights_for_another_seed(trainer: Trainer):
    first, second = trainer.train(network(), BRIEF), trainer.train(network(), replace(BRIEF, seed=1))
    assert not weights_equal(first.module, second.module)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_weights_do_not_depend_on_images_held_back(digits: Dataset, trainer: Trainer, part: str):
    other = Trainer(shuffled(digits, part), CPU, torch.float32)
    assert weights_equal(other.train(network(), BRIEF).module, trainer.train(network(), BRIEF).module)


def test_trained_accuracy_does_not_depend_on_the_test_images(digits: Dataset, trained: TrainedNetwork):
    other = Trainer(shuffled(digits, "test"), CPU, torch.float32)
    assert other.train(network(), RECIPE).accuracy == trained.accuracy


def test_augmented_training_differs(digits: Dataset, trainer: Trainer):
    flipped = replace(digits, info=replace(digits.info, natural=True))
    other = Trainer(flipped, CPU, torch.float32)
    assert not weights_equal(other.train(network(), BRIEF).module, trainer.train(network(), BRIEF).module)


@pytest.mark.parametrize("schedule", Schedule)
def test_trainer_learns_by_each_schedule(trainer: Trainer, schedule: Schedule):
    assert trainer.train(network(), replace(RECIPE, epochs=3, schedule=schedule)).accuracy > 0.6


def test_schedules_move_the_learning_rate_differently(trainer: Trainer):
    cosine, one_cycle = (
        trainer.train(network(), replace(BRIEF, schedule=schedule)).module for schedule in Schedule
    )
    assert not weights_equal(cosine, one_cycle)


def test_trainer_learns_in_bfloat16_and_judges_in_float32(digits: Dataset):
    trained = Trainer(digits, CPU, torch.bfloat16).train(network(), RECIPE)
    assert trained.accuracy > 0.9
    assert {tensor.dtype for tensor in trained.module.parameters()} == {torch.float32}


@pytest.mark.parametrize("batch_size", [2, 1000, 5000])
def test_trainer_takes_every_batch_size(digits: Dataset, batch_size: int):
    few = load_dataset("digits", downloads=Path("nothing is downloaded"), train_images=20)
    trained = Trainer(few, CPU, torch.float32).train(network(), replace(BRIEF, batch_size=batch_size))
    assert math.isfinite(trained.losses[0])


def test_training_that_diverges_is_refused(trainer: Trainer):
    with pytest.raises(TrainingFailedError) as caught:
        trainer.train(network(), replace(BRIEF, learning_rate=1e20))
    assert str(caught.value) == "training diverged in epoch 1 with learning rate 1e+20; lower it"


def test_network_that_does_not_fit_into_memory_is_refused(trainer: Trainer):
    enormous = network(classes=10**14)
    with pytest.raises(
        TrainingFailedError, match="training ran out of memory with batches of 32; choose a smaller"
    ):
        trainer.train(enormous, BRIEF)


def spread(weights: torch.Tensor) -> float:
    return float(weights.detach().square().sum())


def test_weight_decay_shrinks_the_weights_of_convolutions(trainer: Trainer):
    free = trainer.train(network(), replace(BRIEF, weight_decay=0.0)).module
    decayed = trainer.train(network(), replace(BRIEF, weight_decay=0.1)).module
    name = "layer_2.conv.weight"
    assert spread(decayed.get_parameter(name)) < 0.5 * spread(free.get_parameter(name))


@st.composite
def image_batches(draw: st.DrawFn) -> torch.Tensor:
    """Draw a batch whose pixels are all different and none of them 0, so that one tells where it came from."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    pixels = torch.arange(1, 1 + height * width, dtype=torch.uint8)
    return pixels.reshape(1, 1, height, width).repeat(
        draw(st.integers(1, 5)), draw(st.sampled_from((1, 3))), 1, 1
    )


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Return an image moved, with black where nothing moved to."""
    moved = torch.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


@settings(max_examples=50, deadline=None)
@given(images=image_batches(), seed=st.integers(0, 2**31))
def test_augment_shifts_by_an_eighth_at_most_and_flips(images: torch.Tensor, seed: int):
    result = augment(images, torch.Generator().manual_seed(seed))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    reach_y, reach_x = max(1, images.shape[2] // 8), max(1, images.shape[3] // 8)
    allowed = [
        shifted(turned, down, right)
        for turned in (images[0], images[0].flip(2))
        for down in range(-reach_y, reach_y + 1)
        for right in range(-reach_x, reach_x + 1)
    ]
    assert all(any(torch.equal(image, choice) for choice in allowed) for image in result)


def test_augment_uses_every_shift_and_flip():
    image = torch.arange(1, 65, dtype=torch.uint8).reshape(1, 1, 8, 8)
    result = augment(image.repeat(500, 1, 1, 1), torch.Generator().manual_seed(0))
    assert len(result.unique(dim=0)) == 2 * 3 * 3


def test_augment_leaves_its_input_as_it_was():
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    before = images.clone()
    augment(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)


def test_augment_depends_on_its_generator_alone():
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(50, 1, 1, 1)
    first, second, other = (augment(images, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_normalise_of_a_worked_example():
    info = DatasetInfo(
        name="folder",
        path="images",
        classes=("a", "b"),
        image_shape=(2, 1, 1),
        mean=(0.5, 0.0),
        std=(0.25, 1.0),
        natural=True,
        split_seed=0,
    )
    images = torch.tensor([[[[255]], [[0]]], [[[0]], [[51]]]], dtype=torch.uint8)
    assert normalise(images, info).flatten().tolist() == pytest.approx([2.0, 0.0, -2.0, 0.2])


def test_accelerator_is_found():
    assert detect_accelerator("cpu") == CPU
    assert detect_accelerator().type in ("cuda", "mps", "cpu")


@pytest.mark.parametrize("wanted", ["tpu", "", "cpu:first", "meta"])
def test_accelerator_that_is_not_there_is_refused(wanted: str):
    with pytest.raises(ConfigurationError) as caught:
        detect_accelerator(wanted)
    assert str(caught.value).startswith(
        f"accelerator {wanted!r} is not available here; expected auto or one of "
    )
    assert "cpu" in str(caught.value)


@pytest.mark.parametrize(("wanted", "precision"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_can_be_chosen(wanted: str, precision: torch.dtype):
    assert detect_precision(CPU, (3, 32, 32), wanted) is precision


def test_precision_of_small_images_is_float32():
    assert detect_precision(CPU, (1, 8, 8)) is torch.float32


def test_unknown_precision_is_refused():
    with pytest.raises(
        ConfigurationError, match="precision 'int8' is unknown; expected auto, float32 or bfloat16"
    ):
        detect_precision(CPU, (3, 32, 32), "int8")
