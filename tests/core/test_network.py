from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from random_networks import networks
from torch import nn

from controller.core.errors import NetworkError
from controller.core.network import INPUT, Block, Network, NetworkBuilder
from controller.core.primitives import (
    Add,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    Primitive,
    ReLU,
)
from controller.models.module import Attention, NetworkModule

RANDOM = settings(max_examples=40, deadline=None)


def small_network() -> Network:
    """Return a network for images of 3 × 9 × 7 pixels, with one skip connection."""
    builder = NetworkBuilder(input_shape=(3, 9, 7))
    with builder.block("stem", "stem"):
        stem = builder.add("conv", Conv2d(8, 3, stride=2), INPUT)
    with builder.block("layer_1", "conv3x3"):
        normalised = builder.add("bn", BatchNorm2d(), builder.add("conv", Conv2d(8, 3), stem))
        added = builder.add("add", Add(), normalised, stem)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(10), builder.add("pool", GlobalAvgPool2d(), added))
    return builder.build()


def outputs_of(network: Network) -> dict[str, tuple[nn.Module, torch.Size, torch.Size]]:
    """Run network in PyTorch; return each layer's module and the shapes of its first input and its output."""
    module = NetworkModule(network).eval()
    seen: dict[str, tuple[nn.Module, torch.Size, torch.Size]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(part: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = (part, inputs[0].shape, output.shape)

        return hook

    for name, part in module.named_modules():
        part.register_forward_hook(remember(name))
    with torch.inference_mode():
        module(torch.zeros(1, *network.input_shape))
    return seen


@RANDOM
@given(network=networks())
def test_network_shapes_are_those_that_pytorch_computes(network: Network):
    seen = outputs_of(network)
    assert {layer.name: layer.shape for layer in network.layers} == {
        layer.name: tuple(seen[layer.name][2][1:]) for layer in network.layers
    }


@RANDOM
@given(network=networks())
def test_network_macs_are_one_for_each_weight_and_output_that_pytorch_computes(network: Network):
    macs = 0
    for part, inputs, output in outputs_of(network).values():
        if isinstance(part, nn.Conv2d):
            macs += output.numel() * (inputs[1] // part.groups) * part.kernel_size[0] * part.kernel_size[1]
        elif isinstance(part, nn.Linear):
            macs += part.in_features * part.out_features
        elif isinstance(part, Attention):
            macs += 2 * output.numel() * output[2:].numel()
    assert network.macs == macs


@RANDOM
@given(network=networks())
def test_network_parameters_are_those_that_pytorch_counts(network: Network):
    assert network.parameters == sum(weights.numel() for weights in NetworkModule(network).parameters())


def test_network_figures_of_an_example():
    network = small_network()
    assert [layer.shape for layer in network.layers] == [
        (8, 5, 4),
        (8, 5, 4),
        (8, 5, 4),
        (8, 5, 4),
        (8,),
        (10,),
    ]
    assert network.parameters == 3 * 8 * 9 + 8 * 8 * 9 + 2 * 8 + 8 * 10 + 10
    assert network.macs == (3 * 8 * 9 + 8 * 8 * 9) * 5 * 4 + 8 * 10


def test_network_output_is_its_last_layer():
    assert small_network().output.name == "head.classifier"


def test_network_is_read_block_by_block():
    network = small_network()
    assert network.blocks == (
        Block(name="stem", kind="stem", layers=network.layers[:1]),
        Block(name="layer_1", kind="conv3x3", layers=network.layers[1:4]),
        Block(name="head", kind="head", layers=network.layers[4:]),
    )


def test_layer_is_named_by_its_block_and_its_local_name():
    layer = small_network().layers[1]
    assert (layer.name, layer.block, layer.local_name) == ("layer_1.conv", "layer_1", "conv")


def test_networks_built_alike_are_equal():
    assert small_network() == small_network()


def peak_bytes(input_shape: tuple[int, ...], *layers: tuple[str, Primitive, tuple[str, ...]]) -> int:
    builder = NetworkBuilder(input_shape=input_shape)
    with builder.block("net", "net"):
        for name, primitive, inputs in layers:
            builder.add(name, primitive, *inputs)
    return builder.build().peak_activation_bytes


def test_peak_activation_of_a_chain_is_the_largest_pair_of_neighbours():
    # Values alive: input 16 + a 64 = 80, a 64 + b 32 = 96, b 32 + c 48 = 80.
    peak = peak_bytes(
        (1, 4, 4),
        ("a", Conv2d(4, 3), (INPUT,)),
        ("b", Conv2d(2, 3), ("net.a",)),
        ("c", Conv2d(3, 3), ("net.b",)),
    )
    assert peak == 96 * 4


def test_peak_activation_holds_what_a_skip_connection_needs_later():
    # Values alive while c is computed: a 64, for the sum, + b 32 + c 64; the sum takes the place of one.
    peak = peak_bytes(
        (1, 4, 4),
        ("a", Conv2d(4, 3), (INPUT,)),
        ("b", Conv2d(2, 3), ("net.a",)),
        ("c", Conv2d(4, 3), ("net.b",)),
        ("add", Add(), ("net.c", "net.a")),
    )
    assert peak == 160 * 4


def test_peak_activation_counts_batch_norm_and_relu_in_place():
    # Values alive: input 16 + a 64; batch norm and ReLU add nothing to a.
    peak = peak_bytes(
        (1, 4, 4),
        ("a", Conv2d(4, 3), (INPUT,)),
        ("bn", BatchNorm2d(), ("net.a",)),
        ("relu", ReLU(), ("net.bn",)),
    )
    assert peak == 80 * 4


def test_peak_activation_counts_a_relu_apart_where_its_input_is_read_later():
    # Values alive while the ReLU is computed: a 64, for the sum, + its own 64.
    peak = peak_bytes(
        (1, 4, 4),
        ("a", Conv2d(4, 3), (INPUT,)),
        ("relu", ReLU(), ("net.a",)),
        ("add", Add(), ("net.relu", "net.a")),
    )
    assert peak == 128 * 4


def test_peak_activation_is_at_least_the_input():
    assert peak_bytes((3, 10, 10), ("pool", GlobalAvgPool2d(), (INPUT,))) == (300 + 3) * 4


@pytest.mark.parametrize("shape", [(0, 8, 8), (1, 8, 0), (8, 8), (1, 1, 8, 8)])
def test_builder_refuses_an_input_that_is_no_image(shape: tuple[int, ...]):
    with pytest.raises(NetworkError) as caught:
        NetworkBuilder(input_shape=shape)
    assert str(caught.value) == f"input shape {shape} is not (channels, height, width), each at least 1"


@pytest.mark.parametrize("name", ["layer-1", "1", "", "layer.1"])
def test_builder_refuses_a_block_whose_name_is_no_identifier(name: str):
    builder = NetworkBuilder(input_shape=(1, 8, 8))
    with pytest.raises(NetworkError, match=f"block name {name!r}"), builder.block(name, "stem"):
        pass


def test_builder_refuses_a_block_inside_another():
    builder = NetworkBuilder(input_shape=(1, 8, 8))
    with builder.block("outer", "stem"), pytest.raises(NetworkError, match="'inner'"):  # noqa: SIM117
        with builder.block("inner", "stem"):
            pass


def test_builder_refuses_a_block_name_used_before():
    builder = NetworkBuilder(input_shape=(1, 8, 8))
    with builder.block("stem", "stem"):
        builder.add("relu", ReLU(), INPUT)
    with pytest.raises(NetworkError, match="block name 'stem'"), builder.block("stem", "stem"):
        pass


def test_builder_refuses_a_layer_outside_any_block():
    with pytest.raises(NetworkError, match="layer 'relu' is outside any block"):
        NetworkBuilder(input_shape=(1, 8, 8)).add("relu", ReLU(), INPUT)


def test_builder_refuses_a_layer_name_used_before():
    builder = NetworkBuilder(input_shape=(1, 8, 8))
    with builder.block("stem", "stem"):
        builder.add("relu", ReLU(), INPUT)
        with pytest.raises(NetworkError, match=r"layer 'stem\.relu' exists already"):
            builder.add("relu", ReLU(), INPUT)


def test_builder_refuses_a_network_without_layers():
    with pytest.raises(NetworkError, match="the network has no layers"):
        NetworkBuilder(input_shape=(1, 8, 8)).build()
