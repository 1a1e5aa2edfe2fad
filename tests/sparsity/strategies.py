"""What the tests of this room draw: weight matrices with zero rows and columns, and their tiles."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minissl.sparsity.groups import KINDS, Tile, tile_of

dtypes = st.sampled_from([np.float32, np.float64])


def divisors(number: int) -> st.SearchStrategy[int]:
    return st.sampled_from([divisor for divisor in range(1, number + 1) if number % divisor == 0])


@st.composite
def conv_shapes(draw) -> tuple[tuple[int, int, int, int], int]:
    """(F, C/g, kh, kw) and g."""
    conv_groups = draw(st.integers(1, 3))
    filters = conv_groups * draw(st.integers(1, 4))
    shape = (filters, draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    return shape, conv_groups


@st.composite
def weights(draw, shape, dtype=np.float64) -> np.ndarray:
    """Weights well away from 0, with some zero rows, columns and elements."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.uniform(0.5, 2.0, shape) * rng.choice([-1, 1], shape)
    matrix = w.reshape(shape[0], -1)
    matrix[rng.random(matrix.shape[0]) < 0.3] = 0
    matrix[:, rng.random(matrix.shape[1]) < 0.3] = 0
    matrix[rng.random(matrix.shape) < 0.2] = 0
    return w.astype(dtype)


@st.composite
def tiles_of(draw, shape, conv_groups) -> Tile:
    """A tile of a named kind, or any that divides the matrix."""
    if draw(st.booleans()):
        return tile_of(draw(st.sampled_from(KINDS)), shape, conv_groups)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    return Tile(draw(divisors(columns)), draw(divisors(rows)))
