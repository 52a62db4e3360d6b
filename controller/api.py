"""What a program or the command line asks of EdgeNAS: search, resume, generate."""

import json
import logging
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from controller.algorithms import ALGORITHMS
from controller.codegen.generator import generate_project
from controller.codegen.project import Project
from controller.config import SearchConfig, home, search_config, store_url
from controller.core.errors import ConfigurationError, NotFoundError
from controller.core.measurement import Measurement, ModelFormat
from controller.core.objective import Constraint, Objective
from controller.core.plugins import find_plugin
from controller.core.protocols import SearchSpace
from controller.core.trial import Trial
from controller.devices.connect import connected, find_device
from controller.evaluation import Board, devices_named
from controller.models.artifact import export
from controller.models.module import NetworkModule
from controller.pareto.front import front
from controller.pareto.selection import select, select_weighted
from controller.search import Budget, Progress, Search
from controller.spaces import PRESETS, SPACES
from controller.store.store import Run, Store
from controller.training.data import load_dataset
from controller.training.dataset import Dataset, DatasetInfo
from controller.training.recipe import TrainingRecipe
from controller.training.trainer import Trainer, detect_accelerator, detect_precision

logger = logging.getLogger(__name__)

DEFAULT_OBJECTIVES = ("accuracy", "latency_ms", "peak_memory_mb")
_TASKS = ("image_classification",)
_SMALL_DATASET = 5000  # training images; below, smaller steps and more epochs
_DATASET_INFO: TypeAdapter[DatasetInfo] = TypeAdapter(DatasetInfo)
_RECIPE: TypeAdapter[TrainingRecipe] = TypeAdapter(TrainingRecipe)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A finished search.

    Attributes:
        run_id: Its id in the store.
        front: The best candidates, measured and tested.
        objectives: What they were chosen by.
    """

    run_id: str
    front: tuple[Trial, ...]
    objectives: tuple[Objective, ...]

    def generate(self, out: Path | str, select: str = "knee") -> Trial:
        """Write a candidate of the front as a standalone project; see `generate`."""
        store = Store(store_url())
        try:
            return generate(store, store.run(self.run_id), Path(out), preference=select)
        finally:
            store.close()


class NeuralArchitectureSearch:
    """Finds networks for a dataset and a device.

    Args:
        dataset: `digits`, `cifar10`, `cifar100`, `fashion_mnist` or `folder:PATH`.
        device: A registered device, or several, or `local`.
        task: What the network is for; `image_classification`.
        objectives: What is optimised; empty for accuracy, latency and memory.
        on_progress: Told whenever something changes.
        settings: Further fields of `controller.config.SearchConfig`.

    Raises:
        ConfigurationError: If a setting is wrong.
    """

    def __init__(
        self,
        *,
        dataset: str,
        device: str | Sequence[str] = (),
        task: str = "image_classification",
        objectives: Sequence[str] = (),
        on_progress: Callable[[Progress], object] = lambda _: None,
        **settings: Any,
    ) -> None:
        if task not in _TASKS:
            raise ConfigurationError(f"task {task!r} is unknown; expected one of {', '.join(_TASKS)}")
        self._config = search_config(
            dict(settings, dataset=dataset, device=device, objectives=tuple(objectives))
        )
        self._on_progress = on_progress

    def search(self) -> SearchResult:
        """Search until the budget is spent, and return the front.

        Raises:
            InvalidInputError: If something that was asked for is not there; nothing is stored then.
            SearchStoppedError: If the search could not go on; it can be resumed.
        """
        return start(self._config, store_url(), self._on_progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A configuration resolved against what there is: everything a search needs but the devices."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    budget: Budget
    dataset: Dataset
    recipe: TrainingRecipe
    space: SearchSpace
    trainer: Trainer


def start(config: SearchConfig, store: str, on_progress: Callable[[Progress], object]) -> SearchResult:
    """Run a new search; the run is stored only once everything that it needs has been found.

    Args:
        config: What to search.
        store: URL or path of the store.
        on_progress: Told whenever something changes.

    Raises:
        InvalidInputError: If something that was asked for is not there.
        SearchStoppedError: If the search could not go on; it can be resumed.
    """
    with ExitStack() as stack:
        for name in _device_names(config):
            find_device(name, home())
        plan = _plan(config)
        boards = _boards(config, stack)
        opened = Store(store)
        stack.callback(opened.close)
        run = opened.create_run(_configuration(config, plan), _environment())
        return _search(config, plan, run, opened, boards, on_progress)


def resume(name: str, store: str, on_progress: Callable[[Progress], object]) -> SearchResult:
    """Go on with a run where it stopped, or was killed.

    Args:
        name: The run's id, its beginning, or `last`.
        store: URL or path of the store.
        on_progress: Told whenever something changes.

    Raises:
        InvalidInputError: If there is no such run, or its dataset has changed since.
        SearchStoppedError: If the search could not go on again.
    """
    with ExitStack() as stack:
        opened = Store(store)
        stack.callback(opened.close)
        run = opened.run(name)
        config = search_config(run.configuration["config"], f"run {run.id}")
        plan = _plan(config)
        if _DATASET_INFO.dump_python(plan.dataset.info, mode="json") != run.configuration["dataset"]:
            raise ConfigurationError(
                f"dataset {config.dataset} is not what it was when run {run.id} began, so its candidates could not be compared; "
                "restore the images, or start a new search"
            )
        boards = _boards(config, stack)
        return _search(config, plan, opened.claim(run), opened, boards, on_progress)


def generate(
    store: Store, run: Run, out: Path, *, preference: str = "knee", weights: Mapping[str, float] | None = None
) -> Trial:
    """Write a candidate of a run's front as a standalone project, and return it.

    Args:
        store: Where the run is.
        run: Whose front to choose from.
        out: Folder to make; it must not hold anything yet.
        preference: `knee`, an objective to be best in, or a trial's id.
        weights: Importance by objective, instead of preference.

    Raises:
        InvalidInputError: If the run has no front yet, or out is taken.
        ExportError: If the generated model does not compute what was searched.
    """
    objectives = run_objectives(run)
    best = front(objectives, store.trials(run.id).trials)
    if not best:
        raise NotFoundError(f"run {run.id} has no candidate that meets every constraint; nothing to generate")
    trial = select_weighted(best, objectives, weights) if weights else select(best, objectives, preference)
    dataset = _DATASET_INFO.validate_python(run.configuration["dataset"])
    config = search_config(run.configuration["config"], f"run {run.id}")
    network = _space(config, dataset).lower(trial.architecture)
    module = NetworkModule(network)
    module.load_state_dict(store.weights(run.id, trial.id))
    model = export(module, ModelFormat.ONNX)
    measured = store.measurements(run.id, trial)
    if any(measurement.model_sha256 != model.sha256 for measurement in measured.values()):
        raise NotFoundError(
            f"candidate {trial.id} of run {run.id} was measured before it was trained, not yet with its weights; "
            f"let the run finish first: edgenas runs resume {run.id}"
        )
    generate_project(
        Project(
            name=f"{dataset.name}-{trial.id}",
            network=network,
            weights=module.state_dict(),
            onnx=model.data,
            dataset=dataset,
            recipe=_RECIPE.validate_python(run.configuration["recipe"]),
            train_images=run.configuration["train_images"],
            figures=trial.values,
            measurements=[_measured(device, measurement) for device, measurement in measured.items()],
        ),
        out,
    )
    return trial


def run_objectives(run: Run) -> tuple[Objective, ...]:
    """Return what a run optimises."""
    return goals(search_config(run.configuration["config"], f"run {run.id}"))[0]


def _search(
    config: SearchConfig,
    plan: _Plan,
    run: Run,
    store: Store,
    boards: Mapping[str, Board],
    on_progress: Callable[[Progress], object],
) -> SearchResult:
    algorithm = find_plugin("algorithms", ALGORITHMS, config.algorithm)(
        plan.space, plan.objectives, config.seed
    )
    search = Search(
        run=run,
        store=store,
        space=plan.space,
        algorithm=algorithm,
        objectives=plan.objectives,
        constraints=plan.constraints,
        budget=plan.budget,
        trainer=plan.trainer,
        recipe=plan.recipe,
        boards=boards,
        on_progress=on_progress,
    )
    return SearchResult(run_id=run.id, front=tuple(search.run()), objectives=plan.objectives)


def goals(config: SearchConfig) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    """Return what a search optimises and what it keeps to.

    Raises:
        ConfigurationError: If one of them is not understood, or given twice.
    """
    default = config.device[0] if config.device else None
    objectives = [Objective.parse(text, default) for text in config.objectives or DEFAULT_OBJECTIVES]
    repeated = [objective.key for objective in objectives if objectives.count(objective) > 1]
    if repeated:
        raise ConfigurationError(f"objective {repeated[0]!r} is given twice; expected each once")
    return tuple(objectives), tuple(Constraint.parse(text, default) for text in config.constraints)


def _device_names(config: SearchConfig) -> list[str]:
    """Return every device that a goal or the configuration names."""
    return list(dict.fromkeys([*config.device, *devices_named(*goals(config))]))


def _boards(config: SearchConfig, stack: ExitStack) -> dict[str, Board]:
    """Return connections to the devices, closed by stack."""
    boards = {}
    for name in _device_names(config):
        client = stack.enter_context(connected(name, home(), config.patience_s))
        boards[name] = Board(bench=client, shares_processor=client.describe().shares_processor)
    return boards


def _plan(config: SearchConfig) -> _Plan:
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
    return _Plan(
        objectives=objectives,
        constraints=constraints,
        budget=budget,
        dataset=dataset,
        recipe=_recipe(config, len(dataset.train)),
        space=_space(config, dataset.info),
        trainer=Trainer(dataset, accelerator, precision),
    )


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


def _space(config: SearchConfig, dataset: DatasetInfo) -> SearchSpace:
    if config.preset not in PRESETS:
        raise ConfigurationError(f"preset {config.preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    factory = find_plugin("spaces", SPACES, config.space)
    options = config.chain.model_dump() if config.space == "chain" else {}
    return factory(
        input_shape=dataset.image_shape,
        classes=len(dataset.classes),
        limits=PRESETS[config.preset],
        **options,
    )


def _configuration(config: SearchConfig, plan: _Plan) -> dict[str, Any]:
    """Return the configuration as asked for and as resolved, ready for JSON."""
    return {
        "config": config.model_dump(mode="json"),
        "dataset": _DATASET_INFO.dump_python(plan.dataset.info, mode="json"),
        "recipe": _RECIPE.dump_python(plan.recipe, mode="json"),
        "accelerator": str(plan.trainer.accelerator),
        "precision": str(plan.trainer.precision).removeprefix("torch."),
        "train_images": len(plan.dataset.train),
        "validation_images": len(plan.dataset.validation),
        "test_images": len(plan.dataset.test),
        "skipped_images": len(plan.dataset.skipped_files),
    }


def _environment() -> dict[str, str]:
    """Return what runs the search: versions, machine, and the source's revision where it is a checkout."""
    try:
        own_version = version("edgenas")
    except PackageNotFoundError:
        own_version = "not installed"
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return {
        "edgenas": own_version,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_revision": revision.stdout.strip() if revision.returncode == 0 else "not a checkout",
    }


def _measured(device: str, measurement: Measurement) -> dict[str, Any]:
    """Return a measurement for `measurements.json`."""
    record: dict[str, Any] = json.loads(TypeAdapter(Measurement).dump_json(measurement))
    return {
        "device": device,
        "model_file": "model.onnx",
        **measurement.metrics,
        "energy_mj": measurement.energy_mj,
        "energy_absent_reason": measurement.energy_absent_reason,
        "flags": list(measurement.flags),
        **{
            key: value
            for key, value in record.items()
            if key not in ("flags", "energy_mj", "energy_absent_reason")
        },
    }
