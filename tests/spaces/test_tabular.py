from pathlib import Path

import numpy as np
import pytest
from example_table import write_table

from controller.core.architecture import Architecture
from controller.core.errors import SpaceError
from controller.core.table import read_table
from controller.spaces.tabular import TabularSpace


@pytest.fixture
def space(tmp_path: Path) -> TabularSpace:
    return TabularSpace(read_table(write_table(tmp_path / "table.csv")))


def differing(first: Architecture, second: Architecture) -> int:
    return sum(first[name] != value for name, value in second.items)


def test_tabular_space_samples_every_row(space: TabularSpace):
    rng = np.random.default_rng(0)
    assert len({space.sample(rng).id for _ in range(600)}) == 64


def test_tabular_mutation_changes_one_choice(space: TabularSpace):
    rng = np.random.default_rng(0)
    parent = space.sample(rng)
    neighbours = {space.mutate(parent, rng) for _ in range(300)}
    assert len(neighbours) == 9
    assert all(differing(parent, neighbour) == 1 for neighbour in neighbours)


def test_tabular_child_takes_after_both_parents(space: TabularSpace):
    rng = np.random.default_rng(0)
    first, second = (
        space.compose({"a": "p", "b": "w", "width": 8}),
        space.compose({"a": "s", "b": "z", "width": 64}),
    )
    assert first is not None
    assert second is not None
    children = [space.cross(first, second, rng) for _ in range(100)]
    assert {differing(first, child) for child in children} == {0, 1, 2, 3}


def test_sparse_table_mutates_to_the_rows_that_differ_least(tmp_path: Path):
    path = tmp_path / "sparse.csv"
    path.write_text("choice.a,choice.b,choice.c,x\np,w,1,0\nq,x,1,0\nr,y,2,0\ns,z,3,0\n")
    space = TabularSpace(read_table(path))
    parent = space.compose({"a": "p", "b": "w", "c": 1})
    assert parent is not None
    rng = np.random.default_rng(0)
    assert all(space.mutate(parent, rng) != parent for _ in range(50))
    assert space.compose({"a": "p", "b": "x", "c": 1}) is None


def test_tabular_space_tells_what_analysis_would_and_nothing_else(space: TabularSpace):
    architecture = space.compose({"a": "p", "b": "w", "width": 8})
    assert architecture is not None
    assert space.figures(architecture) == {"macs_m": 14.0, "params_m": 0.8}


def test_tabular_space_has_no_networks(space: TabularSpace):
    with pytest.raises(SpaceError, match="replay the table"):
        space.lower(space.sample(np.random.default_rng(0)))


def test_tabular_space_refuses_what_is_no_row(space: TabularSpace):
    with pytest.raises(SpaceError, match="no row of the table"):
        space.figures(Architecture.of({"a": "p"}))


def test_table_of_one_row_has_no_neighbours(tmp_path: Path):
    path = tmp_path / "one.csv"
    path.write_text("choice.a,x\np,0\n")
    space = TabularSpace(read_table(path))
    with pytest.raises(SpaceError, match="single row"):
        space.mutate(space.sample(np.random.default_rng(0)), np.random.default_rng(0))
