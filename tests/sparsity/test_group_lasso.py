from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.kernels import reference
from minissl.sparsity import group_lasso, weight_decay
from minissl.sparsity.group_lasso import GroupTerm
from minissl.sparsity.groups import Tile, tile_of

from .strategies import conv_shapes, dtypes, tiles_of, weights


def naive(matrix, tile, strength):
    """Penalty and gradient, group by group, in float64."""
    w = matrix.astype(np.float64)
    gradient = np.zeros_like(w)
    total = 0.0
    for top in range(0, w.shape[0], tile.ydimen):
        for left in range(0, w.shape[1], tile.xdimen):
            group = np.s_[top : top + tile.ydimen, left : left + tile.xdimen]
            norm = np.sqrt((w[group] ** 2).sum())
            total += norm
            if norm > 0:
                gradient[group] = strength * w[group] / norm
    return strength * total, gradient


def gradient_of(matrix, tile, strength, kernels=reference):
    d_matrix = np.zeros_like(matrix)
    group_lasso.add_gradient(d_matrix, matrix, tile, strength, kernels)
    return d_matrix


def finite_differences(matrix, tile, strength, step=1e-5):
    """Central differences of the penalty."""
    gradient = np.empty_like(matrix)
    for index in np.ndindex(matrix.shape):
        moved = matrix.copy()
        moved[index] += step
        above = group_lasso.penalty(moved, tile, strength)
        moved[index] -= 2 * step
        below = group_lasso.penalty(moved, tile, strength)
        gradient[index] = (above - below) / (2 * step)
    return gradient


@st.composite
def problems(draw, dtype=np.float64):
    """A weight matrix, with zero groups among them, and a tile."""
    shape, conv_groups = draw(conv_shapes())
    matrix = draw(weights(shape, dtype)).reshape(shape[0], -1)
    return matrix, draw(tiles_of(shape, conv_groups)), draw(st.sampled_from([0.01, 0.3, 2.0]))


