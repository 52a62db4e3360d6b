import itertools
from collections.abc import Iterator
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import SEEDS, chain_spaces

from controller.core.architecture import Architecture
from controller.core.errors import ConfigurationError, SpaceError
from controller.core.network import analyse
from controller.core.primitives import Add, BatchNorm2d, Conv2d
from controller.spaces import PRESETS, ChainSpace, Limits

RANDOM = settings(max_examples=40, deadline=None)
UNLIMITED = Limits(parameters=inf, macs=inf, peak_activation_bytes=inf)
Slot = tuple[str, int, int, int, int]
"""Operation, channels, stride and two skip distances of one layer."""

SMALL = ChainSpace(
    input_shape=(1, 8, 8), classes=10, min_layers=1, max_layers=4, channels=(4, 8, 12), stem_channels=4
)
PIXEL = ChainSpace(
    input_shape=(1, 1, 1), classes=10, min_layers=1, max_layers=4, channels=(4, 8, 12), stem_channels=4
)

DEEP = ChainSpace(
    input_shape=(1, 8, 8),
    classes=10,
    min_layers=1,
    max_layers=9,
    channels=(4, 8),
    max_skip_distance=9,
    stem_channels=4,
)


def written(space: ChainSpace, *slots: Slot) -> Architecture:
    """Return the architecture with these choices as they stand, canonical or not; the other layers are zero."""
    values: dict[str, str | int] = {choice.name: choice.options[0] for choice in space.choices}
    for index, slot in enumerate(slots, start=1):
        for name, value in zip(("operation", "channels", "stride", "skip_1", "skip_2"), slot, strict=True):
            values[f"layer_{index}.{name}"] = value
    return Architecture.of(values)


def proposed_for(space: ChainSpace, architecture: Architecture) -> set[Architecture]:
    """Return what space proposes for the network of architecture: children of it that are the same network."""
    network = space.lower(architecture)
    children = [space.cross(architecture, architecture, np.random.default_rng(seed)) for seed in range(60)]
    return {child for child in children if space.lower(child) == network}


def proposals(space: ChainSpace, seed: int) -> Iterator[Architecture]:
    rng = np.random.default_rng(seed)
    architecture = space.sample(rng)
    for _ in range(8):
        yield architecture
        architecture = space.mutate(space.cross(architecture, space.sample(rng), rng), rng)


def add_terms(space: ChainSpace, architecture: Architecture) -> list[tuple[str, ...]]:
    return [layer.inputs for layer in space.lower(architecture).layers if isinstance(layer.primitive, Add)]


