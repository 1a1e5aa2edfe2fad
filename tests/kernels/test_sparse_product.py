"""Compressed rows times a dense matrix: equal to the plain product, for any number of threads."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.conv_modes import prepare
from minissl.conv_modes.compressed_rows import compress, expand
from minissl.kernels import reference
from minissl.kernels.cpu.sparse_product import TASKS, share
from tests.kernels.strategies import PATTERNS, convolutions, sparsify

cpu = backend.get("numba")

# columns of the dense matrix: fewer than a panel is worth, every width of a panel, several panels
COLUMNS = st.one_of(st.integers(1, 5), st.sampled_from([15, 16, 17, 32, 33, 63, 64, 65, 129, 200]))


@st.composite
def matrices(draw):
    """A sparse (F, K) matrix in float64, with empty rows and rows of more than eight non-zeros."""
    F, K = draw(st.integers(1, 70)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    a = rng.uniform(-1, 1, (F, K))
    a[rng.random((F, K)) >= draw(st.sampled_from([0, 0.05, 0.3, 1]))] = 0
    a[rng.random(F) < draw(st.sampled_from([0, 0.3]))] = 0
    return a


def data(a, n, dtype, whole, seed=0):
    """Return A, x (K, n) and a bias, real or whole numbers."""
    rng = np.random.default_rng(seed)
    x, b = rng.uniform(-1, 1, (a.shape[1], n)), rng.uniform(-1, 1, a.shape[0])
    if whole:
        a, x, b = (np.rint(5 * array) for array in (a, x, b))
    return a.astype(dtype), x.astype(dtype), b.astype(dtype)


def assert_equal(found, expected, dtype, whole):
    assert found.dtype == expected.dtype == np.dtype(dtype)
    if whole:
        assert np.array_equal(found, expected)
    else:
        tolerance = 1e-5 if dtype == "float32" else 1e-12
        scale = max(1.0, float(np.abs(expected).max()))
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


@given(matrices(), COLUMNS, st.sampled_from(["float32", "float64"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sparse_times_dense(a, n, dtype, whole):
    a, x, _ = data(a, n, dtype, whole)
    for module in (reference, cpu):
        y = np.full((a.shape[0], n), np.nan, dtype)
        module.csr_times_dense(*compress(a), x, y)
        assert_equal(y, a @ x, dtype, whole)


@given(matrices(), COLUMNS, st.sampled_from(["float32", "float64"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_inner_product(a, N, dtype, whole):
    a, x, b = data(a, N, dtype, whole)
    x = np.ascontiguousarray(x.T)
    expected = np.empty((N, a.shape[0]), dtype)
    reference.inner_product_forward(x, a, b, expected)
    for module in (reference, cpu):
        y = np.full_like(expected, np.nan)
        module.inner_product_csr(x, *compress(a, np.uint16), b, y)
        assert_equal(y, expected, dtype, whole)


def test_more_columns_than_are_filled_together(monkeypatch):
    from minissl.kernels.cpu import sparse_product

    monkeypatch.setattr(sparse_product, "PANEL_BYTES", 1)
    a, x, b = data(np.random.default_rng(1).uniform(-1, 1, (20, 30)), 300, "float32", True)
    for call in ("csr_times_dense", "inner_product_csr"):
        if call == "csr_times_dense":
            y, expected = np.full((20, 300), np.nan, "float32"), a @ x
            cpu.csr_times_dense(*compress(a), x, y)
        else:
            y, expected = np.full((300, 20), np.nan, "float32"), x.T @ a.T + b
            cpu.inner_product_csr(np.ascontiguousarray(x.T), *compress(a), b, y)
        assert np.array_equal(y, expected)


@given(convolutions(), st.sampled_from(PATTERNS))
@settings(max_examples=60, deadline=None)
def test_convolution_of_whole_numbers_is_exact(case, pattern):
    x, w, b, _ = (np.rint(4 * array) for array in case.arrays("float32"))
    sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    expected = np.empty((case.N, case.shape.filters, *case.shape.output), "float32")
    reference.conv_forward(x, w, b, *case.arguments, expected)
    y = np.full_like(expected, np.nan)
    prepare("LOWERED_CSRMM", case.shape, w, b, cpu).forward(x, y)
    assert np.array_equal(y, expected)


@pytest.mark.parametrize("chunk_bytes", [1, 60000])
def test_convolution_of_many_chunks(monkeypatch, chunk_bytes):
    from minissl.conv_modes import ConvShape
    from minissl.kernels.cpu import sparse_convolution

    monkeypatch.setattr(sparse_convolution, "PANEL_BYTES", chunk_bytes)
    rng = np.random.default_rng(2)
    shape = ConvShape(4, (11, 9), 6, (3, 3), pad=(1, 1), groups=2)
    x = np.rint(4 * rng.uniform(-1, 1, (7, 4, 11, 9)))
    w = np.rint(4 * rng.uniform(-1, 1, shape.weight_shape))
    w[rng.random(w.shape) < 0.5] = 0
    y, expected = np.empty((2, 7, 6, 11, 9))
    reference.conv_forward(x, w, None, (1, 1), (1, 1), (1, 1), 2, expected)
    prepare("LOWERED_CSRMM", shape, w, None, cpu).forward(x, y)
    assert np.array_equal(y, expected)


@given(matrices())
@settings(max_examples=30, deadline=None)
def test_compressed_rows_round_trip(a):
    values, columns, row_start = compress(a)
    assert values.size == np.count_nonzero(a) and values.all()
    assert np.array_equal(expand(values, columns, row_start, a.shape), a)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.integers(1, TASKS),
    st.data(),
)
@example([0, 0, 1000, 0], 4, None)
@settings(max_examples=60, deadline=None)
def test_shares_hold_equal_work_and_every_row_once(counts, parts, more):
    row_start = np.concatenate([[0], np.cumsum(counts)])
    first = more.draw(st.integers(0, len(counts) - 1)) if more else 0
    last = more.draw(st.integers(first, len(counts))) if more else len(counts)
    ends = [share(row_start, first, last, part, parts) for part in range(parts + 1)]
    assert ends[0] == first and ends[-1] == last and ends == sorted(ends)
    work = np.diff(row_start) + 1
    shares = [int(work[a:b].sum()) for a, b in pairwise(ends)]
    average = work[first:last].sum() / parts
    assert max(shares) <= average + work.max() + 1


def results(seed):
    """Products of every kind, with one row that holds most of the non-zeros."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((50, 300)).astype("float32")
    a[rng.random(a.shape) < 0.9] = 0
    a[17] = rng.standard_normal(300)
    packed = compress(a)
    found = []
    for n in (1, 3, 20, 150):
        x = rng.standard_normal((300, n)).astype("float32")
        y = np.empty((50, n), "float32")
        cpu.csr_times_dense(*packed, x, y)
        z = np.empty((n, 50), "float32")
        cpu.inner_product_csr(np.ascontiguousarray(x.T), *packed, y[:, 0].copy(), z)
        found += [y, z]
    from minissl.conv_modes import ConvShape

    shape = ConvShape(12, (13, 13), 50, (5, 5), pad=(2, 2))
    image = rng.standard_normal((3, 12, 13, 13)).astype("float32")
    y = np.empty((3, 50, 13, 13), "float32")
    prepare("LOWERED_CSRMM", shape, a.reshape(50, 12, 5, 5), None, cpu).forward(image, y)
    return [array.tobytes() for array in (*found, y)]


def test_results_are_bitwise_equal_for_any_number_of_threads():
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2 or numba.config.DISABLE_JIT:
        pytest.skip("needs compiled code and two threads")
    before = numba.get_num_threads()
    try:
        found = {}
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            found[threads] = results(seed=5)
    finally:
        numba.set_num_threads(before)
    assert all(one == found[1] for one in found.values())
