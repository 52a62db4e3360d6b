import csv
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.errors import SpaceError
from controller.core.measurement import ModelFormat
from controller.core.primitives import Conv2d
from controller.models.artifact import export
from controller.models.module import seeded_module
from controller.spaces import PRESETS, CellSpace
from controller.spaces.cell import NAS_BENCH_201, OPERATION_NAMES

TABLE = Path(os.environ.get("EDGENAS_DATA", "../shared/data")) / "tables" / "nb201_cifar10.csv.gz"
EDGES = ("1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2")


def space(**settings: object) -> CellSpace:
    arguments = {"input_shape": (1, 8, 8), "classes": 10, "channels": (8,), "cells": (1,), **settings}
    return CellSpace(**{"limits": PRESETS["gpu"], **arguments})


def cell(*operations: str) -> dict[str, str]:
    return dict(zip(EDGES, operations, strict=True))


def test_cell_costs_what_the_tables_of_nas_bench_201_say():
    if not TABLE.exists():
        pytest.skip(f"{TABLE} is not there")
    searched = space(
        input_shape=(3, 32, 32), channels=(16,), cells=(5,), operations=NAS_BENCH_201, limits=PRESETS["gpu"]
    )
    with gzip.open(TABLE, "rt") as lines:
        rows = [row for row in csv.DictReader(lines) if "none" not in row.values()]
    for row in rows[::40]:
        figures = searched.figures(Architecture.of({edge: row[f"choice.{edge}"] for edge in EDGES}))
        assert figures["params_m"] == pytest.approx(float(row["params_m"]), rel=1e-5)
        assert figures["macs_m"] == pytest.approx(float(row["macs_m"]), rel=1e-5)


def test_cell_with_one_number_of_channels_and_cells_has_the_choices_of_nas_bench_201():
    choices = space(operations=NAS_BENCH_201).choices
    assert [choice.name for choice in choices] == list(EDGES)
    assert {choice.options for choice in choices} == {NAS_BENCH_201}


@pytest.mark.parametrize(
    "dead",
    [
        cell("zero", "conv3x3", "conv5x5", "zero", "zero", "skip_connect"),  # node 1 gets nothing
        cell("zero", "conv3x3", "zero", "zero", "max_pool_3x3", "skip_connect"),
    ],
    ids=["into node 2", "into node 3"],
)
def test_cell_edge_that_leads_nowhere_is_no_edge(dead: dict[str, str]):
    alive = space().compose(cell("zero", "conv3x3", "zero", "zero", "zero", "skip_connect"))
    assert space().compose(dead) == alive


def test_cell_node_that_nothing_reads_has_no_edges():
    unread = space().compose(cell("conv3x3", "conv3x3", "zero", "zero", "zero", "skip_connect"))
    assert unread == space().compose(cell("zero", "conv3x3", "zero", "zero", "zero", "skip_connect"))


def test_cell_with_its_inner_nodes_in_another_order_is_the_same():
    one = cell("conv3x3", "conv5x5", "zero", "zero", "skip_connect", "max_pool_3x3")
    other = cell("conv5x5", "conv3x3", "zero", "zero", "max_pool_3x3", "skip_connect")
    assert space().compose(one) == space().compose(other)


def test_cell_that_passes_its_input_on_is_one_architecture_whatever_the_number_of_cells():
    searched = space(cells=(1, 2, 3))
    way, detour = (
        cell("zero", "zero", "zero", "skip_connect", "zero", "zero"),
        cell("skip_connect", "zero", "skip_connect", "zero", "zero", "skip_connect"),
    )
    found = {searched.compose({**edges, "cells": count}) for edges in (way, detour) for count in (1, 2, 3)}
    assert len(found) == 1


@pytest.mark.parametrize(
    "cut",
    [
        cell(*["zero"] * 6),
        cell("conv3x3", "conv3x3", "conv3x3", "zero", "zero", "zero"),
        cell("zero", "zero", "conv3x3", "zero", "conv3x3", "conv3x3"),
    ],
    ids=["zero everywhere", "no way to the output", "no way from the input"],
)
def test_cell_without_a_way_through_is_refused_with_the_reason(cut: dict[str, str]):
    assert space().compose(cut) is None
    with pytest.raises(SpaceError, match="has no path from its cell's input, node 0, to its output, node 3"):
        space().lower(Architecture.of(cut))


def test_cell_of_any_two_operations_computes_what_it_exports():
    """Every pair on the two edges that meet in the output, an odd image of one channel."""
    searched = space(input_shape=(1, 7, 5), nodes=3)
    for first, second in itertools.product(OPERATION_NAMES, repeat=2):
        architecture = searched.compose({"1<-0": first, "2<-0": second, "2<-1": "conv3x3"})
        if architecture is not None:
            assert export(seeded_module(searched.lower(architecture), 0), ModelFormat.ONNX).data


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    nodes=st.integers(2, 5),
    channels=st.sampled_from((1, 3)),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
)
def test_cells_of_any_size_on_images_of_any_size_compute_what_they_export(
    seed: int, nodes: int, channels: int, height: int, width: int
):
    searched = space(input_shape=(channels, height, width), nodes=nodes)
    network = searched.lower(searched.sample(np.random.default_rng(seed)))
    assert export(seeded_module(network, 0), ModelFormat.ONNX).data


def test_largest_cell_of_the_space_is_lowered():
    searched = CellSpace(input_shape=(3, 224, 224), classes=1000, limits=PRESETS["gpu"])
    largest = {choice.name: choice.options[-1] for choice in searched.choices} | cell(*["conv5x5"] * 6)
    network = searched.lower(Architecture.of(largest))
    assert network.layers[0].shape == (32, 112, 112)
    assert sum(isinstance(layer.primitive, Conv2d) for layer in network.layers) == 1 + 15 * 6 + 2 * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 1}, "nodes is 1; expected 2"),
        ({"nodes": 9}, "nodes is 9; expected 2, an input and an output, to 7"),
        ({"operations": ("zero",)}, "nothing but zero"),
        ({"operations": ("zero", "none", "conv3x3")}, "both zero and none"),
        ({"channels": (16, 8)}, r"channels are \[16, 8\]; expected distinct positive numbers, ascending"),
        ({"cells": ()}, r"cells are \[\]"),
        ({"classes": 1}, "a classifier needs at least 2"),
    ],
)
def test_cell_space_refuses_what_makes_no_sense(arguments: dict[str, object], message: str):
    with pytest.raises(SpaceError, match=message):
        space(**arguments)
