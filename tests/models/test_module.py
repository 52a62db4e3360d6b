from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from random_networks import networks

from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import Add, AvgPool2d, BatchNorm2d, Conv2d, GlobalAvgPool2d, Linear, MaxPool2d
from controller.models.module import NetworkModule, seeded_module


def network() -> Network:
    builder = NetworkBuilder(input_shape=(3, 8, 8))
    with builder.block("stem", "stem"):
        stem = builder.add("bn", BatchNorm2d(), builder.add("conv", Conv2d(64, 3), INPUT))
    with builder.block("head", "head"):
        builder.add("classifier", Linear(10), builder.add("pool", GlobalAvgPool2d(), stem))
    return builder.build()


@settings(max_examples=25, deadline=None)
@given(drawn=networks())
def test_module_gives_logits_for_every_image_of_a_batch(drawn: Network):
    module = seeded_module(drawn, 0).eval()
    images = torch.rand(3, *drawn.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = module(images)
        alone = torch.cat([module(images[index : index + 1]) for index in range(3)])
    assert logits.shape == (3, *drawn.output.shape)
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)


def test_module_state_is_named_as_the_layers_are():
    assert list(NetworkModule(network()).state_dict()) == [
        "stem.conv.weight",
        "stem.bn.weight",
        "stem.bn.bias",
        "stem.bn.running_mean",
        "stem.bn.running_var",
        "stem.bn.num_batches_tracked",
        "head.classifier.weight",
        "head.classifier.bias",
    ]


@pytest.mark.parametrize(
    ("primitive", "expected"),
    [
        # Padding counts neither in a mean nor in a maximum, though every pixel here is negative.
        (AvgPool2d(3), [[-2.5, -2.5], [-2.5, -2.5]]),
        (MaxPool2d(3), [[-1.0, -1.0], [-1.0, -1.0]]),
        (AvgPool2d(3, stride=2), [[-2.5]]),
        (Add(), [[-2.0, -4.0], [-6.0, -8.0]]),
    ],
    ids=repr,
)
def test_module_computes_a_worked_example(primitive, expected: list[list[float]]):
    builder = NetworkBuilder(input_shape=(1, 2, 2))
    with builder.block("layer_1", "layer"):
        builder.add("only", primitive, *[INPUT] * (2 if isinstance(primitive, Add) else 1))
    output = NetworkModule(builder.build())(torch.tensor([[[[-1.0, -2.0], [-3.0, -4.0]]]]))
    assert output.tolist() == [[expected]]


def states_equal(first: NetworkModule, second: NetworkModule) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_seeded_module_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = seeded_module(network(), 7)
    torch.manual_seed(2)
    second = seeded_module(network(), 7)
    assert states_equal(first, second)
    assert not states_equal(first, seeded_module(network(), 8))


def test_seeded_module_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    seeded_module(network(), 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_modules_built_in_threads_do_not_disturb_each_other():
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda seed: seeded_module(network(), seed % 4), range(40)))
    assert all(states_equal(module, seeded_module(network(), seed % 4)) for seed, module in enumerate(built))


def test_seeded_module_begins_with_weights_scaled_to_their_inputs():
    state = seeded_module(network(), 0).state_dict()
    for name, inputs in (("stem.conv.weight", 27), ("head.classifier.weight", 64)):
        assert state[name].abs().max() <= inputs**-0.5
        assert float(state[name].std()) == pytest.approx((3 * inputs) ** -0.5, rel=0.1)
    assert state["head.classifier.bias"].eq(0).all()


def test_seeded_module_begins_with_batch_norms_that_change_nothing():
    state = seeded_module(network(), 0).state_dict()
    assert {
        name: float(state[f"stem.bn.{name}"].unique())
        for name in ("weight", "bias", "running_mean", "running_var")
    } == {
        "weight": 1.0,
        "bias": 0.0,
        "running_mean": 0.0,
        "running_var": 1.0,
    }
