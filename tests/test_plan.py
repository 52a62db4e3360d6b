"""What a configuration means here."""

import json
from pathlib import Path

import numpy as np
import pytest

from controller.config import search_config
from controller.core.errors import ConfigurationError
from controller.core.protocols import Problem
from controller.core.trial import Trial, TrialState
from controller.goals import goals
from controller.plan import algorithm_of, environment, space_of, with_absolute_dataset
from controller.spaces import ChainSpace
from controller.training.data import load_dataset


def test_evolution_keeps_as_many_as_configured() -> None:
    space = ChainSpace(input_shape=(1, 8, 8), classes=10)
    config = search_config({"dataset": "digits", "objectives": ["macs_m"], "evolution": {"population": 3}})
    algorithm = algorithm_of(config, Problem(space=space, objectives=goals(config)[0]))
    rng = np.random.default_rng(0)
    trials = [
        Trial(
            index=index, architecture=space.sample(rng), state=TrialState.COMPLETE, values={"macs_m": index}
        )
        for index in range(6)
    ]

    algorithm.tell(trials)

    assert len(json.loads(algorithm.state())["population"]) == 3


def test_folder_of_images_is_named_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = search_config({"dataset": "folder:photos"})

    assert with_absolute_dataset(config).dataset == f"folder:{tmp_path / 'photos'}"


def test_environment_does_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert environment()["git_revision"] == "not a checkout"


def test_space_of_a_single_network_is_refused(tmp_path: Path) -> None:
    mobile = {
        "channels": [[16]],
        "max_depth": 1,
        "kernel_sizes": [3],
        "expansions": [3],
        "squeeze_excite": [0],
    }
    config = search_config(
        {"dataset": "digits", "space": "mobile", "mobile": {**mobile, "resolutions_percent": [100]}}
    )
    dataset = load_dataset("digits", downloads=tmp_path)
    with pytest.raises(ConfigurationError, match="space 'mobile' has a single network"):
        space_of(config, dataset.info)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**20])
def test_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(ConfigurationError, match="seed"):
        search_config({"dataset": "digits", "seed": seed})
