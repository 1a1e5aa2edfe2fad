"""The definition itself: hand-computed cases, naive loops, adjoints, and a bug that must show."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings

from minissl.kernels import reference as kernels
from minissl.kernels.reference import convolution
from tests.kernels import naive
from tests.kernels.strategies import convolutions


def test_im2col_by_hand():
    x = np.arange(1.0, 10).reshape(1, 3, 3)
    col = np.empty((4, 4))
    kernels.im2col(x, (2, 2), (1, 1), (0, 0), (1, 1), col)
    assert np.array_equal(col, [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]])


def test_im2col_pads_with_zeros_and_strides():
    x = np.arange(1.0, 5).reshape(1, 2, 2)
    col = np.full((4, 4), np.nan)
    kernels.im2col(x, (2, 2), (2, 2), (1, 1), (1, 1), col)
    # each 2 x 2 window holds exactly one pixel, in another corner
    assert np.array_equal(col, [[0, 0, 0, 4], [0, 0, 3, 0], [0, 2, 0, 0], [1, 0, 0, 0]])


def test_convolution_by_hand():
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 0], [0, -1]]], [[[0, 2.0], [0, 0]]]])
    y = np.empty((1, 2, 2, 2))
    kernels.conv_forward(x, w, np.array([10.0, 0]), (1, 1), (0, 0), (1, 1), 1, y)
    assert np.array_equal(y[0], [[[6, 6], [6, 6]], [[4, 6], [10, 12]]])


@given(convolutions())
@settings(max_examples=40, deadline=None)
def test_convolution_equals_naive_loops(case):
    x, w, b, d_y = case.arrays()
    y = np.empty_like(d_y)
    kernels.conv_forward(x, w, b, *case.arguments, y)
    assert np.allclose(y, naive.convolve(x, w, b, *case.arguments), rtol=1e-12, atol=1e-12)


@given(convolutions())
@settings(max_examples=40, deadline=None)
def test_gradients_are_the_adjoints_of_the_forward_pass(case):
    """<d_y, conv(x, w)> is bilinear: its parts are <d_x, x> and <d_w, w>."""
    x, w, _, d_y = case.arrays()
    y, d_x, d_w = np.empty_like(d_y), np.full_like(x, np.nan), np.zeros_like(w)
    kernels.conv_forward(x, w, None, *case.arguments, y)
    kernels.conv_backward_input(d_y, w, *case.arguments, d_x)
    kernels.conv_backward_weights(x, d_y, *case.arguments, d_w)
    value = (d_y * y).sum()
    scale = np.abs(d_y * y).sum() + 1e-30
    assert abs((d_x * x).sum() - value) < 1e-12 * scale
    assert abs((d_w * w).sum() - value) < 1e-12 * scale


def test_gradients_of_weights_accumulate():
    x, d_y = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    d_w = np.full((1, 1, 2, 2), 5.0)
    kernels.conv_backward_weights(x, d_y, (1, 1), (0, 0), (1, 1), 1, d_w)
    assert np.array_equal(d_w, np.full((1, 1, 2, 2), 6.0))


@pytest.mark.parametrize("method", ["max", "ave"])
def test_pooling_equals_naive_loops(method):
    from minissl.kernels.geometry import pooling_output

    rng = np.random.default_rng(0)
    axes = itertools.product((3, 5, 6), (1, 2, 3), (1, 2, 3), (0, 1))
    for H, k, s, p in axes:
        if p >= k:
            continue
        x = rng.uniform(-1, 1, (2, 3, H, H + 1))
        P, Q = pooling_output(H, k, s, p), pooling_output(H + 1, k, s, p)
        y, argmax = np.empty((2, 3, P, Q)), np.empty((2, 3, P, Q), np.int32)
        if method == "max":
            kernels.max_pool_forward(x, (k, k), (s, s), (p, p), y, argmax)
            chosen = np.take_along_axis(x.reshape(2, 3, -1), argmax.reshape(2, 3, -1), axis=2)
            assert np.array_equal(chosen.reshape(y.shape), y)
        else:
            kernels.ave_pool_forward(x, (k, k), (s, s), (p, p), y)
        expected = naive.pool(x, (k, k), (s, s), (p, p), P, Q, method)
        assert np.allclose(y, expected, rtol=1e-12, atol=1e-14)


def test_of_equal_maxima_the_first_wins():
    x = np.zeros((1, 1, 2, 2))
    y, argmax = np.empty((1, 1, 1, 1)), np.empty((1, 1, 1, 1), np.int32)
    kernels.max_pool_forward(x, (2, 2), (2, 2), (0, 0), y, argmax)
    assert argmax[0, 0, 0, 0] == 0


def test_softmax_of_large_scores_is_finite():
    x = np.array([1000.0, 1000.0, -1000.0]).reshape(1, 3, 1)
    y = np.empty_like(x)
    kernels.softmax_forward(x, y)
    assert np.allclose(y.ravel(), [0.5, 0.5, 0])


def test_tiles_by_hand():
    w = np.arange(1.0, 13).reshape(2, 6)
    sums = np.empty((1, 2))
    kernels.tile_square_sums(w, 2, 3, sums)
    assert np.array_equal(sums, [[1 + 4 + 9 + 49 + 64 + 81, 16 + 25 + 36 + 100 + 121 + 144]])
    d_w = np.ones_like(w)
    kernels.tile_add_scaled(w, np.array([[1.0, 0.5]]), 2, 3, d_w)
    assert np.array_equal(d_w[0], [2, 3, 4, 3, 3.5, 4])


def test_tiles_are_scaled_by_hand():
    w = np.arange(-6.0, 6).reshape(2, 6)
    kernels.tile_scale(np.array([[0.0, 0.5]]), 2, 3, w)
    assert np.array_equal(w, [[0, 0, 0, -1.5, -1, -0.5], [0, 0, 0, 1.5, 2, 2.5]])
    assert not np.signbit(w[0, :3]).any()  # 0, not -0


def test_zero_out_is_strict():
    w = np.array([1e-4, -1e-4, 0.99e-4, -0.99e-4, 0.0, 1.0])
    kernels.zero_out(w, 1e-4)
    assert np.array_equal(w, [1e-4, -1e-4, 0, 0, 0, 1])


def test_a_seeded_bug_is_caught(monkeypatch):
    """Lowering that forgets the padding must not survive the comparison with naive loops."""

    def forgets_padding(x, kernel, stride, pad, dilation, col):
        good(np.roll(x, 1, axis=2), kernel, stride, pad, dilation, col)

    good = kernels.im2col
    monkeypatch.setattr(convolution, "im2col", forgets_padding)
    rng = np.random.default_rng(1)
    x, w = rng.uniform(-1, 1, (1, 2, 4, 4)), rng.uniform(-1, 1, (2, 2, 3, 3))
    y = np.empty((1, 2, 4, 4))
    kernels.conv_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1, y)
    expected = naive.convolve(x, w, None, (1, 1), (1, 1), (1, 1), 1)
    assert np.abs(y - expected).max() > 0.1
