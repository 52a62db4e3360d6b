import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.core.errors import NetworkError
from controller.core.primitives import (
    Add,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Primitive,
    ReLU,
    Resize,
    Scale,
    SelfAttention,
    Shape,
    Sigmoid,
)


@pytest.mark.parametrize(
    ("primitive", "inputs", "output", "macs", "parameters"),
    [
        (Conv2d(16, 3), [(8, 5, 7)], (16, 5, 7), 16 * 8 * 9 * 35, 16 * 8 * 9),
        (Conv2d(16, 5, stride=2), [(8, 5, 7)], (16, 3, 4), 16 * 8 * 25 * 12, 16 * 8 * 25),
        (Conv2d(16, 3, dilation=2), [(8, 5, 7)], (16, 5, 7), 16 * 8 * 9 * 35, 16 * 8 * 9),
        (Conv2d(8, 3, groups=8), [(8, 5, 7)], (8, 5, 7), 8 * 9 * 35, 8 * 9),
        (Conv2d(4, 1, stride=4), [(8, 5, 7)], (4, 2, 2), 4 * 8 * 4, 4 * 8),
        (BatchNorm2d(), [(8, 5, 7)], (8, 5, 7), 0, 16),
        (ReLU(), [(8, 5, 7)], (8, 5, 7), 0, 0),
        (MaxPool2d(3), [(8, 5, 7)], (8, 5, 7), 0, 0),
        (MaxPool2d(3, stride=2), [(8, 5, 7)], (8, 3, 4), 0, 0),
        (AvgPool2d(3, stride=2), [(8, 6, 1)], (8, 3, 1), 0, 0),
        (GlobalAvgPool2d(), [(8, 5, 7)], (8,), 0, 0),
        (Linear(10), [(8,)], (10,), 80, 90),
        (Add(), [(8, 5, 7)] * 3, (8, 5, 7), 0, 0),
        (Sigmoid(), [(8,)], (8,), 0, 0),
        (Scale(), [(8, 5, 7), (8,)], (8, 5, 7), 0, 0),
        (Resize(3, 9), [(8, 5, 7)], (8, 3, 9), 0, 0),
        (SelfAttention(2), [(24, 5, 7)], (8, 5, 7), 2 * 35 * 35 * 8, 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Primitive) else "",
)
def test_primitive_shape_and_cost(
    primitive: Primitive, inputs: list[Shape], output: Shape, macs: int, parameters: int
):
    assert primitive.output_shape(inputs) == output
    assert primitive.macs(inputs) == macs
    assert primitive.parameters(inputs) == parameters


@given(side=st.integers(1, 300), kernel_size=st.sampled_from((1, 3, 5, 7)), stride=st.integers(1, 9))
def test_strided_layers_round_the_size_up(side: int, kernel_size: int, stride: int):
    expected = len(range(0, side, stride))
    for layer in (Conv2d(2, kernel_size, stride=stride), MaxPool2d(kernel_size, stride=stride)):
        assert layer.output_shape([(2, side, side)]) == (2, expected, expected)


@pytest.mark.parametrize("layer", [lambda: Conv2d(8, 2), lambda: MaxPool2d(2), lambda: AvgPool2d(4)])
def test_spatial_layers_refuse_an_even_kernel(layer):
    with pytest.raises(NetworkError, match=r"kernel_size [24]; 'same' padding needs an odd one"):
        layer()


@pytest.mark.parametrize(("in_channels", "out_channels", "groups"), [(6, 8, 4), (8, 6, 4)])
def test_convolution_refuses_groups_that_do_not_divide_the_channels(
    in_channels: int, out_channels: int, groups: int
):
    with pytest.raises(NetworkError, match=f"{in_channels} to {out_channels} channels cannot have 4 groups"):
        Conv2d(out_channels, 3, groups=groups).output_shape([(in_channels, 8, 8)])


@pytest.mark.parametrize(
    "primitive", [Conv2d(8, 3), BatchNorm2d(), MaxPool2d(3), AvgPool2d(3), GlobalAvgPool2d()], ids=repr
)
def test_spatial_layers_refuse_features(primitive: Primitive):
    with pytest.raises(NetworkError, match=r"has input shape \(8,\); expected \(channels, height, width\)"):
        primitive.output_shape([(8,)])


def test_linear_refuses_an_image():
    with pytest.raises(
        NetworkError, match=r"linear layer has input shape \(8, 4, 4\); expected \(features,\)"
    ):
        Linear(10).output_shape([(8, 4, 4)])


@pytest.mark.parametrize("primitive", [Conv2d(8, 3), ReLU(), GlobalAvgPool2d(), Linear(3)], ids=repr)
@pytest.mark.parametrize("count", [0, 2])
def test_layers_of_one_input_refuse_another_number(primitive: Primitive, count: int):
    with pytest.raises(NetworkError, match=f"has {count} inputs; expected one"):
        primitive.output_shape([(8, 4, 4)] * count)


@pytest.mark.parametrize("inputs", [[], [(8, 4, 4)], [(8, 4, 4), (8, 4, 2)]])
def test_sum_refuses_fewer_than_two_equal_shapes(inputs: list[Shape]):
    with pytest.raises(NetworkError) as caught:
        Add().output_shape(inputs)
    assert str(caught.value) == f"sum has input shapes {inputs}; expected two or more equal ones"


@pytest.mark.parametrize("inputs", [[(8, 4, 4)], [(8, 4, 4), (4,)], [(8, 4, 4), (8, 4, 4)], [(8,), (8,)]])
def test_scale_refuses_what_is_not_an_image_and_its_factors(inputs: list[Shape]):
    with pytest.raises(NetworkError, match=r"expected \(channels, height, width\) and \(channels,\)"):
        Scale().output_shape(inputs)


@pytest.mark.parametrize(("heads", "channels"), [(2, 9), (4, 18), (0, 12)])
def test_attention_refuses_channels_that_heads_do_not_share(heads: int, channels: int):
    with pytest.raises(NetworkError, match=f"attention in {heads} heads has {channels} input channels"):
        SelfAttention(heads).output_shape([(channels, 4, 4)])


def test_resize_refuses_no_pixels():
    with pytest.raises(NetworkError, match="resize to 0 x 3 pixels; expected at least 1 x 1"):
        Resize(0, 3)