@given(problems(), dtypes)
def test_equals_the_naive_loop_and_adds(problem, dtype):
    matrix, tile, strength = problem
    matrix = matrix.astype(dtype)
    before = matrix.copy()
    d_matrix = np.full_like(matrix, 0.25)
    group_lasso.add_gradient(d_matrix, matrix, tile, strength)
    value, expected = naive(matrix, tile, strength)
    rtol = 1e-6 if dtype == np.float32 else 1e-13
    assert group_lasso.penalty(matrix, tile, strength) == pytest.approx(value, rel=rtol)
    np.testing.assert_allclose(d_matrix, expected + 0.25, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(matrix, before)
    assert d_matrix.dtype == dtype


@given(problems())
def test_gradient_is_the_finite_difference_of_the_penalty(problem):
    matrix, tile, strength = problem
    matrix = matrix + np.where(matrix == 0, 0.7, 0)  # no group at 0, where there is no gradient
    np.testing.assert_allclose(
        gradient_of(matrix, tile, strength),
        finite_differences(matrix, tile, strength),
        rtol=1e-6,
        atol=1e-8 * strength,
    )


def test_a_forgotten_square_root_is_caught_by_finite_differences():
    """The mistake of a known re-implementation; the test above must not pass with it."""

    def square_sums_without_root(w, ydim, xdim, sums):
        reference.tile_square_sums(w, ydim, xdim, sums)
        sums **= 2  # the root that group_norms takes then gives ||w||^2

    wrong = SimpleNamespace(
        xp=np,
        tile_square_sums=square_sums_without_root,
        tile_add_scaled=reference.tile_add_scaled,
    )
    matrix = np.random.default_rng(0).uniform(0.5, 2, (4, 6))
    tile = Tile(6, 1)
    right = finite_differences(matrix, tile, 0.3)
    np.testing.assert_allclose(gradient_of(matrix, tile, 0.3), right, rtol=1e-6)
    assert np.abs(gradient_of(matrix, tile, 0.3, wrong) / right - 1).min() > 0.1


@given(problems(), dtypes)
def test_groups_of_one_element_are_l1(problem, dtype):
    matrix, _, strength = problem
    matrix = matrix.astype(dtype)
    one = Tile(1, 1)
    l1 = np.zeros_like(matrix)
    weight_decay.add_gradient(l1, matrix, "L1", strength)
    np.testing.assert_allclose(gradient_of(matrix, one, strength), l1, rtol=1e-6)
    assert group_lasso.penalty(matrix, one, strength) == pytest.approx(
        weight_decay.penalty(matrix, "L1", strength), rel=1e-12
    )


@given(problems())
def test_one_group_is_the_l2_norm(problem):
    matrix, _, strength = problem
    rows, columns = matrix.shape
    norm = np.linalg.norm(matrix)
    whole = Tile(columns, rows)
    assert group_lasso.penalty(matrix, whole, strength) == pytest.approx(strength * norm, rel=1e-12)
    if norm > 0:
        gradient = gradient_of(matrix, whole, strength)
        np.testing.assert_allclose(gradient, strength * matrix / norm, rtol=1e-12)


@given(problems(), dtypes)
def test_rows_are_the_columns_of_the_transpose(problem, dtype):
    matrix = problem[0].astype(dtype)
    columns = matrix.shape[1]
    transposed = np.ascontiguousarray(matrix.T)
    np.testing.assert_allclose(
        gradient_of(matrix, Tile(columns, 1), 0.3),
        gradient_of(transposed, Tile(1, columns), 0.3).T,
        rtol=1e-6 if dtype == np.float32 else 1e-13,
    )


@given(conv_shapes(), st.data())
def test_published_equivalences_of_rows_columns_and_blocks(drawn, data):
    """Row = block (C, 1); column = block (1, R/g), also as columns of each band by itself."""
    shape, g = drawn
    w = data.draw(weights(shape)).reshape(shape[0], -1)
    rows, columns = w.shape
    assert tile_of("row", shape, g) == Tile(columns, 1)
    assert tile_of("column", shape, g) == Tile(1, rows // g)
    by_band = np.concatenate(
        [gradient_of(band.copy(), Tile(1, rows // g), 0.3) for band in np.split(w, g)]
    )
    columns_of_bands = gradient_of(w, tile_of("column", shape, g), 0.3)
    np.testing.assert_allclose(columns_of_bands, by_band, rtol=1e-13)


@given(conv_shapes(), st.data(), dtypes)
def test_overlapping_terms_sum_and_see_the_same_weights(drawn, data, dtype):
    shape, g = drawn
    matrix = data.draw(weights(shape, dtype)).reshape(shape[0], -1)
    terms = [
        GroupTerm(tile, strength)
        for tile, strength in zip(
            data.draw(st.lists(tiles_of(shape, g), max_size=4)), (0.1, 1.0, 0.02, 3.0), strict=False
        )
    ]
    d_matrix = np.zeros_like(matrix)
    for term in terms:
        group_lasso.add_gradient(d_matrix, matrix, term.tile, term.strength)
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    each = [naive(matrix, term.tile, term.strength)[1] for term in terms]
    expected = sum(each, np.zeros(matrix.shape))
    np.testing.assert_allclose(d_matrix, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_groups_add_nothing(dtype):
    matrix = np.zeros((4, 6), dtype)
    matrix[0, 0] = -3
    d_matrix = np.zeros_like(matrix)
    group_lasso.add_gradient(d_matrix, matrix, Tile(6, 1), 0.5)
    assert group_lasso.penalty(matrix, Tile(6, 1), 0.5) == 1.5
    expected = np.zeros_like(matrix)
    expected[0, 0] = -0.5
    np.testing.assert_array_equal(d_matrix, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_float32_denormals_have_a_norm(sign):
    """The smallest float32 there is: its square needs double, its gradient is still lambda."""
    matrix = np.zeros((2, 4), np.float32)
    matrix[0, 1] = sign * np.finfo(np.float32).smallest_subnormal
    matrix[1] = sign * np.float32(1e-40)
    gradient = gradient_of(matrix, Tile(4, 1), 0.5)
    np.testing.assert_allclose(gradient[0], [0, sign * 0.5, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(gradient[1], sign * 0.25, rtol=1e-6)


@pytest.mark.parametrize("magnitude", [5e-324, 1e-310, 1e-200, 1.6e-162, 1e-161, 1e-150])
def test_float64_denormals_never_give_more_than_lambda_or_nan(magnitude):
    """Squares underflow below 1e-162; there a group counts as zero, above it has its force."""
    matrix = np.full((3, 4), magnitude)
    gradient = gradient_of(matrix, Tile(4, 1), 0.5)
    assert np.isfinite(gradient).all()
    assert (np.linalg.norm(gradient, axis=1) <= 0.75).all()
    if magnitude >= 1e-161:
        np.testing.assert_allclose(gradient, 0.25, rtol=0.05)


@pytest.mark.parametrize(("dtype", "huge"), [(np.float32, 3e38), (np.float64, 1e150)])
def test_huge_weights_do_not_overflow(dtype, huge):
    matrix = np.full((3, 4), huge, dtype)
    gradient = gradient_of(matrix, Tile(4, 1), 0.5)
    np.testing.assert_allclose(gradient, 0.25, rtol=1e-6)
    assert group_lasso.penalty(matrix, Tile(4, 1), 0.5) == pytest.approx(3 * huge, rel=1e-6)


def test_nan_weights_are_not_hidden():
    matrix = np.ones((2, 2))
    matrix[0, 0] = np.nan
    d_matrix = np.zeros_like(matrix)
    group_lasso.add_gradient(d_matrix, matrix, Tile(2, 1), 0.5)
    assert np.isnan(group_lasso.penalty(matrix, Tile(2, 1), 0.5))
    assert np.isnan(d_matrix[0]).all()
    assert np.isfinite(d_matrix[1]).all()


def test_the_gradient_shrinks_all_groups_by_the_same_amount():
    """No sqrt(size): a step along the gradient takes step * lambda off every norm."""
    rng = np.random.default_rng(1)
    for tile in (Tile(1, 1), Tile(6, 1), Tile(3, 2), Tile(6, 4)):
        matrix = rng.normal(size=(4, 6))
        matrix += np.sign(matrix)
        before = group_lasso.group_norms(matrix, tile)
        matrix -= 0.1 * gradient_of(matrix, tile, 0.5)
        np.testing.assert_allclose(before - group_lasso.group_norms(matrix, tile), 0.05, rtol=1e-12)


def spec(blocks=(), breadth=0.0, kernel_shape=0.0):
    return SimpleNamespace(
        block_group_lasso=[
            SimpleNamespace(xdimen=x, ydimen=y, block_decay_mult=mult) for x, y, mult in blocks
        ],
        breadth_decay_mult=breadth,
        kernel_shape_decay_mult=kernel_shape,
    )


def solver(block=0.0, breadth=0.0, kernel_shape=0.0):
    return SimpleNamespace(
        block_group_decay=block, breadth_decay=breadth, kernel_shape_decay=kernel_shape
    )


def test_terms_come_in_the_published_order_with_products_in_double():
    terms = group_lasso.terms_of(
        spec([(36, 1, 1.0), (1, 6, 0.3)], breadth=0.2, kernel_shape=1.7321),
        solver(block=0.03, breadth=0.005, kernel_shape=0.001),
        (12, 4, 3, 3),
        conv_groups=2,
    )
    widened = {value: float(np.float32(value)) for value in (0.03, 0.3, 0.2, 0.005, 0.001, 1.7321)}
    assert terms == [
        GroupTerm(Tile(1, 6), widened[0.001] * widened[1.7321]),
        GroupTerm(Tile(36, 1), widened[0.005] * widened[0.2]),
        GroupTerm(Tile(36, 1), widened[0.03]),
        GroupTerm(Tile(1, 6), widened[0.03] * widened[0.3]),
    ]


def test_terms_of_strength_zero_are_dropped_but_tiles_are_checked():
    blocks = [(36, 1, 1.0), (1, 6, 0.0)]
    shape = (12, 4, 3, 3)
    assert group_lasso.terms_of(spec(blocks), solver(), shape) == []
    assert group_lasso.terms_of(spec(), solver(1.0, 1.0, 1.0), shape) == []
    assert group_lasso.terms_of(spec(blocks), solver(block=1.0), shape) == [
        GroupTerm(Tile(36, 1), 1.0)
    ]
    with pytest.raises(ConfigError, match=r"conv2 blob 0.*ydimen 5"):
        group_lasso.terms_of(spec([(1, 5, 1.0)]), solver(), shape, where="conv2 blob 0")


def test_a_bias_is_a_column():
    """Its rows are single elements; its columns end at conv groups, as those of the weights."""
    terms = group_lasso.terms_of(
        spec(breadth=1.0, kernel_shape=1.0), solver(breadth=2.0, kernel_shape=4.0), (12,), 2
    )
    assert terms == [GroupTerm(Tile(1, 6), 4.0), GroupTerm(Tile(1, 1), 2.0)]
