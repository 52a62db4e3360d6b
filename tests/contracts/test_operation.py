"""What every registered operation keeps to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.measurement import ModelFormat
from controller.core.network import INPUT, Network, NetworkBuilder
from controller.core.primitives import Conv2d, GlobalAvgPool2d, Linear, Shape
from controller.models.artifact import export
from controller.models.module import seeded_module
from controller.spaces.operations import OPERATIONS

every_operation = pytest.mark.parametrize("name", OPERATIONS)
SIDES = st.integers(min_value=1, max_value=17)


def lowered(name: str, shape: Shape, out_channels: int, stride: int) -> tuple[Network, Shape]:
    """Return a network of a stem, one operation and a head, and the shape of the operation's output."""
    builder = NetworkBuilder(input_shape=(1, *shape[1:]))
    with builder.block("stem", "stem"):
        source = builder.add("conv", Conv2d(shape[0], 1), INPUT)
    with builder.block("layer_1", name):
        result = OPERATIONS[name].lower(builder, source, out_channels, stride)
    output = builder.shape(result)
    with builder.block("head", "head"):
        builder.add("classifier", Linear(2), builder.add("pool", GlobalAvgPool2d(), result))
    return builder.build(), output


@every_operation
@settings(max_examples=25, deadline=None)
@given(height=SIDES, width=SIDES, channels=st.sampled_from((1, 4, 6)), stride=st.sampled_from((1, 2)))
def test_operation_halves_its_input_at_stride_2_and_keeps_it_at_stride_1(
    name: str, height: int, width: int, channels: int, stride: int
):
    _, (out_channels, *size) = lowered(name, (channels, height, width), 8, stride)
    assert out_channels == (channels if OPERATIONS[name].keeps_channels else 8)
    assert size == [len(range(0, height, stride)), len(range(0, width, stride))]


@every_operation
def test_operation_that_keeps_channels_ignores_those_wanted(name: str):
    networks = {lowered(name, (6, 8, 8), wanted, 2)[0] for wanted in (4, 8)}
    assert len(networks) == (1 if OPERATIONS[name].keeps_channels else 2)


@every_operation
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(4, 7, 6), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("model_format", ModelFormat)
def test_operation_can_be_exported(name: str, shape: Shape, stride: int, model_format: ModelFormat):
    network, _ = lowered(name, shape, 8, stride)
    # Raises where the file computes anything but what the module computes.
    assert export(seeded_module(network, 0), model_format).data
