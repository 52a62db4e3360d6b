import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.algorithms.allotment import best_options, term_costs, term_layers
from controller.core.mixing import AUXILIARY
from controller.spaces import CellSpace

CHOICES = st.integers(1, 5)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), choices=CHOICES, options=st.integers(1, 4), most=st.integers(0, 3))
def test_best_options_are_those_that_trying_all_finds(
    data: st.DataObject, choices: int, options: int, most: int
):
    """Costs are whole bins of the budget, so that nothing is lost by rounding them up."""
    sizes = st.lists(st.integers(0, 200), min_size=options, max_size=options)
    costs = [np.array(data.draw(sizes)) / 400 for _ in range(choices)]
    merits = [np.array(data.draw(sizes), dtype=float) for _ in range(choices)]
    counted = [
        np.array(data.draw(st.lists(st.sampled_from((0, 1)), min_size=options, max_size=options)))
        for _ in range(choices)
    ]
    fitting = [
        places
        for places in itertools.product(range(options), repeat=choices)
        if sum(cost[place] for cost, place in zip(costs, places, strict=True)) <= 1 + 1e-9
        and sum(extra[place] for extra, place in zip(counted, places, strict=True)) <= most
    ]
    found = best_options(merits, costs, counted, most)
    if not fitting:
        assert found is None
        return
    assert tuple(found) in fitting
    value = sum(merit[place] for merit, place in zip(merits, found, strict=True))
    assert value == max(
        sum(merit[place] for merit, place in zip(merits, places, strict=True)) for places in fitting
    )


def test_best_options_of_no_budget_are_free():
    merits, costs = [np.array([1.0, 5.0])] * 2, [np.array([0.0, np.inf])] * 2
    assert best_options(merits, costs, [np.zeros(2, dtype=int)] * 2, 2) == [0, 0]


def test_terms_of_a_supernet_are_the_layers_that_only_they_read():
    space = CellSpace(
        input_shape=(1, 8, 8),
        classes=2,
        nodes=2,
        operations=("zero", "skip_connect", "sep_conv3x3"),
        channels=(4,),
        cells=(2,),
    )
    (edge, node) = (term_layers(space.mixed())[name] for name in ("1<-0", "node_1"))
    assert set(edge) == {"skip_connect", "sep_conv3x3", AUXILIARY}
    assert edge["skip_connect"] == [()] * 6  # a mixture in each of two cells in three stages
    assert [layer.local_name for layer in edge["sep_conv3x3"][0]] == [
        "edge_1_0_sep_conv3x3_pointwise_bn",
        "edge_1_0_sep_conv3x3_pointwise",
        "edge_1_0_sep_conv3x3_depthwise_relu",
        "edge_1_0_sep_conv3x3_depthwise_bn",
        "edge_1_0_sep_conv3x3_depthwise",
        "relu_0",  # with one operation that begins with it, it is that one's
    ]
    assert node == {"1<-0": [()] * 6}


def test_operation_that_a_runtime_merged_with_an_equal_one_costs_the_same():
    space = CellSpace(
        input_shape=(1, 8, 8),
        classes=2,
        nodes=3,
        operations=("zero", "max_pool_3x3"),
        channels=(4,),
        cells=(1,),
    )
    terms = term_layers(space.mixed())
    of_first = [layers[0].name for layers in terms["1<-0"]["max_pool_3x3"]]
    costs = term_costs(terms, dict(zip(of_first, (4.0, 2.0, 1.0), strict=True)))
    assert costs["1<-0"]["max_pool_3x3"] == costs["2<-0"]["max_pool_3x3"] == pytest.approx(7.0)
