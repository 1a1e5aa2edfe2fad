"""Convolutions and products on the GPU against the definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minissl.backend import to_host
from minissl.conv_modes import prepare
from minissl.conv_modes.compressed_rows import compress
from minissl.kernels import reference
from tests.gpu.agreement import DTYPES, SEEDS, TOLERANCE, assert_agree, few, on_device
from tests.kernels.strategies import PATTERNS, convolutions, sparsify


@given(case=convolutions(), dtype=DTYPES)
@few(30)
def test_convolutions_agree(gpu, case, dtype):
    x, w, b, d_y = case.arrays(dtype)
    nothing = np.full_like(d_y, np.nan)
    assert_agree(gpu, "conv_forward", (x, w, b, *case.arguments), nothing)
    assert_agree(gpu, "conv_forward", (x, w, None, *case.arguments), nothing)
    assert_agree(gpu, "conv_backward_weights", (x, d_y, *case.arguments), np.ones_like(w))
    assert_agree(gpu, "conv_backward_input", (d_y, w, *case.arguments), np.full_like(x, np.nan))
    assert_agree(gpu, "conv_backward_bias", (d_y,), np.ones_like(b))


@given(case=convolutions(), dtype=DTYPES)
@few(15)
def test_whole_numbers_agree_bitwise(gpu, case, dtype):
    x, w, b, d_y = (np.round(8 * a) for a in case.arrays(dtype))
    nothing, d_x = np.full_like(d_y, np.nan), np.full_like(x, np.nan)
    assert_agree(gpu, "conv_forward", (x, w, b, *case.arguments), nothing, exactly=True)
    assert_agree(
        gpu, "conv_backward_weights", (x, d_y, *case.arguments), np.ones_like(w), exactly=True
    )
    assert_agree(gpu, "conv_backward_input", (d_y, w, *case.arguments), d_x, exactly=True)


@given(case=convolutions())
@few(15)
def test_lowering_agrees(gpu, case):
    x, _, _, _ = case.arrays()
    s = case.shape
    K, pixels = s.channels * s.kernel[0] * s.kernel[1], s.output[0] * s.output[1]
    pairs = (s.kernel, s.stride, s.pad, s.dilation)
    whole = np.full((K, pixels), np.nan)
    assert_agree(gpu, "im2col", (x[0], *pairs), whole, exactly=True)
    kept = np.arange(0, K, 2)
    some = np.full((len(kept), pixels), np.nan)
    assert_agree(gpu, "lower_columns", (x[0], kept, *pairs), some, exactly=True)
    col = np.random.default_rng(case.seed).uniform(-1, 1, (K, pixels))
    assert_agree(gpu, "col2im", (col, *pairs), np.full_like(x[0], np.nan), exactly=True)


@given(case=convolutions(), pattern=st.sampled_from(PATTERNS), dtype=DTYPES)
@few(30)
def test_sparse_modes_agree(gpu, case, pattern, dtype):
    """Each mode packs the weights, convolves as the dense mode does, and gives them back."""
    x, w, b, d_y = case.arrays(dtype)
    w = sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    expected = np.empty_like(d_y)
    reference.conv_forward(x, w, b, *case.arguments, expected)
    xp = gpu.xp
    for mode in ("LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV"):
        for bias in (b, None):
            at = xp.asarray(bias) if bias is not None else None
            prepared = prepare(mode, case.shape, xp.asarray(w), at, gpu)
            y = xp.empty(d_y.shape, dtype)
            prepared.forward(xp.asarray(x), y)
            want = expected if bias is not None else expected - b[:, None, None]
            assert np.allclose(
                to_host(y), want, rtol=1e-4, atol=1e-4 if dtype == "float32" else 1e-10
            )
        assert np.array_equal(to_host(prepared.dense()), w)


@given(case=convolutions(), pattern=st.sampled_from(PATTERNS), dtype=DTYPES)
@few(20)
def test_packed_gradients_agree(gpu, case, pattern, dtype):
    x, w, b, d_y = case.arrays(dtype)
    w = sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    host = prepare("LOWERED_CCNMM", case.shape, w, b, reference)
    device = prepare("LOWERED_CCNMM", case.shape, gpu.xp.asarray(w), gpu.xp.asarray(b), gpu)
    d_w, d_x = np.ones_like(w), np.full_like(x, np.nan)
    d_w_there, d_x_there = gpu.xp.asarray(d_w.copy()), gpu.xp.asarray(d_x.copy())
    host.backward_weights(x, d_y, d_w)
    host.backward_input(d_y, d_x)
    device.backward_weights(gpu.xp.asarray(x), gpu.xp.asarray(d_y), d_w_there)
    device.backward_input(gpu.xp.asarray(d_y), d_x_there)
    for want, found in ((d_w, d_w_there), (d_x, d_x_there)):
        assert np.allclose(to_host(found), want, rtol=1e-4, atol=100 * TOLERANCE[dtype])


@given(case=convolutions(), dtype=DTYPES)
@few(10)
def test_products_rectify_what_they_write(gpu, case, dtype):
    """As the ReLU behind the layer would, in the same pass."""
    x, w, b, d_y = case.arrays(dtype)
    s = case.shape
    expected = np.empty_like(d_y)
    reference.conv_forward(x, w, b, *case.arguments, expected)
    there, weights, bias = (gpu.xp.asarray(a) for a in (x, w, b))
    matrix = [on_device(gpu, a) for a in compress(w.reshape(s.filters, -1))]
    packed = prepare("LOWERED_CCNMM", s, weights, bias, gpu)
    found = [gpu.xp.empty(d_y.shape, dtype) for _ in range(3)]
    gpu.conv_forward(there, weights, bias, *case.arguments, found[0], relu=True)
    gpu.conv_csrmm(there, *matrix, bias, *s.geometry, s.groups, found[1], relu=True)
    packed.forward(there, found[2], relu=True)
    for y in found:
        assert np.allclose(to_host(y), np.maximum(expected, 0), atol=10 * TOLERANCE[dtype])


@given(case=convolutions(), pattern=st.sampled_from(PATTERNS), dtype=DTYPES, relu=st.booleans())
@few(20)
def test_direct_convolution_agrees(gpu, case, pattern, dtype, relu):
    x, w, b, d_y = case.arrays(dtype)
    w = sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    expected = np.empty_like(d_y)
    reference.conv_forward(x, w, b, *case.arguments, expected)
    matrix = compress(w.reshape(case.shape.filters, -1))
    s, y = case.shape, gpu.xp.empty(d_y.shape, dtype)
    given = [on_device(gpu, a) for a in (x, *matrix, b)]
    gpu.conv_sconv(*given, *s.geometry, s.groups, y, relu=relu)
    expected = np.maximum(expected, 0) if relu else expected
    assert np.allclose(to_host(y), expected, rtol=1e-4, atol=10 * TOLERANCE[dtype])


@given(
    F=st.integers(1, 90),
    K=st.integers(1, 12),
    n=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.1, 0.6]),
    index=st.sampled_from(["int32", "int64", "uint16"]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(30)
def test_sparse_products_agree(gpu, F, K, n, density, index, dtype, seed):
    """Up to 64 rows by the own kernel, more by cuSPARSE; few images and many."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (F, K)).astype(dtype) * (rng.random((F, K)) < density)
    matrix = compress(a.astype(dtype), index)
    x, b = rng.uniform(-1, 1, (K, n)).astype(dtype), rng.uniform(-1, 1, F).astype(dtype)
    assert_agree(gpu, "csr_times_dense", (*matrix, x), np.full((F, n), np.nan, dtype))
    images = np.ascontiguousarray(x.T)
    values, columns, row_start = matrix
    y = np.full((n, F), np.nan, dtype)
    assert_agree(gpu, "inner_product_csr", (images, values, columns, row_start, b), y)


@given(N=st.integers(1, 9), K=st.integers(1, 12), F=st.integers(1, 9), dtype=DTYPES, seed=SEEDS)
@few(20)
def test_inner_products_agree(gpu, N, K, F, dtype, seed):
    rng = np.random.default_rng(seed)
    x, w, b, d_y = (
        rng.uniform(-1, 1, shape).astype(dtype) for shape in ((N, K), (F, K), (F,), (N, F))
    )
    assert_agree(gpu, "inner_product_forward", (x, w, b), np.full_like(d_y, np.nan))
    assert_agree(gpu, "inner_product_forward", (x, w, None), np.full_like(d_y, np.nan))
    assert_agree(gpu, "inner_product_backward_weights", (x, d_y), np.ones_like(w))
    assert_agree(gpu, "inner_product_backward_input", (d_y, w), np.full_like(x, np.nan))
    assert_agree(gpu, "inner_product_backward_bias", (d_y,), np.ones_like(b))
