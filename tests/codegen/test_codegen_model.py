"""The generated model.py: what it computes, and how it reads."""

import subprocess
import sys
from dataclasses import replace
from math import gcd
from pathlib import Path

import pytest
import torch
from codegen_examples import DIGITS, example_network, example_project, randomised_weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.codegen.generator import project_files
from controller.codegen.model_source import model_source
from controller.core.errors import NetworkError
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Resize,
    Scale,
    SelfAttention,
    Sigmoid,
)
from controller.models.module import seeded_module

LINT = [
    sys.executable,
    "-m",
    "ruff",
    "check",
    "--isolated",
    "--select",
    "E,F,I,N,UP,B",
    "--line-length",
    "100",
]
FORMAT = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", "--line-length", "100"]
RANDOM = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def model_text(network: Network) -> str:
    info = replace(
        DIGITS,
        image_shape=network.input_shape,
        classes=tuple(f"class {index}" for index in range(network.output.shape[0])),
    )
    return project_files(example_project(network, info))["model.py"].decode()


def generated_model(text: str) -> torch.nn.Module:
    namespace: dict[str, type[torch.nn.Module]] = {}
    exec(compile(text, "model.py", "exec"), namespace)
    return namespace["Net"]()


DRAWN = (
    "conv",
    "conv",
    "depthwise",
    "grouped",
    "bn",
    "relu",
    "max",
    "attention",
    "gate",
    "resize",
    "average",
)


def draw_layer(draw: st.DrawFn, builder: NetworkBuilder, name: str, source: str) -> str:
    channels = builder.shape(source)[0]
    match draw(st.sampled_from(DRAWN)):
        case "conv":
            conv = Conv2d(
                draw(st.sampled_from((2, 4, 6))),
                draw(st.sampled_from((1, 3, 5))),
                stride=draw(st.sampled_from((1, 1, 2))),
                dilation=draw(st.sampled_from((1, 1, 2))),
            )
            return builder.add(name, conv, source)
        case "depthwise":
            out = channels * draw(st.sampled_from((1, 1, 2)))
            return builder.add(
                name, Conv2d(out, 3, groups=channels, stride=draw(st.sampled_from((1, 2)))), source
            )
        case "grouped":
            return builder.add(name, Conv2d(4, 3, groups=gcd(channels, 4)), source)
        case "bn":
            return builder.add(name, BatchNorm2d(), source)
        case "relu":
            return builder.add(name, ReLU(), source)
        case "max":
            return builder.add(name, MaxPool2d(3, stride=draw(st.sampled_from((1, 2)))), source)
        case "attention":
            heads = draw(st.sampled_from((1, 2, 3)))
            qkv = builder.add(f"{name}_qkv", Conv2d(6 * heads, 1), source)
            return builder.add(name, SelfAttention(heads), qkv)
        case "gate":
            features = builder.add(f"{name}_mean", GlobalAvgPool2d(), source)
            gate = builder.add(
                f"{name}_gate", Sigmoid(), builder.add(f"{name}_excite", Linear(channels), features)
            )
            return builder.add(name, Scale(), source, gate)
        case "resize":
            return builder.add(name, Resize(draw(st.integers(1, 9)), draw(st.integers(1, 9))), source)
        case _:
            return builder.add(name, AvgPool2d(draw(st.sampled_from((1, 3)))), source)


