"""Pooling, normalization, activations and losses on the GPU against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.backend import to_host
from minissl.kernels import reference
from minissl.kernels.geometry import pooling_output
from tests.gpu.agreement import DTYPES, SEEDS, TOLERANCE, assert_agree, few


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
