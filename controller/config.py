"""What a search is asked to do: a TOML file or keyword arguments, validated and frozen."""

import os
import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from controller.core.budget import Budget
from controller.core.errors import ConfigurationError
from controller.spaces import PRESETS, cell, chain, mobile
from controller.training.recipe import Schedule


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FlaggedFigures(Enum):
    """What a search does with figures whose flags say that something else than the model shaped them."""

    LEAVE_OUT = "leave_out"
    """Measure once more, then leave the candidate out."""
    KEEP = "keep"
    """Choose by them as by any other."""


class TrainingConfig(_Section):
    """How candidates are trained; what is None is chosen by the dataset."""

    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=2)
    learning_rate: float | None = Field(default=None, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    schedule: Schedule = Schedule.ONE_CYCLE
    train_images: int | None = Field(default=None, ge=2)
    image_size: int | None = Field(default=None, ge=4, le=1024)
    augment: bool | None = None
    accelerator: str = "auto"
    precision: str = "auto"


class ChainConfig(_Section):
    """What the chain space holds; see `controller.spaces.chain.ChainSpace`."""

    min_layers: int = 3
    max_layers: int = 8
    operations: tuple[str, ...] = chain.OPERATION_NAMES
    channels: tuple[int, ...] = chain.CHANNELS
    max_skip_distance: int = 4
    stem_channels: int = 16


class CellConfig(_Section):
    """What the cell space holds; see `controller.spaces.cell.CellSpace`."""

    nodes: int = 4
    operations: tuple[str, ...] = cell.OPERATION_NAMES
    channels: tuple[int, ...] = cell.CHANNELS
    cells: tuple[int, ...] = cell.CELLS


class MobileConfig(_Section):
    """What the mobile space holds; see `controller.spaces.mobile.MobileSpace`."""

    channels: tuple[tuple[int, ...], ...] = mobile.CHANNELS
    max_depth: int = 3
    operations: tuple[str, ...] = (mobile.INVERTED_RESIDUAL,)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (1, 3, 6)
    squeeze_excite: tuple[int, ...] = (0, 1)
    resolutions_percent: tuple[int, ...] = (100, 75, 50)
    stem_channels: int = 16


class EvolutionConfig(_Section):
    """How evolution goes about it; see `controller.algorithms.evolution.Evolution`."""

    population: int = Field(default=20, ge=2)
    crossover_probability: float = Field(default=0.5, ge=0, le=1)


class RegularizedEvolutionConfig(_Section):
    """How regularized evolution goes about it; see `controller.algorithms.regularized_evolution`."""

    population: int = Field(default=30, ge=2)
    entrants: int = Field(default=10, ge=1)


class LocalConfig(_Section):
    """How local search goes about it; see `controller.algorithms.local.LocalSearch`."""

    initial: int = Field(default=10, ge=1)


class ProgressiveConfig(_Section):
    """How progressive refinement goes about it; see `controller.algorithms.progressive.Progressive`."""

    initial: int = Field(default=12, ge=1)
    patience: int = Field(default=8, ge=1)
    kept: float = Field(default=0.5, gt=0, le=1)


class ReinforceConfig(_Section):
    """How reinforcement learning goes about it; see `controller.algorithms.reinforce.Reinforce`."""

    reward: Literal["preferences", "absolute", "soft"] = "preferences"
    beta: float = Field(default=-0.3, lt=0)
    learning_rate: float = Field(default=0.01, gt=0)
    entropy_weight: float = Field(default=0.02, ge=0)
    baseline_decay: float = Field(default=0.9, ge=0, lt=1)


class SurrogateConfig(_Section):
    """How surrogate search goes about it; see `controller.algorithms.surrogate.Surrogate`."""

    initial: int = Field(default=10, ge=1)


class EnsembleConfig(_Section):
    """How the ensemble goes about it; see `controller.algorithms.ensemble.Ensemble`."""

    members: tuple[str, ...] = ("surrogate", "regularized_evolution", "local")
    initial: int = Field(default=10, ge=1)
    floor: float = Field(default=0.05, ge=0, le=1)
    memory: float = Field(default=0.95, gt=0, le=1)


class DartsConfig(_Section):
    """How differentiable search goes about it; see `controller.algorithms.darts.Darts`."""

    epochs: int = Field(default=25, ge=1)
    warm_up: float = Field(default=0.3, ge=0, lt=1)
    sampled: bool = True
    unrolled: bool = False
    part: int = Field(default=1, ge=1)
    travel: float = Field(default=5.0, gt=0)
    most_skips: float = Field(default=0.5, ge=0, le=1)


class SearchConfig(_Section):
    """One search.

    Attributes:
        dataset: `digits`, `cifar10`, `cifar100`, `fashion_mnist` or `folder:PATH`.
        device: Devices to measure on; the first is meant where an objective names none.
        objectives: What is optimised, `METRIC` or `METRIC@DEVICE`; empty for accuracy, latency and memory.
        constraints: What every candidate worth keeping meets, e.g. `latency_ms<=15`.
        budget: A number of candidates, or a time such as `30m`.
        seed: Of every random draw.
        threads: Threads inside one operator on every device; 0 for as many as it has physical cores.
        preset: Class of hardware that bounds the networks proposed.
        space: What is searched.
        algorithm: What proposes candidates.
        flagged: What to do with figures that something else than the model shaped: `leave_out` or `keep`.
        patience_s: How long to wait for a device that gives no answer.
    """

    dataset: str
    device: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    budget: str = "50"
    seed: int = Field(default=0, ge=0, lt=2**63)
    threads: int = Field(default=0, ge=0, le=4096)
    preset: str = "edge"
    space: str = "chain"
    algorithm: str = "evolution"
    flagged: FlaggedFigures = FlaggedFigures.LEAVE_OUT
    patience_s: float = Field(default=300.0, gt=0)
    training: TrainingConfig = TrainingConfig()
    chain: ChainConfig = ChainConfig()
    cell: CellConfig = CellConfig()
    mobile: MobileConfig = MobileConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    regularized_evolution: RegularizedEvolutionConfig = RegularizedEvolutionConfig()
    local: LocalConfig = LocalConfig()
    progressive: ProgressiveConfig = ProgressiveConfig()
    reinforce: ReinforceConfig = ReinforceConfig()
    darts: DartsConfig = DartsConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    ensemble: EnsembleConfig = EnsembleConfig()

    def options_of(self, name: str) -> dict[str, Any]:
        """Return the section of a space or an algorithm; empty where it has none."""
        section = getattr(self, name) if name in type(self).model_fields else None
        return section.model_dump() if isinstance(section, _Section) else {}

    @field_validator("device", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("budget", mode="before")
    @classmethod
    def _number_or_text(cls, value: object) -> object:
        return str(value) if type(value) is int else value


def search_config(settings: Mapping[str, Any], source: str = "the search") -> SearchConfig:
    """Return validated settings.

    Args:
        settings: By name, sections as nested mappings.
        source: Where they come from, for the message.

    Raises:
        ConfigurationError: If a key is unknown or a value is not what it should be.
    """
    try:
        config = SearchConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            keys = _keys(first["loc"][:-1])
            raise ConfigurationError(
                f"{source} has the unknown key {path!r}; expected one of {', '.join(keys)}"
            ) from error
        if first["type"] == "missing":
            raise ConfigurationError(f"{source} names no {path}; add {path} = … or --{path}") from error
        raise ConfigurationError(f"{source} has {path} = {first['input']!r}: {first['msg']}") from error
    Budget.parse(config.budget)
    if config.preset not in PRESETS:
        raise ConfigurationError(f"preset {config.preset!r} is unknown; expected one of {', '.join(PRESETS)}")
    return config


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, not yet validated.

    Raises:
        ConfigurationError: If it cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"configuration {path} cannot be read: {error.strerror}; check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"configuration {path} is no TOML: {error}") from error


def home() -> Path:
    """Return where EdgeNAS keeps its things: $EDGENAS_HOME, else `~/.edgenas`."""
    return Path(os.environ.get("EDGENAS_HOME") or "~/.edgenas").expanduser()


def store_url() -> str:
    """Return where runs are kept: $EDGENAS_STORE, else a file in the EdgeNAS home."""
    return os.environ.get("EDGENAS_STORE") or str(home() / "edgenas.db")


def _keys(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = SearchConfig
    for part in location:
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        section = annotation
    return sorted(section.model_fields)
