"""What every registered search space keeps to."""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from example_table import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.errors import SpaceError
from controller.core.network import analyse
from controller.core.protocols import SearchSpace
from controller.core.table import read_table
from controller.spaces import PRESETS, SPACES
from controller.spaces.tabular import TabularSpace

RANDOM = settings(max_examples=25, deadline=None)
SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
LIMITS = PRESETS["edge"]

every_space = pytest.mark.parametrize("name", [*SPACES, "tabular"])
every_space_of_networks = pytest.mark.parametrize("name", SPACES)


@cache
def of_a_table() -> TabularSpace:
    with tempfile.TemporaryDirectory() as folder:
        return TabularSpace(read_table(write_table(Path(folder) / "table.csv")))


def build(name: str) -> SearchSpace:
    if name == "tabular":
        return of_a_table()
    return SPACES[name](input_shape=(3, 12, 12), classes=4, limits=LIMITS)


def proposals(space: SearchSpace, seed: int, count: int = 10) -> Iterator[Architecture]:
    """Yield what a search could propose: samples, their children, and the mutants of those."""
    rng = np.random.default_rng(seed)
    parents = [space.sample(rng), space.sample(rng)]
    yield from parents
    for _ in range(count):
        child = space.cross(parents[-2], parents[-1], rng)
        parents.append(space.mutate(child, rng))
        yield from (child, parents[-1])


@every_space
def test_space_names_each_choice_once(name: str):
    names = [choice.name for choice in build(name).choices]
    assert len(names) == len(set(names)) > 0


@every_space
@RANDOM
@given(seed=SEEDS)
def test_space_proposes_options_of_its_choices(name: str, seed: int):
    space = build(name)
    options = {choice.name: choice.options for choice in space.choices}
    for architecture in proposals(space, seed):
        assert architecture.values.keys() == options.keys()
        assert all(value in options[choice] for choice, value in architecture.items)


@every_space
@RANDOM
@given(seed=SEEDS)
def test_space_draws_from_the_generator_alone(name: str, seed: int):
    assert list(proposals(build(name), seed)) == list(proposals(build(name), seed))


@every_space
def test_space_samples_differ(name: str):
    rng = np.random.default_rng(0)
    space = build(name)
    assert len({space.sample(rng).id for _ in range(20)}) > 1


@every_space
@RANDOM
@given(seed=SEEDS)
def test_space_mutation_is_another_architecture(name: str, seed: int):
    rng = np.random.default_rng(seed)
    space = build(name)
    architecture = space.sample(rng)
    assert space.mutate(architecture, rng) != architecture


@every_space
def test_space_mutation_reaches_several_neighbours(name: str):
    rng = np.random.default_rng(0)
    space = build(name)
    architecture = space.sample(rng)
    assert len({space.mutate(architecture, rng).id for _ in range(20)}) > 5


@every_space
@RANDOM
@given(seed=SEEDS)
def test_space_crossing_equal_parents_can_give_the_parent(name: str, seed: int):
    rng = np.random.default_rng(seed)
    space = build(name)
    architecture = space.sample(rng)
    assert any(space.cross(architecture, architecture, rng) == architecture for _ in range(2000))


@every_space
def test_space_child_takes_after_both_parents(name: str):
    rng = np.random.default_rng(0)
    space = build(name)
    first, second = space.sample(rng), space.sample(rng)
    children = [space.cross(first, second, rng) for _ in range(50)]
    assert any(
        set(child.items) & (set(first.items) - set(second.items))
        and set(child.items) & (set(second.items) - set(first.items))
        for child in children
    )


@every_space_of_networks
@RANDOM
@given(seed=SEEDS)
def test_space_gives_equal_networks_equal_ids_and_different_ones_different_ids(name: str, seed: int):
    space = build(name)
    network_of = {architecture.id: space.lower(architecture) for architecture in proposals(space, seed)}
    assert len(set(network_of.values())) == len(network_of)


@every_space_of_networks
@RANDOM
@given(seed=SEEDS)
def test_space_networks_read_the_images_and_tell_the_classes(name: str, seed: int):
    space = build(name)
    for architecture in proposals(space, seed):
        network = space.lower(architecture)
        assert network.input_shape == (3, 12, 12)
        assert network.output.shape == (4,)


@every_space_of_networks
@RANDOM
@given(seed=SEEDS)
def test_space_networks_keep_to_the_limits(name: str, seed: int):
    space = build(name)
    assert all(LIMITS.hold(analyse(space.lower(found))) for found in proposals(space, seed))


@every_space_of_networks
@RANDOM
@given(seed=SEEDS)
def test_space_lowers_an_architecture_read_from_json_alike(name: str, seed: int):
    space = build(name)
    architecture = space.sample(np.random.default_rng(seed))
    again = Architecture.from_json(architecture.to_json())
    assert build(name).lower(again) == space.lower(architecture)


@every_space
def test_space_refuses_an_architecture_of_another_space(name: str):
    with pytest.raises(SpaceError, match=Architecture.of({"colour": "blue"}).id):
        build(name).lower(Architecture.of({"colour": "blue"}))


@every_space
@RANDOM
@given(seed=SEEDS)
def test_space_composes_what_it_proposes(name: str, seed: int):
    space = build(name)
    assert all(space.compose(found.values) == found for found in proposals(space, seed, count=3))


@every_space
def test_space_tells_figures_of_what_it_proposes(name: str):
    space = build(name)
    for architecture in proposals(space, 0, count=3):
        figures = space.figures(architecture)
        assert {"macs_m", "params_m"} <= figures.keys()
        assert all(np.isfinite(value) and value >= 0 for value in figures.values())


@every_space_of_networks
@RANDOM
@given(seed=SEEDS)
def test_space_tells_of_a_network_what_its_graph_tells(name: str, seed: int):
    space = build(name)
    for architecture in proposals(space, seed):
        assert space.figures(architecture) == analyse(build(name).lower(architecture))