def project_to(builder: NetworkBuilder, name: str, source: str, target: str) -> str | None:
    """Return source in the shape of target, None where no stride leads there."""
    shape, wanted = builder.shape(source), builder.shape(target)
    if shape == wanted:
        return source
    stride = max(-(-shape[1] // wanted[1]), -(-shape[2] // wanted[2]))
    if (-(-shape[1] // stride), -(-shape[2] // stride)) != wanted[1:]:
        return None
    conv = builder.add(f"{name}_conv", Conv2d(wanted[0], 1, stride=stride), source)
    return builder.add(f"{name}_bn", BatchNorm2d(), conv)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw a valid network: blocks of any layers, inner residuals, skips from any earlier block."""
    side = st.integers(1, 13)
    builder = NetworkBuilder(input_shape=(draw(st.sampled_from((1, 3))), draw(side), draw(side)))
    outputs = [INPUT]
    for index in range(draw(st.integers(1, 4))):
        with builder.block(
            f"layer_{index + 1}", draw(st.sampled_from(("conv3x3", "net", "path", "none", "5 odd-kind")))
        ):
            x = draw_layer(draw, builder, "layer_a", outputs[-1])
            for name in "bcd"[: draw(st.integers(0, 3))]:
                before = x
                x = draw_layer(draw, builder, f"layer_{name}", x)
                if builder.shape(before) == builder.shape(x) and draw(st.booleans()):
                    x = builder.add(f"inner_{name}", Add(), x, before)
            drawn = [draw(st.sampled_from(outputs)) for _ in range(draw(st.integers(0, 3)))]
            sources = (
                project_to(builder, f"skip_{number}", source, x) for number, source in enumerate(drawn, 1)
            )
            terms = [x, *(source for source in sources if source)]
            if len(terms) > 1:
                x = builder.add("add", Add(), *terms)
            outputs.append(builder.add("relu", ReLU(), x) if draw(st.booleans()) else x)
    with builder.block("head", "head"):
        x = builder.add("pool", GlobalAvgPool2d(), outputs[-1])
        if draw(st.booleans()):
            x = builder.add("relu", ReLU(), builder.add("hidden", Linear(5), x))
        builder.add("classifier", Linear(draw(st.integers(2, 4))), x)
    return builder.build()


@RANDOM
@given(network=networks())
def test_model_equals_searched_module(network: Network) -> None:
    weights = randomised_weights(network)
    expected = seeded_module(network, 1)
    expected.load_state_dict(weights)
    model = generated_model(model_text(network))
    model.load_state_dict(weights, strict=True)
    images = torch.randn(3, *network.input_shape, generator=torch.Generator().manual_seed(2))

    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(images), expected.eval()(images), rtol=1e-5, atol=1e-5)


@settings(RANDOM, max_examples=25)
@given(network=networks())
def test_model_is_formatted_and_lints(network: Network) -> None:
    text = model_text(network)

    for command in (FORMAT, LINT):
        done = subprocess.run([*command, "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_model_of_example_reads_as_written_by_hand() -> None:
    expected = Path(__file__).with_name("expected_model.txt").read_text(encoding="utf-8")

    assert model_text(example_network()) == expected


def test_state_dict_keys_equal_the_searched_modules() -> None:
    network = example_network()

    assert list(generated_model(model_text(network)).state_dict()) == list(
        seeded_module(network, 0).state_dict()
    )


def test_blocks_are_named_by_what_they_add() -> None:
    assert model_source(example_network()).class_of == {
        "stem": "Stem",
        "layer_1": "SepConv3x3",
        "layer_2": "SepConv3x3Residual",
        "layer_3": "SepConv3x3ProjectedResidualProjectedSkip",
        "layer_4": "MaxPoolResidual",
        "layer_5": "SepConv3x3",
        "head": "Head",
    }


def two_convolutions(first: Conv2d, second: Conv2d) -> Network:
    builder = NetworkBuilder(input_shape=(3, 16, 16))
    x = INPUT
    for name, conv in (("layer_1", first), ("layer_2", second)):
        with builder.block(name, "conv"):
            x = builder.add("conv", conv, x)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(2), builder.add("pool", GlobalAvgPool2d(), x))
    return builder.build()


@pytest.mark.parametrize(
    ("first", "second", "submodule"),
    [
        pytest.param(
            Conv2d(8, 3),
            Conv2d(4, 3),
            "self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)",
            id="numbers that agree are written out",
        ),
        pytest.param(
            Conv2d(8, 3),
            Conv2d(4, 5),
            "self.conv = nn.Conv2d(\n"
            "            in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False\n"
            "        )",
            id="kernel sizes that differ are a parameter",
        ),
        pytest.param(
            Conv2d(8, 5, dilation=2),
            Conv2d(4, 5),
            "self.conv = nn.Conv2d(\n"
            "            in_channels, out_channels, 5, padding=2 * dilation, dilation=dilation, bias=False\n"
            "        )",
            id="dilations that differ are a parameter",
        ),
        pytest.param(
            Conv2d(8, 1, stride=2),
            Conv2d(4, 1, stride=2),
            "self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)",
            id="a stride shows where the block is used",
        ),
        pytest.param(
            Conv2d(6, 3, groups=3),
            Conv2d(6, 3, groups=6),
            "self.conv = nn.Conv2d(\n"
            "            in_channels, out_channels, 3, padding=1, groups=in_channels, bias=False\n"
            "        )",
            id="one group a channel follows the channels",
        ),
        pytest.param(
            Conv2d(6, 1),
            Conv2d(6, 1, groups=2),
            "self.conv = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)",
            id="other groups are a parameter",
        ),
    ],
)
def test_parameters_are_the_numbers_that_differ(first: Conv2d, second: Conv2d, submodule: str) -> None:
    source = model_source(two_convolutions(first, second))

    assert source.classes[0].submodules == (submodule,)


def test_hidden_channels_follow_the_input_where_blocks_agree() -> None:
    builder = NetworkBuilder(input_shape=(3, 8, 8))
    x = INPUT
    for name, width in (("layer_1", 4), ("layer_2", 6)):
        with builder.block(name, "inverted_residual"):
            expanded = builder.add("expand", Conv2d(6 * builder.shape(x)[0], 1), x)
            x = builder.add("reduce", Conv2d(width, 1), expanded)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(2), builder.add("pool", GlobalAvgPool2d(), x))

    source = model_source(builder.build())

    assert source.classes[0].submodules[0] == (
        "self.expand = nn.Conv2d(in_channels, 6 * in_channels, 1, bias=False)"
    )
    assert source.submodules[:2] == (
        "self.layer_1 = InvertedResidual(3, 4)",
        "self.layer_2 = InvertedResidual(4, 6)",
    )


def test_long_names_are_called_one_a_line() -> None:
    builder = NetworkBuilder(input_shape=(3, 8, 8))
    with builder.block("layer_1", "conv"):
        x = builder.add("the_one_and_only_convolution_of_this_block", Conv2d(4, 3), INPUT)
        x = builder.add("the_normalisation_of_what_it_gives", BatchNorm2d(), x)
        builder.add("relu", ReLU(), x)
    with builder.block("head", "head"):
        pooled = builder.add("pool", GlobalAvgPool2d(), "layer_1.relu")
        builder.add("classifier", Linear(2), pooled)

    assert model_source(builder.build()).classes[0].body == (
        "x = self.the_one_and_only_convolution_of_this_block(x)",
        "x = self.the_normalisation_of_what_it_gives(x)",
        "return torch.relu(x)",
    )


def build(*layers: tuple[str, str, tuple[str, ...]]) -> Network:
    """Return a network of ReLUs and sums: (block, name, inputs)."""
    builder = NetworkBuilder(input_shape=(1, 4, 4))
    for block, name, inputs in layers:
        with builder.block(block, "block"):
            builder.add(name, Add() if len(inputs) > 1 else ReLU(), *inputs)
    return builder.build()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            build(("class", "relu", (INPUT,))),
            "layer 'class.relu' cannot be an attribute of a PyTorch module: rename 'class'",
        ),
        (
            build(("a", "forward", (INPUT,))),
            "layer 'a.forward' cannot be an attribute of a PyTorch module: rename 'forward'",
        ),
        (
            build(("a", "relu", (INPUT,)), ("b", "relu", (INPUT,))),
            "layer 'a.relu' is read by no other layer and is not the output; leave it out",
        ),
    ],
)
def test_network_that_no_class_can_express_is_refused(network: Network, message: str) -> None:
    with pytest.raises(NetworkError) as raised:
        model_source(network)

    assert str(raised.value) == message


def test_layer_read_from_inside_another_block_is_refused() -> None:
    builder = NetworkBuilder(input_shape=(1, 4, 4))
    with builder.block("a", "block"):
        inner = builder.add("first", ReLU(), INPUT)
        last = builder.add("second", ReLU(), inner)
    with builder.block("b", "block"):
        builder.add("add", Add(), last, inner)

    with pytest.raises(NetworkError, match=r"'b\.add' reads 'a\.first' from inside another block"):
        model_source(builder.build())


def test_names_that_generated_code_uses_itself_are_not_shadowed() -> None:
    network = build(
        ("x", "x", (INPUT,)),
        ("torch", "torch", ("x.x",)),
        ("images", "out", ("torch.torch", "x.x", INPUT)),
        ("end", "end", ("images.out", "torch.torch", "x.x", INPUT)),
    )
    model = generated_model(project_text(network))
    images = torch.randn(2, 1, 4, 4)

    torch.testing.assert_close(model(images), seeded_module(network, 0)(images), rtol=0, atol=0)


def project_text(network: Network) -> str:
    """Return a program of the classes alone: this network's output is no vector of logits."""
    source = model_source(network)
    lines = ["import torch", "from torch import nn", ""]
    for written in source.classes:
        lines += [f"class {written.name}(nn.Module):", f"    {written.forward}"]
        lines += [f"        {line}" for line in written.body]
    lines += ["class Net(nn.Module):", "    def __init__(self):", "        super().__init__()"]
    lines += [f"        {line}" for line in source.submodules]
    lines += ["    def forward(self, images):", *(f"        {line}" for line in source.body)]
    return "\n".join(lines)
