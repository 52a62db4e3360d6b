"""The data that models are fed with."""

import tracemalloc

import numpy
import pytest

from device_agent import worker

# More than is drawn at once, and no multiple of it.
SHAPE = [3, 401, 397]


def made(dtype: str, *, data: str = "random", seed: int = 7, shape: list[int] = SHAPE) -> numpy.ndarray:
    entry = worker.Input("image", dtype, None)
    return worker.make_inputs([entry], {"image": shape}, data, seed)["image"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_standard_normal_and_reproducible(dtype: str):
    expected = numpy.random.RandomState(7).standard_normal(SHAPE).astype(dtype)
    numpy.testing.assert_array_equal(made(dtype), expected, strict=True)
    assert (made(dtype, seed=8) != expected).mean() > 0.9


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_integers_are_0_and_1_and_reproducible(dtype: str):
    expected = numpy.random.RandomState(7).randint(0, 2, size=SHAPE).astype(dtype)
    numpy.testing.assert_array_equal(made(dtype), expected, strict=True)
    assert 0.49 < expected.mean() < 0.51


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_zeros_are_zeros(dtype: str):
    numpy.testing.assert_array_equal(made(dtype, data="zeros"), numpy.zeros(SHAPE, dtype), strict=True)


def test_input_without_axes_has_one_number():
    assert made("float32", shape=[]).shape == ()
    assert made("float32", shape=[]) == numpy.float32(numpy.random.RandomState(7).standard_normal())


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_input_takes_no_more_memory_while_it_is_made_than_once_it_is(dtype: str):
    """An image of 4K: in 64 bits it would take 8 or 4 times its size."""
    shape = [1, 3, 2160, 3840]
    made(dtype, shape=[1])
    tracemalloc.start()
    try:
        image = made(dtype, shape=shape)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < image.nbytes + (2 << 20)
