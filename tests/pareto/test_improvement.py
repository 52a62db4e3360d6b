"""Improvement of hypervolume, against the hypervolume itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controller.pareto.front import FloatArray, hypervolume
from controller.pareto.improvement import FreeRegion

# A coarse grid: many coordinates are equal, which a decomposition must stand.
COORDINATES = st.integers(min_value=0, max_value=6).map(lambda value: value / 5)


@st.composite
def fronts(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Draw points, and candidates to add to them, of one to four objectives."""
    objectives = draw(st.integers(min_value=1, max_value=4))
    points = draw(arrays(np.float64, (draw(st.integers(0, 8)), objectives), elements=COORDINATES))
    return points, draw(arrays(np.float64, (3, objectives), elements=COORDINATES))


@given(fronts())
def test_improvement_is_the_hypervolume_that_a_point_adds(drawn: tuple[FloatArray, FloatArray]):
    points, candidates = drawn
    reference = np.full(points.shape[1], 1.1)
    before = hypervolume(points, reference)
    added = [hypervolume(np.vstack([points, candidate]), reference) - before for candidate in candidates]
    assert FreeRegion.of(points, reference).improvement(candidates) == pytest.approx(added, abs=1e-9)


@given(fronts())
def test_region_that_points_are_taken_from_one_by_one_is_that_of_all_at_once(
    drawn: tuple[FloatArray, FloatArray],
):
    points, candidates = drawn
    reference = np.full(points.shape[1], 1.1)
    region = FreeRegion.of(points[:0], reference)
    for point in points:
        region = region.without(point)
    expected = FreeRegion.of(points, reference).improvement(candidates)
    assert region.improvement(candidates) == pytest.approx(expected, abs=1e-9)


def test_expected_improvement_is_the_mean_over_what_may_become_of_a_candidate():
    rng = np.random.default_rng(0)
    points, reference = rng.random((12, 3)), np.full(3, 1.1)
    values = rng.random((3, 8))
    outcomes = np.array([[a, b, c] for a in values[0] for b in values[1] for c in values[2]])
    region = FreeRegion.of(points, reference)
    expected = region.improvement(outcomes).mean()
    assert region.expected_improvement(values[None])[0] == pytest.approx(expected)


def test_a_point_beyond_the_reference_improves_nothing():
    region = FreeRegion.of(np.zeros((0, 2)), np.array([1.0, 1.0]))
    assert region.improvement(np.array([[1.5, 0.2], [0.5, 0.2]])) == pytest.approx([0.0, 0.4])
