import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.architecture import Architecture
from controller.core.errors import SpaceError
from controller.core.measurement import ModelFormat
from controller.core.network import Network
from controller.core.primitives import Conv2d, Resize, Scale, SelfAttention
from controller.models.artifact import export
from controller.models.module import seeded_module
from controller.spaces import PRESETS, MobileSpace

BLOCKS = ("inverted_residual", "attention", "transformer")


def space(**settings: object) -> MobileSpace:
    return MobileSpace(**{"input_shape": (3, 32, 32), "classes": 10, "limits": PRESETS["gpu"], **settings})


def first_options(searched: MobileSpace) -> dict[str, str | int]:
    return {choice.name: choice.options[0] for choice in searched.choices}


def lowered(searched: MobileSpace, **changes: str | int) -> Network:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return searched.lower(Architecture.of({**first_options(searched), **named}))


def maps(network: Network) -> list[tuple[int, ...]]:
    return [block.layers[-1].shape for block in network.blocks]


def test_mobile_stages_halve_the_image_down_to_four_pixels():
    assert maps(lowered(space(channels=((16,), (24,), (32,), (40,), (48,))))) == [
        (16, 32, 32),
        (16, 32, 32),
        (24, 16, 16),
        (32, 8, 8),
        (40, 4, 4),
        (48, 4, 4),
        (10,),
    ]


def test_mobile_depth_adds_blocks_and_channels_widen_a_stage():
    network = lowered(space(), stage_2__depth=3, stage_2__channels=48)
    blocks = [block for block in network.blocks if block.name.startswith("stage_2")]
    assert [block.name for block in blocks] == ["stage_2_block_1", "stage_2_block_2", "stage_2_block_3"]
    assert {block.layers[-1].shape for block in blocks} == {(48, 16, 16)}


def test_mobile_block_has_the_kernel_expansion_and_gates_chosen():
    changes = {"kernel_size": 7, "expansion": 6, "squeeze_excite": 1}
    network = lowered(space(), **{f"stage_1__block_1__{name}": value for name, value in changes.items()})
    (block,) = (block for block in network.blocks if block.name == "stage_1_block_1")
    depthwise = [layer.primitive for layer in block.layers if isinstance(layer.primitive, Conv2d)][1]
    assert (depthwise.kernel_size, depthwise.groups) == (7, 6 * 16)
    assert any(isinstance(layer.primitive, Scale) for layer in block.layers)


def test_mobile_network_of_a_smaller_image_begins_by_making_it_smaller():
    network = lowered(space(), resolution_percent=50)
    assert (network.input_shape, network.layers[0].primitive) == ((3, 32, 32), Resize(16, 16))
    assert not any(isinstance(layer.primitive, Resize) for layer in lowered(space()).layers)


def test_mobile_resolutions_that_are_the_same_pixels_are_one_architecture():
    searched = space(input_shape=(1, 1, 1))
    assert (
        len({searched.compose({**first_options(searched), "resolution_percent": p}) for p in (50, 75, 100)})
        == 1
    )


def test_mobile_choices_of_a_block_that_is_not_there_change_nothing():
    searched = space(operations=BLOCKS)
    changed = {"stage_1.block_2.kernel_size": 7, "stage_1.block_3.operation": "attention"}
    assert searched.compose({**first_options(searched), **changed}) == searched.compose(
        first_options(searched)
    )


def test_mobile_kernel_of_attention_changes_nothing():
    searched = space(operations=BLOCKS)
    attention = {**first_options(searched), "stage_4.block_1.operation": "attention"}
    composed = searched.compose({**attention, "stage_4.block_1.kernel_size": 7})
    assert composed == searched.compose(attention)
    assert any(isinstance(layer.primitive, SelfAttention) for layer in searched.lower(composed).layers)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.sampled_from((1, 3)),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
)
def test_mobile_networks_on_images_of_any_size_compute_what_they_export(
    seed: int, channels: int, height: int, width: int
):
    searched = space(input_shape=(channels, height, width), operations=BLOCKS, limits=PRESETS["edge"])
    network = searched.lower(searched.sample(np.random.default_rng(seed)))
    assert export(seeded_module(network, 0), ModelFormat.ONNX).data


def test_largest_mobile_network_is_lowered_and_the_limits_of_a_board_refuse_it():
    for preset, fits in (("gpu", True), ("edge", False)):
        searched = space(input_shape=(3, 224, 224), classes=1000, limits=PRESETS[preset])
        largest = {choice.name: choice.options[-1] for choice in searched.choices} | {
            "resolution_percent": 100
        }
        assert searched.lower(Architecture.of(largest)).output.shape == (1000,)
        assert (searched.compose(largest) is not None) == fits


def test_mobile_space_of_a_single_stage_and_block_is_searched():
    searched = space(channels=((16, 24),), max_depth=1)
    architecture = searched.sample(np.random.default_rng(0))
    assert searched.mutate(architecture, np.random.default_rng(1)) != architecture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, "no stages"),
        ({"channels": ((16,), (32, 24))}, r"channels of stage 2 are \[32, 24\]"),
        ({"kernel_sizes": (3, 4)}, r"kernel_sizes are \[3, 4\]; expected odd ones"),
        ({"squeeze_excite": (0, 2)}, r"squeeze_excite is \[0, 2\]; expected 0, 1 or both"),
        ({"max_depth": 0}, "max_depth is 0"),
        ({"operations": ("max_pool",)}, "'max_pool' keeps its input's channels, but a stage sets them"),
        ({"resolutions_percent": (0, 100)}, "resolutions_percent are"),
        ({"classes": 1}, "a classifier needs at least 2"),
    ],
)
def test_mobile_space_refuses_what_makes_no_sense(arguments: dict[str, object], message: str):
    with pytest.raises(SpaceError, match=message):
        space(**arguments)


def test_space_whose_networks_all_break_the_limits_says_so():
    searched = space(channels=((4096,),) * 3, limits=PRESETS["edge"])
    with pytest.raises(SpaceError, match="none of 2000 random architectures is within"):
        searched.sample(np.random.default_rng(0))
