"""What a search optimises and what it keeps to, told without the libraries that it trains with."""

from controller.config import SearchConfig, search_config
from controller.core.objective import Constraint, Objective, check_each_once, decisive
from controller.store.records import Run

DEFAULT_OBJECTIVES = ("accuracy", "latency_ms", "peak_memory_mb")


def goals(config: SearchConfig) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    """Return what a search optimises and what it keeps to.

    Raises:
        ConfigurationError: If one of them is not understood, or given twice.
    """
    default = config.device[0] if config.device else None
    objectives = [Objective.parse(text, default) for text in config.objectives or DEFAULT_OBJECTIVES]
    check_each_once(objectives)
    return tuple(objectives), tuple(Constraint.parse(text, default) for text in config.constraints)


def run_columns(run: Run) -> tuple[Objective, ...]:
    """Return what is shown of a run's candidates: all that they are judged by."""
    return decisive(*_run_goals(run))


def run_objectives(run: Run) -> tuple[Objective, ...]:
    """Return what a run optimises."""
    return _run_goals(run)[0]


def _run_goals(run: Run) -> tuple[tuple[Objective, ...], tuple[Constraint, ...]]:
    return goals(search_config(run.configuration["config"], f"run {run.id}"))