@pytest.mark.parametrize(
    ("space", "slots", "canonical"),
    [
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("zero", 4, 1, 0, 0), ("conv1x1", 12, 1, 0, 0)],
            [("conv3x3", 8, 1, 0, 0), ("conv1x1", 12, 1, 0, 0)],
            id="zero in the middle",
        ),
        pytest.param(
            SMALL,
            [("zero", 4, 1, 0, 0), ("zero", 4, 1, 0, 0), ("conv3x3", 8, 2, 1, 0)],
            [("conv3x3", 8, 2, 1, 0)],
            id="zero in front",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("zero", 12, 2, 1, 2)],
            [("conv3x3", 8, 1, 0, 0)],
            id="choices of a pruned layer",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("skip_connect", 12, 1, 0, 0), ("conv1x1", 12, 1, 0, 0)],
            [("conv3x3", 8, 1, 0, 0), ("conv1x1", 12, 1, 0, 0)],
            id="skip_connect that does nothing",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("skip_connect", 4, 1, 1, 0), ("conv1x1", 12, 1, 0, 0)],
            [("conv3x3", 8, 1, 0, 0), ("conv1x1", 12, 1, 0, 0)],
            id="skip_connect with a skip of its own input",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("skip_connect", 12, 1, 1, 2)],
            [("conv3x3", 8, 1, 0, 0), ("skip_connect", 4, 1, 2, 0)],
            id="skip_connect with another skip besides",
        ),
        pytest.param(
            SMALL, [("max_pool", 12, 1, 0, 0)], [("max_pool", 4, 1, 0, 0)], id="channels of max_pool"
        ),
        pytest.param(
            SMALL, [("avg_pool", 12, 2, 0, 0)], [("avg_pool", 4, 2, 0, 0)], id="channels of avg_pool"
        ),
        pytest.param(
            SMALL,
            [("depthwise_conv", 12, 1, 0, 0)],
            [("depthwise_conv", 4, 1, 0, 0)],
            id="channels of depthwise_conv",
        ),
        pytest.param(
            SMALL,
            [("skip_connect", 12, 2, 0, 0)],
            [("skip_connect", 4, 2, 0, 0)],
            id="channels of skip_connect",
        ),
        pytest.param(
            PIXEL, [("conv3x3", 8, 2, 0, 0)], [("conv3x3", 8, 1, 0, 0)], id="stride on an image of one pixel"
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 2, 0, 0)] * 4,
            [*[("conv3x3", 8, 2, 0, 0)] * 3, ("conv3x3", 8, 1, 0, 0)],
            id="stride on a map that has become one pixel",
        ),
        pytest.param(
            PIXEL,
            [("conv3x3", 8, 1, 0, 0), ("skip_connect", 4, 2, 0, 0)],
            [("conv3x3", 8, 1, 0, 0)],
            id="skip_connect whose stride does nothing",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("zero", 4, 1, 0, 0), ("conv3x3", 8, 1, 2, 0)],
            [("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 1, 0)],
            id="skip to a pruned layer",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("zero", 4, 1, 0, 0), ("conv3x3", 8, 1, 3, 1)],
            [("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 1, 2)],
            id="skip over a pruned layer",
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("zero", 4, 1, 0, 0), ("conv3x3", 8, 1, 1, 2)],
            [("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 1, 0)],
            id="two skips that pruning makes one",
        ),
        pytest.param(
            SMALL, [("conv3x3", 8, 1, 4, 0)], [("conv3x3", 8, 1, 0, 0)], id="skip from before the stem"
        ),
        pytest.param(
            SMALL,
            [("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 2, 1)],
            [("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 1, 2)],
            id="order of the skips",
        ),
        pytest.param(
            DEEP,
            [*[("conv3x3", 8, 1, 0, 0)] * 8, ("conv3x3", 8, 1, 8, 1)],
            [*[("conv3x3", 8, 1, 0, 0)] * 8, ("conv3x3", 8, 1, 1, 8)],
            id="order of skips far apart",
        ),
        pytest.param(SMALL, [("conv3x3", 8, 1, 0, 1)], [("conv3x3", 8, 1, 1, 0)], id="second skip alone"),
        pytest.param(SMALL, [("conv3x3", 8, 1, 1, 1)], [("conv3x3", 8, 1, 1, 0)], id="one skip twice"),
    ],
)
def test_chain_proposes_equal_networks_under_one_id(
    space: ChainSpace, slots: list[Slot], canonical: list[Slot]
):
    expected = written(space, *canonical)
    assert space.lower(written(space, *slots)) == space.lower(expected)
    assert proposed_for(space, written(space, *slots)) == {expected}


def test_chain_mutates_into_each_network_of_a_small_space_under_one_id():
    space = ChainSpace(
        input_shape=(1, 2, 1),
        classes=2,
        min_layers=1,
        max_layers=2,
        operations=("conv1x1", "max_pool", "skip_connect"),
        channels=(2, 3),
        max_skip_distance=2,
        stem_channels=2,
        limits=UNLIMITED,
    )
    skips = ((0, 0), (1, 0), (0, 2), (2, 1))
    slots = [
        (operation, channels, stride, *pair)
        for operation in ("zero", "conv1x1", "max_pool", "skip_connect")
        for channels, stride, pair in itertools.product((2, 3), (1, 2), skips)
    ]
    networks = set()
    for pair in itertools.product(slots, repeat=2):
        try:
            networks.add(space.lower(written(space, *pair)))
        except SpaceError:
            continue
    rng = np.random.default_rng(0)
    known = [space.sample(rng)]
    network_of = {known[0]: space.lower(known[0])}
    for _ in range(8000):
        architecture = space.mutate(known[rng.integers(len(known))], rng)
        if architecture not in network_of:
            known.append(architecture)
            network_of[architecture] = space.lower(architecture)
    assert len(network_of) == len(set(network_of.values()))
    assert set(network_of.values()) == networks


@RANDOM
@given(space=chain_spaces(), seed=SEEDS)
def test_chain_proposes_options_within_its_depth(space: ChainSpace, seed: int):
    options = {choice.name: choice.options for choice in space.choices}
    for architecture in proposals(space, seed):
        assert all(value in options[name] for name, value in architecture.items)
        layers = [block for block in space.lower(architecture).blocks if block.name.startswith("layer_")]
        assert space.min_layers <= len(layers) <= space.max_layers


@RANDOM
@given(space=chain_spaces(), seed=SEEDS)
def test_chain_proposes_its_proposals_under_the_same_id(space: ChainSpace, seed: int):
    for architecture in itertools.islice(proposals(space, seed), 2):
        assert proposed_for(space, architecture) <= {architecture}


@RANDOM
@given(space=chain_spaces(), seed=SEEDS)
def test_chain_layers_have_at_most_two_skips(space: ChainSpace, seed: int):
    for architecture in proposals(space, seed):
        assert all(2 <= len(terms) <= 3 for terms in add_terms(space, architecture))


@RANDOM
@given(space=chain_spaces(), data=st.data())
def test_chain_lowers_every_combination_of_options_or_says_why_not(space: ChainSpace, data: st.DataObject):
    values = {choice.name: data.draw(st.sampled_from(choice.options)) for choice in space.choices}
    try:
        output = space.lower(Architecture.of(values)).output.shape
    except SpaceError as error:
        output = str(error)
    too_few = f"has fewer than {space.min_layers} layers left after pruning"
    assert output == (space.classes,) or too_few in output


@pytest.mark.parametrize("preset", PRESETS)
def test_chain_proposals_keep_to_the_preset(preset: str):
    space = ChainSpace(input_shape=(3, 128, 128), classes=10, limits=PRESETS[preset])
    for seed in range(3):
        assert all(PRESETS[preset].hold(analyse(space.lower(found))) for found in proposals(space, seed))


def test_chain_proposals_use_what_the_limits_allow():
    def most_macs(preset: str) -> int:
        space = ChainSpace(input_shape=(3, 64, 64), classes=10, limits=PRESETS[preset])
        return max(
            space.lower(architecture).macs for seed in range(5) for architecture in proposals(space, seed)
        )

    assert most_macs("edge") < most_macs("mobile") < most_macs("gpu")


@pytest.mark.parametrize(
    "limits",
    [
        Limits(parameters=3000, macs=inf, peak_activation_bytes=inf),
        Limits(parameters=inf, macs=100_000, peak_activation_bytes=inf),
        Limits(parameters=inf, macs=inf, peak_activation_bytes=2500),
    ],
    ids=str,
)
def test_chain_keeps_to_each_limit(limits: Limits):
    arguments = {
        "input_shape": (1, 8, 8),
        "classes": 10,
        "min_layers": 1,
        "channels": (4, 8, 16, 32),
        "stem_channels": 4,
    }
    unlimited, limited = ChainSpace(**arguments, limits=UNLIMITED), ChainSpace(**arguments, limits=limits)
    rng = np.random.default_rng(0)
    assert not all(limits.hold(analyse(unlimited.lower(unlimited.sample(rng)))) for _ in range(50))
    for seed in range(5):
        assert all(limits.hold(analyse(limited.lower(found))) for found in proposals(limited, seed))


def test_chain_says_why_no_network_is_within_the_limits():
    limits = Limits(parameters=10, macs=inf, peak_activation_bytes=inf)
    space = ChainSpace(input_shape=(1, 8, 8), classes=10, limits=limits)
    with pytest.raises(
        SpaceError, match=r"none of 2000 random architectures is within Limits\(parameters=10"
    ):
        space.sample(np.random.default_rng(0))


def test_limits_hold_up_to_and_including_themselves():
    network = SMALL.lower(written(SMALL, ("conv3x3", 8, 1, 0, 0)))
    figures = {
        "parameters": network.parameters,
        "macs": network.macs,
        "peak_activation_bytes": network.peak_activation_bytes,
    }
    assert Limits(**figures).hold(analyse(network))
    for name, value in figures.items():
        assert not Limits(**{**figures, name: value - 1}).hold(analyse(network))


def test_chain_projects_skips_whose_channels_or_size_differ():
    space = SMALL
    architecture = written(space, ("conv3x3", 8, 2, 0, 0), ("conv3x3", 8, 1, 0, 0), ("conv3x3", 12, 1, 2, 3))
    layers = {layer.name: layer for layer in space.lower(architecture).layers}
    assert layers["layer_3.add"].inputs == ("layer_3.bn", "layer_3.skip_1_bn", "layer_3.skip_2_bn")
    assert layers["layer_3.skip_1_conv"].primitive == Conv2d(12, 1)
    assert layers["layer_3.skip_1_conv"].inputs == ("layer_1.relu",)
    assert layers["layer_3.skip_2_conv"].primitive == Conv2d(12, 1, stride=2)
    assert layers["layer_3.skip_2_conv"].inputs == ("stem.relu",)
    assert layers["layer_3.skip_2_bn"].primitive == BatchNorm2d()


def test_chain_adds_skips_of_the_same_shape_as_they_are():
    architecture = written(SMALL, ("conv3x3", 8, 1, 0, 0), ("conv3x3", 8, 1, 1, 0))
    assert add_terms(SMALL, architecture) == [("layer_2.bn", "layer_1.relu")]


@pytest.mark.parametrize(("side", "stem_side"), [(1, 1), (8, 8), (95, 95), (96, 48), (97, 49), (224, 112)])
def test_chain_halves_large_images_in_the_stem(side: int, stem_side: int):
    space = ChainSpace(input_shape=(3, side, side), classes=2, min_layers=1)
    stem = space.lower(written(space, ("conv3x3", 16, 1, 0, 0))).blocks[0]
    assert stem.layers[-1].shape == (16, stem_side, stem_side)


def test_chain_halves_a_map_as_long_as_it_is_more_than_one_pixel():
    space = ChainSpace(input_shape=(3, 1, 5), classes=2, min_layers=1, max_layers=4)
    network = space.lower(written(space, *[("conv1x1", 16, 2, 0, 0)] * 4))
    assert [block.layers[-1].shape for block in network.blocks[:-1]] == [
        (16, 1, 5),
        (16, 1, 3),
        (16, 1, 2),
        (16, 1, 1),
        (16, 1, 1),
    ]


def test_chain_lowers_its_largest_network():
    space = ChainSpace(input_shape=(3, 224, 224), classes=1000, max_layers=20, limits=UNLIMITED)
    slots = [("conv5x5", 512, 1, 3, 4)] * 20
    network = space.lower(written(space, *slots))
    assert len(network.blocks) == 22
    assert network.parameters > 19 * 25 * 512 * 512


def test_chain_of_fixed_depth_has_no_zero():
    space = ChainSpace(
        input_shape=(1, 8, 8), classes=2, min_layers=2, max_layers=2, operations=("conv3x3", "max_pool")
    )
    assert [choice.options for choice in space.choices if choice.name.endswith("operation")] == [
        ("conv3x3", "max_pool"),
        ("conv3x3", "max_pool"),
    ]


def test_chain_of_one_layer_can_be_searched():
    space = ChainSpace(
        input_shape=(1, 1, 1),
        classes=2,
        min_layers=1,
        max_layers=1,
        channels=(4,),
        operations=("conv1x1",),
        max_skip_distance=0,
    )
    rng = np.random.default_rng(0)
    only = written(space, ("conv1x1", 4, 1, 0, 0))
    assert {space.sample(rng), space.mutate(only, rng), space.cross(only, only, rng)} == {only}


def test_chain_choices_of_a_layer():
    space = ChainSpace(
        input_shape=(1, 8, 8), classes=2, channels=(8, 16), operations=("conv3x3",), max_skip_distance=1
    )
    assert [(choice.name, choice.options) for choice in space.choices[:5]] == [
        ("layer_1.operation", ("zero", "conv3x3")),
        ("layer_1.channels", (8, 16)),
        ("layer_1.stride", (1, 2)),
        ("layer_1.skip_1", (0, 1)),
        ("layer_1.skip_2", (0, 1)),
    ]
    assert len(space.choices) == 5 * 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_2.channels": 5}, r"has layer_2\.channels = 5; expected one of \[4, 8, 12\]"),
        ({"layer_2.operation": "conv9x9"}, r"has layer_2\.operation = 'conv9x9'; expected one of \['zero', "),
        ({"layer_9.operation": "conv3x3"}, "has 21 choices; this space has 20"),
    ],
)
def test_chain_refuses_an_architecture_outside_of_it(change: dict[str, str | int], message: str):
    outside = Architecture.of({**written(SMALL, ("conv3x3", 8, 1, 0, 0)).values, **change})
    with pytest.raises(SpaceError, match=f"architecture {outside.id} {message}"):
        SMALL.lower(outside)


def test_chain_refuses_an_architecture_that_lacks_a_choice():
    values = dict(written(SMALL, ("conv3x3", 8, 1, 0, 0)).values)
    del values["layer_3.stride"]
    with pytest.raises(SpaceError, match=r"has layer_3\.stride = None; expected one of \[1, 2\]"):
        SMALL.lower(Architecture.of(values))


@pytest.mark.parametrize(
    "slots",
    [[], [("zero", 8, 2, 1, 1)] * 4, [("skip_connect", 4, 1, 0, 0)] * 4],
    ids=("none", "zero", "skip_connect"),
)
def test_chain_refuses_a_network_without_layers(slots: list[Slot]):
    with pytest.raises(SpaceError, match="has fewer than 1 layers left after pruning"):
        SMALL.lower(written(SMALL, *slots))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_layers": 0}, "min_layers is 0 and max_layers 8"),
        ({"min_layers": 5, "max_layers": 4}, "min_layers is 5 and max_layers 4"),
        ({"channels": ()}, r"channels are \[\]"),
        ({"channels": (0, 8)}, r"channels are \[0, 8\]"),
        ({"channels": (16, 8)}, r"channels are \[16, 8\]; expected distinct positive numbers, ascending"),
        ({"channels": (8, 8)}, r"channels are \[8, 8\]"),
        ({"operations": ("zero",)}, "operations hold nothing but zero"),
        ({"operations": ()}, "operations hold nothing but zero"),
        ({"classes": 1}, "the dataset has 1 class"),
        ({"max_skip_distance": -1}, "max_skip_distance is -1"),
        ({"stem_channels": 0}, "stem_channels 0"),
    ],
    ids=str,
)
def test_chain_refuses_arguments_that_make_no_sense(arguments: dict[str, object], message: str):
    with pytest.raises(SpaceError, match=message):
        ChainSpace(**{"input_shape": (1, 8, 8), "classes": 2, **arguments})


def test_chain_names_an_unknown_operation():
    with pytest.raises(ConfigurationError, match=r"operations has no 'conv9x9'; expected one of conv3x3, "):
        ChainSpace(input_shape=(1, 8, 8), classes=2, operations=("conv3x3", "conv9x9"))
