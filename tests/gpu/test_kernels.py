"""The GPU kernels against the definition: same names, same arguments, same results."""

import inspect

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minissl.backend import to_host
from minissl.conv_modes import ConvShape, prepare
from minissl.conv_modes.compressed_rows import compress
from minissl.kernels import reference
from minissl.kernels.geometry import pooling_output
from minissl.kernels.names import NAMES
from tests.gpu import double, shim
from tests.kernels.strategies import PATTERNS, convolutions, sparsify
from tests.kernels.test_cpu import FUNCTIONS

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
DTYPES = st.sampled_from(["float64", "float32"])
SEEDS = st.integers(0, 2**32 - 1)


def few(count):
    """Settings of a property: every example runs a handful of kernels through the shim."""
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def on_device(gpu, value):
    """A copy of an array on the device, with gaps where it had some; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if value.flags.c_contiguous:
        return gpu.xp.array(value)
    return gpu.xp.array(np.ascontiguousarray(value.T)).T


def run(gpu, name, arguments, outputs):
    results = [on_device(gpu, output) for output in outputs]
    given = [on_device(gpu, value) for value in arguments]
    getattr(gpu, name)(*given, *results)
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, np.ndarray):
            assert np.array_equal(to_host(after), before, equal_nan=True), (
                f"{name} changes an input"
            )
    return [to_host(result) for result in results]


def assert_agree(gpu, name, arguments, *outputs, exactly=False):
    expected = [output.copy() for output in outputs]
    getattr(reference, name)(*arguments, *expected)
    for want, found in zip(expected, run(gpu, name, arguments, outputs), strict=True):
        assert found.dtype == want.dtype
        if exactly or want.dtype.kind != "f":
            assert np.array_equal(found, want), name
            continue
        tolerance = TOLERANCE[want.dtype.name]
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        assert np.allclose(found, want, rtol=tolerance, atol=tolerance * scale), name


def test_every_function_is_there_with_the_same_arguments(gpu):
    assert not [name for name in NAMES if not hasattr(gpu, name)]
    for name in FUNCTIONS:
        ours = list(inspect.signature(getattr(gpu, name)).parameters.values())
        expected = list(inspect.signature(getattr(reference, name)).parameters)
        assert [p.name for p in ours[: len(expected)]] == expected, name
        assert all(p.default is not p.empty for p in ours[len(expected) :]), name


def test_arrays_of_the_host_are_refused(gpu):
    """What the other tests rely on: nothing is copied between host and device unseen."""
    with pytest.raises(TypeError):
        gpu.xp.ones(3) + np.ones(3)
    with pytest.raises(TypeError):
        np.asarray(gpu.xp.ones(3))


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


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(40)
def test_pooling_agrees(gpu, size, kernel, stride, pad, dtype, seed):
    """Whole numbers, so that there are ties, which the first pixel wins."""
    pad = tuple(min(p, k - 1) for p, k in zip(pad, kernel, strict=True))
    stride = tuple(min(s, k) for s, k in zip(stride, kernel, strict=True))
    output = [pooling_output(*axis) for axis in zip(size, kernel, stride, pad, strict=True)]
    if min(output) < 1:
        return
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 3, (2, 2, *size)).astype(dtype)
    y = np.full((2, 2, *output), np.nan, dtype)
    argmax = np.full(y.shape, -1, "int32")
    assert_agree(gpu, "max_pool_forward", (x, kernel, stride, pad), y, argmax, exactly=True)
    assert_agree(gpu, "ave_pool_forward", (x, kernel, stride, pad), y)
    reference.max_pool_forward(x, kernel, stride, pad, y, argmax)
    d_y, d_x = rng.uniform(-1, 1, y.shape).astype(dtype), np.full_like(x, np.nan)
    geometry = kernel, stride, pad
    assert_agree(gpu, "max_pool_backward", (d_y, argmax, *geometry), d_x)
    assert_agree(gpu, "ave_pool_backward", (d_y, *geometry), d_x)


def test_pooling_for_inference_keeps_no_positions(gpu):
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    y = gpu.xp.empty((1, 1, 2, 2))
    gpu.max_pool_forward(gpu.xp.asarray(x), (2, 2), (2, 2), (0, 0), y, None)
    assert to_host(y).ravel().tolist() == [5, 7, 13, 15]


def lrn(x, window, alpha, beta, k):
    """Local response normalization, one value at a time."""
    scale = np.empty_like(x)
    half = [length // 2 for length in window]
    for n, c, h, w in np.ndindex(x.shape):
        around = x[
            n,
            max(0, c - half[0]) : c + half[0] + 1,
            max(0, h - half[1]) : h + half[1] + 1,
            max(0, w - half[2]) : w + half[2] + 1,
        ]
        scale[n, c, h, w] = k + alpha / np.prod(window) * np.square(around).sum()
    return scale, x * scale**-beta


@pytest.mark.parametrize("window", [(5, 1, 1), (1, 3, 3), (3, 1, 5)])
def test_local_response_normalization(gpu, window):
    rng = np.random.default_rng(5)
    x = rng.uniform(-2, 2, (2, 6, 4, 3))
    constants = 0.7, 0.75
    expected_scale, expected = lrn(x, window, *constants, 1.5)
    scale, y = (gpu.xp.empty(x.shape) for _ in range(2))
    there = gpu.xp.asarray(x)
    gpu.lrn_forward(there, window, *constants, 1.5, scale, y)
    assert np.allclose(to_host(y), expected, rtol=1e-12, atol=1e-12)
    assert np.allclose(to_host(scale), expected_scale, rtol=1e-12)
    # its gradient: along any direction v, the derivative of sum(d_y * y) is sum(d_x * v)
    d_y, v = rng.normal(size=(2, *x.shape))
    d_x = gpu.xp.empty(x.shape)
    gpu.lrn_backward(there, y, scale, gpu.xp.asarray(d_y), window, *constants, d_x)
    ahead, behind = (lrn(x + h * v, window, *constants, 1.5)[1] for h in (1e-6, -1e-6))
    slope = ((ahead - behind) * d_y).sum() / 2e-6
    assert np.isclose((to_host(d_x) * v).sum(), slope, rtol=1e-6)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 2, 9, 100])),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(20)
def test_what_is_done_to_channels_agrees(gpu, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x, d_y = rng.uniform(-2, 2, (2, *shape)).astype(dtype)
    mean, variance, scale = rng.uniform(0.5, 2, (3, shape[1])).astype(dtype)
    nothing, no_sums = np.full_like(x, np.nan), np.full_like(mean, np.nan)
    assert_agree(gpu, "channel_moments", (x,), no_sums, no_sums)
    assert_agree(gpu, "batch_norm_forward", (x, mean, variance, 0.1), nothing)
    assert_agree(gpu, "batch_norm_backward", (x, mean, variance, 0.1, d_y), nothing)
    assert_agree(gpu, "channel_scale", (x, scale, mean), nothing)
    assert_agree(gpu, "channel_scale", (x, scale, None), nothing)
    assert_agree(gpu, "channel_scale_gradient", (x, d_y), np.ones_like(mean))
    assert_agree(gpu, "weighted_sum", (x, 0.3, d_y, -2.0), nothing)
    assert_agree(gpu, "sum_relu_backward", (x, d_y), nothing, nothing)
    for relu in (False, True):
        y, found = np.empty_like(x), {}
        reference.norm_scale_forward(x, mean, variance, 0.1, scale, mean, y, relu)
        for module in (reference, gpu):
            state = [y, d_y, no_sums, no_sums, nothing, nothing]
            state = [module.xp.array(np.nan_to_num(a, nan=1)) for a in state]
            at = [module.xp.array(a) for a in (x, mean, variance, scale)]
            module.norm_scale_forward(*at[:3], 0.1, at[3], at[1], state[4], relu)
            module.norm_scale_backward(
                at[0], state[0], *at[1:3], 0.1, at[3], *state[1:4], state[5], relu
            )
            found[module] = [to_host(a) for a in state]
        for expected, ours in zip(*found.values(), strict=True):
            size = max(1.0, float(np.abs(expected).max()))
            assert np.allclose(ours, expected, rtol=1e-4, atol=10 * TOLERANCE[dtype] * size)


@given(
    outer=st.integers(1, 4),
    classes=st.integers(1, 70),
    inner=st.integers(1, 3),
    slope=st.sampled_from([0.0, 0.1]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(25)
def test_activations_agree(gpu, outer, classes, inner, slope, dtype, seed):
    rng = np.random.default_rng(seed)
    x, d_y = (rng.normal(0, 20, (outer, classes, inner)).astype(dtype) for _ in range(2))
    nothing = np.full_like(x, np.nan)
    assert_agree(gpu, "relu_forward", (x, slope), nothing, exactly=True)
    assert_agree(gpu, "relu_backward", (x, d_y, slope), nothing, exactly=True)
    assert_agree(gpu, "softmax_forward", (x,), nothing)
    y = np.empty_like(x)
    reference.softmax_forward(x, y)
    assert_agree(gpu, "softmax_backward", (y, d_y), nothing)


@given(
    outer=st.integers(1, 40),
    classes=st.integers(1, 12),
    inner=st.integers(1, 4),
    ignored=st.sampled_from([None, 0, 255]),
    normalizer=st.sampled_from([None, 1, 7]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(30)
def test_losses_of_labels_agree(gpu, outer, classes, inner, ignored, normalizer, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, classes, (outer, inner)).astype(dtype)
    if ignored is not None:
        values[rng.random(values.shape) < 0.3] = ignored
    labels, valid, status = (
        np.empty(values.shape, "int64"),
        np.empty(values.shape, bool),
        np.zeros(2),
    )
    assert_agree(gpu, "read_labels", (values, classes, ignored), labels, valid, status)
    reference.read_labels(values, classes, ignored, labels, valid, status)
    p = rng.dirichlet(np.ones(classes), (outer, inner)).transpose(0, 2, 1).astype(dtype).copy()
    least = 2.0**-126
    loss, count = np.empty((), dtype), np.empty(())
    assert_agree(gpu, "label_loss", (p, labels, valid, least, normalizer), loss, count)
    reference.label_loss(p, labels, valid, least, normalizer, loss, count)
    weight = np.array(0.3, dtype)
    d_x = np.full_like(p, np.nan)
    assert_agree(gpu, "label_loss_backward", (p, labels, valid, weight, count), d_x)


@pytest.mark.parametrize("label", [-1, 3, 0.5, np.nan])
def test_labels_that_are_no_classes_are_noted(gpu, label):
    values = np.array([[0, 1, label, 2]], float)
    for module in (reference, gpu):
        outputs = [np.empty((1, 4), "int64"), np.empty((1, 4), bool), np.zeros(2)]
        there = [module.xp.array(a) for a in (values, *outputs)]
        module.read_labels(there[0], 3, None, *there[1:])
        assert np.array_equal(to_host(there[3]), [1, label], equal_nan=True)


@given(
    ydim=st.integers(1, 12),
    xdim=st.sampled_from([1, 2, 5, 31, 32, 50]),
    bands=st.integers(1, 3),
    tiles=st.sampled_from([1, 2, 31, 32, 33, 70]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(30)
def test_regularization_agrees(gpu, ydim, xdim, bands, tiles, dtype, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (bands * ydim, tiles * xdim)).astype(dtype)
    w[rng.random(w.shape) < 0.3] = 0
    d_w, m = rng.uniform(-1, 1, (2, *w.shape)).astype(dtype)
    sums = np.full((bands, tiles), np.nan)
    assert_agree(gpu, "tile_square_sums", (w, ydim, xdim), sums)
    assert_agree(gpu, "tile_add_scaled", (w, rng.uniform(0, 3, sums.shape), ydim, xdim), d_w)
    factors = rng.uniform(-1, 3, sums.shape) * (rng.random(sums.shape) < 0.7)
    assert_agree(gpu, "tile_scale", (factors, ydim, xdim), w)
    for multiplier in (None, m):
        assert_agree(gpu, "add_l2", (w, 0.7, multiplier), d_w)
        assert_agree(gpu, "add_l1", (w, 0.7, multiplier), d_w)
        for name in ("sum_of_squares", "sum_of_magnitudes"):
            expected = getattr(reference, name)(w, multiplier)
            found = getattr(gpu, name)(on_device(gpu, w), on_device(gpu, multiplier))
            assert np.isclose(found, expected, rtol=1e-6, atol=1e-6)


@given(size=st.integers(1, 300), dtype=DTYPES, seed=SEEDS)
@few(15)
def test_updates_agree(gpu, size, dtype, seed):
    rng = np.random.default_rng(seed)
    d_w, h, v, s, w = (rng.uniform(0.1, 1, size).astype(dtype) for _ in range(5))
    mask = (rng.random(size) < 0.5).astype(dtype)
    calls = {
        "sgd_update": ([d_w, h], (0.1, 0.9)),
        "nesterov_update": ([d_w, h], (0.1, 0.9)),
        "adam_update": ([d_w, h, v], (0.1, 0.9, 0.999, 1e-8)),
        "adagrad_update": ([d_w, v], (0.1, 1e-8)),
        "rmsprop_update": ([d_w, v], (0.1, 0.99, 1e-8)),
        "adadelta_update": ([d_w, v, s], (0.1, 0.95, 1e-6)),
        "apply_update": ([w, d_w], (mask,)),
        "zero_out": ([w], (0.5,)),
    }
    for name, (state, constants) in calls.items():
        results = []
        for module in (reference, gpu):
            copies = [module.xp.array(a) for a in state]
            there = [module.xp.array(c) if isinstance(c, np.ndarray) else c for c in constants]
            getattr(module, name)(*copies, *there)
            results.append([to_host(copy) for copy in copies])
        for expected, found in zip(*results, strict=True):
            assert np.allclose(found, expected, rtol=TOLERANCE[dtype], atol=0), name


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 6),
    decay=st.sampled_from([None, ("L1", 0.3), ("L2", 0.3)]),
    terms=st.integers(0, 3),
    nesterov=st.booleans(),
    optional=st.booleans(),
    threshold=st.sampled_from([0.0, 0.2]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(40)
def test_the_step_in_one_pass_is_the_steps_one_by_one(
    gpu, rows, columns, decay, terms, nesterov, optional, threshold, dtype, seed
):
    rng = np.random.default_rng(seed)
    w, d_w, history, multiplier = rng.uniform(-1, 1, (4, 2 * rows, 3 * columns)).astype(dtype)
    w[:, 0] = 0  # groups that are zero
    mask = (rng.random(w.shape) < 0.7).astype(dtype) if optional else None
    multiplier = multiplier if optional else None
    groups = [(2 * rows, 1, 0.4), (1, 3 * columns, 0.2), (2, 3, 0.1)][:terms]
    there = [gpu.xp.array(a) for a in (w, d_w, history)]
    extra = [on_device(gpu, a) for a in (multiplier, mask)]
    gpu.sgd_step(*there, 0.5, decay, extra[0], groups, 0.1, 0.9, nesterov, extra[1], threshold)
    d_w *= d_w.dtype.type(0.5)
    if decay:
        add = reference.add_l1 if decay[0] == "L1" else reference.add_l2
        add(w, decay[1], multiplier, d_w)
    for ydim, xdim, strength in groups:
        sums = np.empty((w.shape[0] // ydim, w.shape[1] // xdim))
        reference.tile_square_sums(w, ydim, xdim, sums)
        factors = np.divide(strength, np.sqrt(sums), where=sums > 0, out=np.zeros_like(sums))
        reference.tile_add_scaled(w, factors, ydim, xdim, d_w)
    rule = reference.nesterov_update if nesterov else reference.sgd_update
    rule(d_w, history, 0.1, 0.9)
    reference.apply_update(w, d_w, mask)
    near = np.abs(np.abs(w) - threshold) < 1e-5  # which side these fall on is rounding
    reference.zero_out(w, threshold)
    for want, found in zip((w, d_w, history), map(to_host, there), strict=True):
        wrong = ~np.isclose(found, want, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12)
        assert not (wrong & ~near).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 17, 299])
def test_non_finite_values_are_seen(gpu, value, where):
    w = np.ones(300, np.float32)
    assert gpu.all_finite(gpu.xp.asarray(w))
    w[where] = value
    assert not gpu.all_finite(gpu.xp.asarray(w))
    assert not gpu.are_finite(gpu.xp.asarray(a) for a in (np.ones(3), w))


def test_results_repeat_bitwise_and_chunks_do_not_matter_much(gpu, monkeypatch):
    """The same call twice gives the same bits, and many chunks give what one gives."""
    from minissl.kernels.gpu import convolution

    shape = ConvShape(4, (9, 9), 6, (3, 3), (1, 1), (1, 1), (1, 1), 2)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((7, 4, 9, 9)).astype("float32")
    w = rng.standard_normal(shape.weight_shape).astype("float32")
    arguments = ((1, 1), (1, 1), (1, 1), 2)
    y = np.empty((7, 6, 9, 9), "float32")
    d_w, d_x = np.zeros_like(w), np.empty_like(x)

    def all_three():
        (found,) = run(gpu, "conv_forward", (x, w, None, *arguments), (y,))
        (weights,) = run(gpu, "conv_backward_weights", (x, found, *arguments), (d_w,))
        (inputs,) = run(gpu, "conv_backward_input", (found, w, *arguments), (d_x,))
        return found, weights, inputs

    whole, again = all_three(), all_three()
    monkeypatch.setattr(convolution, "CHUNK_BYTES", 40000)  # three images, then four in two chunks
    parts = all_three()
    for one, two, three in zip(whole, again, parts, strict=True):
        assert np.array_equal(one, two)
        assert np.allclose(one, three, rtol=1e-4, atol=1e-4)


def test_the_order_of_threads_changes_nothing(gpu, monkeypatch):
    """Threads that race, or a barrier that is missing, give other bits when their order turns."""
    if gpu.xp.ndarray is not double.Array:
        pytest.skip("only the shim can turn the order of threads round")
    rng = np.random.default_rng(8)
    x, d_y = (rng.standard_normal(shape) for shape in ((3, 4, 9, 8), (3, 6, 9, 8)))
    w, y = rng.standard_normal((6, 2, 3, 3)), np.empty_like(d_y)
    geometry = ((1, 1), (1, 1), (1, 1), 2)
    pooled, argmax = np.empty((3, 4, 4, 4)), np.empty((3, 4, 4, 4), "int32")
    matrix = compress(w.reshape(6, -1))
    labels, valid = rng.integers(0, 8, (4, 9)), rng.random((4, 9)) < 0.8
    p = rng.dirichlet(np.ones(8), (4, 9)).transpose(0, 2, 1).copy()
    calls = [
        ("conv_forward", (x, w, None, *geometry), (y,)),
        ("conv_backward_input", (d_y, w, *geometry), (np.empty_like(x),)),
        ("conv_backward_bias", (d_y,), (np.zeros(6),)),
        ("inner_product_csr", (x[:, 0, 0, :], *compress(w[:, 0].reshape(6, -1)[:, :8]), np.ones(6)),
         (np.empty((3, 6)),)),
        ("csr_times_dense", (*matrix, rng.standard_normal((18, 70))), (np.empty((6, 70)),)),
        ("max_pool_forward", (x, (3, 3), (2, 2), (0, 0)), (pooled, argmax)),
        ("softmax_forward", (p,), (np.empty_like(p),)),
        ("softmax_backward", (p, p[::-1].copy()), (np.empty_like(p),)),
        ("label_loss", (p, labels, valid, 1e-30, None), (np.empty(()), np.empty(()))),
        ("tile_square_sums", (rng.standard_normal((6, 80)), 3, 40), (np.empty((2, 2)),)),
        ("tile_square_sums", (rng.standard_normal((40, 66)), 20, 2), (np.empty((2, 33)),)),
    ]  # fmt: skip
    large = gpu.xp.asarray(rng.standard_normal(700))
    found = []
    for backwards in (False, True):
        monkeypatch.setattr(shim, "backwards", backwards)
        results = [run(gpu, *call) for call in calls]
        results.append([np.array([gpu.sum_of_squares(large), gpu.sum_of_magnitudes(large)])])
        found.append(results)
    for call, one, other in zip([*calls, ("sums",)], *found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), call[0]


def test_tf32_is_off_until_it_is_asked_for(gpu):
    from minissl.kernels.gpu import products

    assert not gpu.uses_tf32()
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-1, 1, (64, 64)).astype("float32") for _ in range(2))
    results = {}
    try:
        for enabled in (False, True):
            gpu.use_tf32(enabled)
            out = gpu.xp.empty((64, 64), "float32")
            products.multiply(gpu.xp.asarray(a), gpu.xp.asarray(b), out)
            results[enabled] = to_host(out)
    finally:
        gpu.use_tf32(False)
    exact = a.astype(float) @ b.astype(float)
    magnitudes = np.abs(a).astype(float) @ np.abs(b)
    assert (np.abs(results[False] - exact) <= 1e-6 * magnitudes).all()
    assert (np.abs(results[True] - exact) <= 1e-3 * magnitudes).all()
