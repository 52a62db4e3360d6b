"""What a configuration makes a search optimise."""

import pytest

from controller.config import search_config
from controller.core.errors import ConfigurationError
from controller.goals import goals


def test_objectives_without_a_device_of_their_own_mean_the_first() -> None:
    config = search_config({"dataset": "digits", "device": ["pi4", "pi5"]})

    objectives, _ = goals(config)

    assert [objective.key for objective in objectives] == ["accuracy", "latency_ms@pi4", "peak_memory_mb@pi4"]


def test_objective_given_twice_is_refused() -> None:
    config = search_config(
        {"dataset": "digits", "device": "pi4", "objectives": ["latency_ms", "latency_ms@pi4"]}
    )

    with pytest.raises(ConfigurationError, match="'latency_ms@pi4' is given twice"):
        goals(config)
