from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.errors import ConfigError
from minissl.kernels import reference
from minissl.sparsity.group_lasso import group_norms
from minissl.sparsity.groups import Tile
from minissl.sparsity.proximal import is_proximal, proximal_step

from .strategies import conv_shapes, dtypes, tiles_of, weights

amounts = st.floats(0, 6)


def prox(matrix, tile, amount, kernels=reference):
    result = matrix.copy()
    proximal_step(result, tile, amount, kernels)
    return result


def projection(matrix, tile, radius):
    """The nearest matrix whose groups have norms of at most ``radius``, group by group."""
    result = matrix.copy()
    for top in range(0, matrix.shape[0], tile.ydimen):
        for left in range(0, matrix.shape[1], tile.xdimen):
            group = result[top : top + tile.ydimen, left : left + tile.xdimen]
            norm = np.sqrt((group**2).sum())
            if norm > radius:
                group *= radius / norm
    return result


@st.composite
def problems(draw, dtype=np.float64):
    """A weight matrix, with zero groups among them, and a tile."""
    shape, conv_groups = draw(conv_shapes())
    matrix = draw(weights(shape, dtype)).reshape(shape[0], -1)
    return matrix, draw(tiles_of(shape, conv_groups))


@given(problems(), amounts, dtypes)
def test_norms_lose_the_amount_or_all_they_have(problem, amount, dtype):
    matrix, tile = problem[0].astype(dtype), problem[1]
    before = group_norms(matrix, tile)
    after = group_norms(prox(matrix, tile, amount), tile)
    rtol = 1e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(after, np.maximum(before - amount, 0), rtol=rtol, atol=6 * rtol)
    np.testing.assert_array_equal(after == 0, before <= amount)  # exactly, without a threshold


@given(problems(), amounts)
def test_moreau(problem, amount):
    """X = prox of amount * ||.|| + projection on the ball of radius amount, its dual's."""
    matrix, tile = problem
    np.testing.assert_allclose(
        prox(matrix, tile, amount) + projection(matrix, tile, amount), matrix, rtol=0, atol=1e-12
    )


@given(conv_shapes(), st.data(), amounts)
def test_it_is_not_expansive(drawn, data, amount):
    shape, conv_groups = drawn
    tile = data.draw(tiles_of(shape, conv_groups))
    x, y = (data.draw(weights(shape)).reshape(shape[0], -1) for _ in range(2))
    apart = np.linalg.norm(prox(x, tile, amount) - prox(y, tile, amount))
    assert apart <= np.linalg.norm(x - y) * (1 + 1e-12)


@given(problems(), st.floats(0.01, 6))
def test_it_minimizes_what_it_stands_for(problem, amount):
    matrix, tile = problem

    def objective(v):
        return amount * group_norms(v, tile).sum() + ((v - matrix) ** 2).sum() / 2

    found = prox(matrix, tile, amount)
    rng = np.random.default_rng(0)
    for size in (1e-3, 0.1, 1.0):
        assert objective(found) < objective(found + size * rng.normal(size=matrix.shape))


@given(problems(), dtypes)
def test_nothing_is_taken_by_an_amount_of_0(problem, dtype):
    matrix = problem[0].astype(dtype)
    np.testing.assert_array_equal(prox(matrix, problem[1], 0.0), matrix)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("amount", [0.0, 1e-320, 1e-9, 1.0, 1e30])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, -5e-324, 1e-40, -1e-160, 1e-30])
def test_tiny_weights_never_become_nan(dtype, amount, value):
    after = prox(np.full((2, 4), value, dtype), Tile(4, 1), amount)
    assert np.isfinite(after).all() and (np.abs(after) <= abs(value)).all()
    if amount >= 1e-9:
        assert (after == 0).all() and not np.signbit(after).any()


def test_nan_is_not_hidden():
    matrix = np.ones((3, 2))
    matrix[0, 0], matrix[1, 0] = np.nan, np.inf
    after = prox(matrix, Tile(2, 1), 0.5)
    assert np.isnan(after[0]).all() and np.isinf(after[1, 0])
    assert np.isfinite(after[2]).all()
    assert np.isnan(prox(matrix, Tile(2, 1), 1e9)[0]).all()


@given(problems(), amounts, dtypes)
@settings(deadline=None)  # the first call compiles
def test_backends_agree(problem, amount, dtype):
    matrix, tile = problem[0].astype(dtype), problem[1]
    numba = prox(matrix, tile, amount, backend.get("numba"))
    np.testing.assert_allclose(prox(matrix, tile, amount), numba, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(prox(matrix, tile, amount) == 0, numba == 0)


@pytest.mark.parametrize("share", [1.001, 0.98])
def test_least_squares_dies_above_lambda_max_and_not_below(share):
    """The largest norm of a group's gradient at 0 is what keeps all groups at 0."""
    rng = np.random.default_rng(3)
    a, y = rng.normal(size=(30, 8)), rng.normal(size=(30, 1))
    tile = Tile(1, 2)  # 4 groups of 2 coefficients
    strength = share * group_norms(a.T @ y, tile).max()
    rate = 1 / np.linalg.norm(a, 2) ** 2
    x = rng.normal(size=(8, 1))
    for _ in range(3000):
        x -= rate * (a.T @ (a @ x - y))
        proximal_step(x, tile, rate * strength)
    if share > 1:
        assert (x == 0).all()
        return
    norms, slopes = group_norms(x, tile), group_norms(a.T @ (a @ x - y), tile)
    assert 0 < np.count_nonzero(norms) < len(norms)
    np.testing.assert_allclose(slopes[norms > 0], strength, rtol=1e-9)
    assert (slopes[norms == 0] < strength).all()


def test_methods():
    assert is_proximal("proximal") and not is_proximal("subgradient")
    with pytest.raises(ConfigError, match="group_lasso_method 'prox'; use one of subgradient"):
        is_proximal("prox")
