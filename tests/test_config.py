from enum import Enum
from inspect import signature
from pathlib import Path

import pytest

from controller.algorithms import ALGORITHMS
from controller.config import SearchConfig, home, read_toml, search_config, store_url
from controller.core.errors import ConfigurationError
from controller.spaces import SPACES
from controller.training.recipe import Schedule, TrainingRecipe

EXAMPLE = """\
dataset = "folder:photos"
device = ["pi4", "nano"]
objectives = ["accuracy", "latency_ms@nano"]
constraints = ["latency_ms<=15"]
budget = "30m"
seed = 7

[training]
epochs = 12
schedule = "cosine"

[chain]
max_layers = 5
operations = ["conv3x3", "max_pool"]
channels = [8, 16]
"""


def test_configuration_is_what_the_file_says(tmp_path: Path):
    (tmp_path / "search.toml").write_text(EXAMPLE)
    config = search_config(read_toml(tmp_path / "search.toml"))
    assert config.dataset == "folder:photos"
    assert config.device == ("pi4", "nano")
    assert config.objectives == ("accuracy", "latency_ms@nano")
    assert config.constraints == ("latency_ms<=15",)
    assert (config.budget, config.seed) == ("30m", 7)
    assert (config.training.epochs, config.training.schedule) == (12, Schedule.COSINE)
    assert (config.chain.max_layers, config.chain.operations, config.chain.channels) == (
        5,
        ("conv3x3", "max_pool"),
        (8, 16),
    )


def test_configuration_of_a_dataset_alone_has_the_rest_by_default():
    config = search_config({"dataset": "digits"})
    assert (config.device, config.objectives, config.constraints) == ((), (), ())
    assert (config.budget, config.seed, config.preset) == ("50", 0, "edge")
    assert (config.space, config.algorithm) == ("chain", "evolution")


def test_configuration_survives_json():
    config = search_config({"dataset": "digits", "device": "pi4", "training": {"schedule": "cosine"}})
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config


def test_one_device_may_be_written_without_brackets():
    assert search_config({"dataset": "digits", "device": "pi4"}).device == ("pi4",)


def test_budget_may_be_written_as_a_number():
    assert search_config({"dataset": "digits", "budget": 200}).budget == "200"


@pytest.mark.parametrize("name", [*SPACES, *ALGORITHMS])
def test_section_of_a_space_or_an_algorithm_has_its_defaults(name: str):
    parameters = signature({**SPACES, **ALGORITHMS}[name]).parameters
    options = search_config({"dataset": "digits"}).options_of(name)
    defaults = {option: parameters[option].default for option in options}
    assert options == {
        option: value.value if isinstance(value, Enum) else value for option, value in defaults.items()
    }


@pytest.mark.parametrize("name", ["momentum", "weight_decay", "label_smoothing", "schedule"])
def test_training_configuration_is_the_recipe_by_default(name: str):
    assert getattr(search_config({"dataset": "digits"}).training, name) == getattr(TrainingRecipe(), name)


@pytest.mark.parametrize(
    ("settings", "path", "valid"),
    [
        ({"dateset": "digits"}, "dateset", "dataset, device, "),
        ({"training": {"epoch": 5}}, "training.epoch", "accelerator, augment, batch_size, epochs, "),
        ({"chain": {"depth": 5}}, "chain.depth", "channels, max_layers, "),
        ({"evolution": {"size": 5}}, "evolution.size", "crossover_probability, population"),
    ],
    ids=str,
)
def test_unknown_key_is_named_among_the_valid_ones(settings: dict[str, object], path: str, valid: str):
    with pytest.raises(ConfigurationError) as caught:
        search_config({"dataset": "digits", **settings}, "search.toml")
    message = str(caught.value)
    assert message.startswith(f"search.toml has the unknown key '{path}'; expected one of ")
    assert valid in message


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"dataset": 5}, "dataset = 5"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": "first"}, "seed = 'first'"),
        ({"budget": 2.5}, "budget = 2.5"),
        ({"budget": True}, "budget = True"),
        ({"patience_s": 0}, "patience_s = 0"),
        ({"device": [1]}, "device.0 = 1"),
        ({"objectives": "accuracy"}, "objectives = 'accuracy'"),
        ({"training": {"epochs": 0}}, "training.epochs = 0"),
        ({"training": {"batch_size": 1}}, "training.batch_size = 1"),
        ({"training": {"learning_rate": 0.0}}, "training.learning_rate = 0.0"),
        ({"training": {"momentum": 1.0}}, "training.momentum = 1.0"),
        ({"training": {"schedule": "linear"}}, "training.schedule = 'linear'"),
        ({"training": {"image_size": 2}}, "training.image_size = 2"),
        ({"training": 5}, "training = 5"),
        ({"chain": {"channels": [16, "many"]}}, "chain.channels.1 = 'many'"),
        ({"evolution": {"population": 1}}, "evolution.population = 1"),
    ],
    ids=str,
)
def test_value_that_is_not_what_it_should_be_is_named(settings: dict[str, object], named: str):
    with pytest.raises(ConfigurationError) as caught:
        search_config({"dataset": "digits", **settings}, "search.toml")
    assert str(caught.value).startswith(f"search.toml has {named}: ")
    assert "\n" not in str(caught.value)


def test_missing_dataset_is_asked_for():
    with pytest.raises(ConfigurationError, match="the search names no dataset; add dataset = … or --dataset"):
        search_config({"device": "pi4"})


def test_configuration_is_frozen():
    config = search_config({"dataset": "digits"})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError) as caught:
        read_toml(tmp_path / "search.toml")
    assert str(caught.value) == (
        f"configuration {tmp_path / 'search.toml'} cannot be read: No such file or directory; check the path"
    )


@pytest.mark.parametrize("content", [b"dataset = digits", b"\xff\xfe\x00", b"dataset = 'a'\ndataset = 'b'"])
def test_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "search.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"configuration .*search\.toml is no TOML: ") as caught:
        read_toml(tmp_path / "search.toml")
    assert "\n" not in str(caught.value)


def test_things_are_kept_in_the_home_of_edgenas(home: Path):
    assert store_url() == str(home / "edgenas.db")


@pytest.mark.parametrize("unset", ["", None])
def test_home_is_in_the_users_home_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unset: str | None
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGENAS_HOME", raising=False)
    if unset is not None:
        monkeypatch.setenv("EDGENAS_HOME", unset)
    assert home() == tmp_path / ".edgenas"


def test_store_can_be_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGENAS_STORE", "postgresql://team@server/edgenas")
    assert store_url() == "postgresql://team@server/edgenas"
