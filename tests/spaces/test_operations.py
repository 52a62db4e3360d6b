import pytest
import torch

from controller.core.network import INPUT, Network, NetworkBuilder
from controller.models.module import seeded_module
from controller.spaces.operations import OPERATIONS


def lowered(name: str, stride: int) -> Network:
    """Return the operation alone, from 6 × 9 × 9 to 8 channels where it may."""
    builder = NetworkBuilder(input_shape=(6, 9, 9))
    with builder.block("layer_1", name):
        OPERATIONS[name].lower(builder, INPUT, 8, stride)
    return builder.build()


@pytest.mark.parametrize(
    ("name", "stride", "parameters", "macs"),
    [
        ("conv1x1", 1, 6 * 8 + 16, 6 * 8 * 81),
        ("conv1x1", 2, 6 * 8 + 16, 6 * 8 * 25),
        ("conv3x3", 1, 9 * 6 * 8 + 16, 9 * 6 * 8 * 81),
        ("conv3x3", 2, 9 * 6 * 8 + 16, 9 * 6 * 8 * 25),
        ("conv5x5", 1, 25 * 6 * 8 + 16, 25 * 6 * 8 * 81),
        ("dil_conv3x3", 1, 9 * 6 * 8 + 16, 9 * 6 * 8 * 81),
        ("depthwise_conv", 1, 9 * 6 + 12, 9 * 6 * 81),
        ("depthwise_conv", 2, 9 * 6 + 12, 9 * 6 * 25),
        ("sep_conv3x3", 1, 9 * 6 + 12 + 6 * 8 + 16, (9 * 6 + 6 * 8) * 81),
        ("sep_conv3x3", 2, 9 * 6 + 12 + 6 * 8 + 16, (9 * 6 + 6 * 8) * 25),
        ("max_pool", 1, 0, 0),
        ("avg_pool", 2, 0, 0),
        ("skip_connect", 2, 6 * 6 + 12, 6 * 6 * 25),
    ],
)
def test_operation_costs_what_its_paper_says(name: str, stride: int, parameters: int, macs: int):
    network = lowered(name, stride)
    assert (network.parameters, network.macs) == (parameters, macs)


def test_skip_connect_at_stride_1_adds_nothing():
    builder = NetworkBuilder(input_shape=(6, 9, 9))
    with builder.block("layer_1", "skip_connect"):
        assert OPERATIONS["skip_connect"].lower(builder, INPUT, 8, 1) == INPUT


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("conv1x1", {0}),
        ("conv3x3", {-1, 0, 1}),
        ("conv5x5", {-2, -1, 0, 1, 2}),
        ("dil_conv3x3", {-2, 0, 2}),
        ("depthwise_conv", {-1, 0, 1}),
        ("sep_conv3x3", {-1, 0, 1}),
        ("max_pool", {-1, 0, 1}),
        ("avg_pool", {-1, 0, 1}),
    ],
)
def test_operation_reads_its_window(name: str, offsets: set[int]):
    image = torch.rand(1, 6, 9, 9, generator=torch.Generator().manual_seed(0)) + 1
    module = seeded_module(lowered(name, 1), 0).eval()
    with torch.inference_mode():
        before = module(image)[0, :, 4, 4]
        moved = {}
        for offset in range(-4, 5):
            changed = image.clone()
            changed[0, :, 4, 4 + offset] += 100
            moved[offset] = not torch.equal(module(changed)[0, :, 4, 4], before)
    assert {offset for offset, reacts in moved.items() if reacts} == offsets
