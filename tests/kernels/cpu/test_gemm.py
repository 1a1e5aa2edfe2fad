"""Products of parts of matrices are those of NumPy: every shape, turned or not, added or not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from minissl.kernels.cpu.gemm import blas, multiply


def matrix(rng, dtype, rows, columns, is_turned, room):
    """Whole numbers, rows (or columns) of a larger matrix."""
    shape = (columns, rows + room) if is_turned else (rows, columns + room)
    whole = rng.integers(-4, 5, shape).astype(dtype)
    return whole[:, :rows].T if is_turned else whole[:, :columns]


@given(
    sizes=st.tuples(*[st.integers(1, 20)] * 3),
    turned=st.tuples(st.booleans(), st.booleans()),
    room=st.integers(0, 3),
    beta=st.sampled_from([0, 1]),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_parts_of_matrices(sizes, turned, room, beta, dtype, seed):
    (M, N, K), rng = sizes, np.random.default_rng(seed)
    a = matrix(rng, dtype, M, K, turned[0], room)
    b = matrix(rng, dtype, K, N, turned[1], room)
    whole = np.full((M, N + room), np.nan if beta == 0 else 2.0, dtype)
    c = whole[:, :N]
    correct = a @ b + (2 * beta)
    before = whole[:, N:].copy()
    multiply(blas(np.dtype(dtype)), a, b, beta, c)
    assert np.array_equal(c, correct)
    assert np.array_equal(whole[:, N:], before, equal_nan=True)
