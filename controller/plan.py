"""A configuration resolved against what there is: dataset, space, recipe, accelerator."""

import logging
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from controller.algorithms import ALGORITHMS
from controller.config import SearchConfig, home
from controller.core.budget import Budget
from controller.core.errors import ConfigurationError
from controller.core.plugins import find_plugin
from controller.core.protocols import Problem, SearchAlgorithm, SearchSpace
from controller.goals import goals
from controller.spaces import PRESETS, SPACES
from controller.training.data import load_dataset
from controller.training.dataset import Dataset, DatasetInfo
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer, detect_accelerator, detect_precision

logger = logging.getLogger(__name__)

DATASET_INFO: TypeAdapter[DatasetInfo] = TypeAdapter(DatasetInfo)
RECIPE: TypeAdapter[TrainingRecipe] = TypeAdapter(TrainingRecipe)
_SMALL_DATASET = 5000  # training images; below, smaller steps and more epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a search needs but the devices."""

    problem: Problem
    budget: Budget
    dataset: Dataset
    recipe: TrainingRecipe
    trainer: Trainer


def resolve(config: SearchConfig) -> Plan:
    """Return what a configuration means here.

    Raises:
        InvalidInputError: If something that it asks for is not there.
    """
    objectives, constraints = goals(config)
    find_plugin("algorithms", ALGORITHMS, config.algorithm)
    training = config.training
    accelerator = detect_accelerator(training.accelerator)
    budget = Budget.parse(config.budget)
    dataset = load_dataset(
        config.dataset,
        downloads=home() / "datasets",
        image_size=training.image_size,
        train_images=training.train_images,
        augment=training.augment,
    )
    precision = detect_precision(accelerator, dataset.info.image_shape, training.precision)
    logger.info("training on %s in %s", accelerator, str(precision).removeprefix("torch."))
    return Plan(
        problem=Problem(space=space_of(config, dataset.info), objectives=objectives, constraints=constraints),
        budget=budget,
        dataset=dataset,
        recipe=_recipe(config, len(dataset.train)),
        trainer=Trainer(dataset, accelerator, precision),
    )


def with_absolute_dataset(config: SearchConfig) -> SearchConfig:
    """Return config with a folder of images named by its full path, so that a run resumes from anywhere."""
    kind, separator, path = config.dataset.partition(":")
    if kind != "folder" or not path:
        return config
    return config.model_copy(update={"dataset": f"{kind}{separator}{Path(path).expanduser().resolve()}"})


def algorithm_of(config: SearchConfig, problem: Problem) -> SearchAlgorithm:
    """Return the algorithm that a configuration names, at its beginning."""
    factory = find_plugin("algorithms", ALGORITHMS, config.algorithm)
    return factory(problem, config.seed, **config.options_of(config.algorithm))


def space_of(config: SearchConfig, dataset: DatasetInfo) -> SearchSpace:
    """Return the space that a configuration names, for the images and classes of a dataset."""
    factory = find_plugin("spaces", SPACES, config.space)
    space = factory(
        input_shape=dataset.image_shape,
        classes=len(dataset.classes),
        limits=PRESETS[config.preset],
        **config.options_of(config.space),
    )
    if not space.choices:
        raise ConfigurationError(
            f"space {config.space!r} has a single network with these options; expected at least one choice between two"
        )
    return space


def recorded(config: SearchConfig, plan: Plan) -> dict[str, Any]:
    """Return the configuration as asked for and as resolved, ready for JSON."""
    return {
        "config": config.model_dump(mode="json"),
        "dataset": DATASET_INFO.dump_python(plan.dataset.info, mode="json"),
        "recipe": RECIPE.dump_python(plan.recipe, mode="json"),
        "accelerator": str(plan.trainer.accelerator),
        "precision": str(plan.trainer.precision).removeprefix("torch."),
        "train_images": len(plan.dataset.train),
        "validation_images": len(plan.dataset.validation),
        "test_images": len(plan.dataset.test),
        "skipped_images": len(plan.dataset.skipped_files),
    }


def environment() -> dict[str, str]:
    """Return what runs the search: versions, machine, and the source's revision where it is a checkout."""
    try:
        own_version = version("edgenas")
    except PackageNotFoundError:
        own_version = "not installed"
    return {
        "edgenas": own_version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_revision": _git_revision() or "not a checkout",
    }


def _git_revision() -> str | None:
    """Return the revision of EdgeNAS's own checkout; None where it is none, or git is not installed."""
    source = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"],
            cwd=source,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    top, _, revision = done.stdout.strip().partition("\n")
    return revision if done.returncode == 0 and Path(top) == source else None


def _recipe(config: SearchConfig, train_images: int) -> TrainingRecipe:
    training = config.training
    small = train_images < _SMALL_DATASET
    batch_size = min(training.batch_size or (64 if small else 128), train_images)
    return TrainingRecipe(
        epochs=training.epochs or (15 if small else 5),
        batch_size=batch_size,
        # The rate grows with the batch. Source: Goyal et al. 2017, section 2.1.
        learning_rate=training.learning_rate or 0.2 * batch_size / 128,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        label_smoothing=training.label_smoothing,
        schedule=training.schedule,
        seed=config.seed,
    )
