"""What a program or the command line asks of EdgeNAS: search, and go on with a search."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.config import FlaggedFigures, SearchConfig, home, search_config, store_url
from controller.core.errors import ConfigurationError
from controller.core.objective import Objective, decisive
from controller.core.trial import Trial
from controller.delivery import generate
from controller.devices.connect import connected, find_device
from controller.evaluation import Board, devices_asked_for_energy, devices_named
from controller.goals import goals
from controller.pareto.preference import select
from controller.plan import Plan, algorithm_of, environment, recorded, resolve, with_absolute_dataset
from controller.search import Progress, Search
from controller.store.records import Run
from controller.store.store import Store

_TASKS = ("image_classification",)
# What must not have changed when a run goes on: candidates before and after would not be comparable.
_COMPARED = ("dataset", "train_images", "validation_images", "test_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """A finished search.

    Attributes:
        run_id: Its id in the store.
        store: URL of the store.
        front: The best candidates, measured and tested.
        objectives: What they were chosen by.
        trials: Every candidate, those too that were left out.
    """

    run_id: str
    store: str
    front: tuple[Trial, ...]
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]

    def select(self, preference: str) -> Trial:
        """Return the candidate of the front that a preference means; see `controller.pareto.preference`."""
        return select(self.front, self.objectives, preference)

    def generate(self, out: Path | str, select: str = "knee") -> Trial:
        """Write a candidate of the front as a standalone project; see `controller.delivery.generate`."""
        store = Store(self.store)
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
    begun = time.monotonic()
    config = with_absolute_dataset(config)
    with ExitStack() as stack:
        for name in _device_names(config):
            find_device(name, home())
        plan = resolve(config)
        boards = _boards(config, stack)
        opened = Store(store)
        stack.callback(opened.close)
        run = opened.create_run(recorded(config, plan), environment())
        return _search(config, plan, run, opened, boards, begun, on_progress)


def resume(
    name: str,
    store: str,
    on_progress: Callable[[Progress], object],
    *,
    budget: str | None = None,
    keep_flagged: bool = False,
    take_over: bool = False,
) -> SearchResult:
    """Go on with a run where it stopped, or was killed, or with a finished one for a larger budget.

    Args:
        name: The run's id, its beginning, or `last`.
        store: URL or path of the store.
        on_progress: Told whenever something changes.
        budget: A new budget for the whole run; None keeps its own.
        keep_flagged: Whether to choose by flagged figures from now on; False leaves that as it was.
        take_over: Whether to go on although a process seems to be at work on it.

    Raises:
        InvalidInputError: If there is no such run, or its dataset has changed since.
        SearchStoppedError: If the search could not go on again.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        opened = Store(store)
        stack.callback(opened.close)
        run = opened.run(name)
        settings = dict(run.configuration["config"])
        if budget:
            settings["budget"] = budget
        if keep_flagged:
            settings["flagged"] = FlaggedFigures.KEEP.value
        config = search_config(settings, f"run {run.id}")
        plan = resolve(config)
        configuration = recorded(config, plan)
        if any(configuration[key] != run.configuration[key] for key in _COMPARED):
            raise ConfigurationError(
                f"dataset {config.dataset} is not what it was when run {run.id} began, so its candidates could not "
                "be compared; restore the images, or start a new search"
            )
        boards = _boards(config, stack)
        claimed = opened.claim(run, configuration=configuration, take_over=take_over)
        return _search(config, plan, claimed, opened, boards, begun, on_progress)


def _search(
    config: SearchConfig,
    plan: Plan,
    run: Run,
    store: Store,
    boards: Mapping[str, Board],
    begun: float,
    on_progress: Callable[[Progress], object],
) -> SearchResult:
    search = Search(
        run=run,
        store=store,
        problem=plan.problem,
        algorithm=algorithm_of(config, plan.problem),
        budget=plan.budget,
        trainer=plan.trainer,
        recipe=plan.recipe,
        boards=boards,
        threads=config.threads,
        keep_flagged=config.flagged is FlaggedFigures.KEEP,
        begun=begun,
        on_progress=on_progress,
    )
    best = tuple(search.run())
    return SearchResult(
        run_id=run.id,
        store=store.url,
        front=best,
        objectives=plan.problem.objectives,
        trials=tuple(search.trials),
    )


def _device_names(config: SearchConfig) -> list[str]:
    """Return every device that a goal or the configuration names."""
    return list(dict.fromkeys([*config.device, *devices_named(decisive(*goals(config)))]))


def _boards(config: SearchConfig, stack: ExitStack) -> dict[str, Board]:
    """Return connections to the devices, closed by stack.

    Raises:
        ConfigurationError: If one of them cannot measure what is asked of it.
    """
    wanted = decisive(*goals(config))
    boards = {}
    for name in _device_names(config):
        client = stack.enter_context(connected(name, home(), config.patience_s))
        found = client.describe()
        if name in devices_asked_for_energy(wanted) and found.energy_absent_reason:
            raise ConfigurationError(
                f"device {name!r} does not measure energy_mj: {found.energy_absent_reason}; "
                "search without this objective or constraint"
            )
        if config.threads > found.logical_cores > 0:
            raise ConfigurationError(
                f"threads is {config.threads}, and device {name!r} has {found.logical_cores} cores; "
                f"expected 1 to {found.logical_cores}, or 0 for its physical cores"
            )
        boards[name] = Board(bench=client, shares_processor=found.shares_processor)
    return boards
