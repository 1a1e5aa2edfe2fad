from __future__ import annotations

import math

import numpy as np
import pytest

from tests.layers.running import set_up


def test_values_and_gradient(kernels):
    x = [-3.0, 0.0, 1.5]
    layer, bottom, top = set_up('type: "Sigmoid"', kernels, x)
    layer.forward(bottom, top)
    expected = [1 / (1 + math.exp(-v)) for v in x]
    assert np.allclose(top[0].data, expected, rtol=1e-15)
    top[0].diff[...] = [1, 10, 100]
    layer.backward(top, [True], bottom)
    slopes = [math.exp(-v) / (1 + math.exp(-v)) ** 2 for v in x]
    assert np.allclose(bottom[0].diff, np.array(slopes) * [1, 10, 100], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_inputs_neither_overflow_nor_warn(dtype, kernels, recwarn):
    layer, bottom, top = set_up('type: "Sigmoid"', kernels, [-1e30, -1e4, 1e4, 1e30], dtype=dtype)
    layer.forward(bottom, top)
    assert np.allclose(top[0].data, [0, 0, 1, 1], atol=1e-37)
    assert len(recwarn) == 0


def test_small_results_keep_their_digits(kernels):
    layer, bottom, top = set_up('type: "Sigmoid"', kernels, [-30.0], dtype=np.float32)
    layer.forward(bottom, top)
    assert top[0].data[0] == pytest.approx(math.exp(-30), rel=1e-5)


def test_in_place(kernels):
    layer, bottom, _ = set_up('type: "Sigmoid"', kernels, [0.0, 2.0])
    layer.forward(bottom, bottom)
    y = 1 / (1 + math.exp(-2))
    assert np.allclose(bottom[0].data, [0.5, y], rtol=1e-15)
    bottom[0].diff[...] = [8, 100]
    layer.backward(bottom, [True], bottom)
    assert np.allclose(bottom[0].diff, [2, 100 * y * (1 - y)], rtol=1e-14)


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up('type: "Sigmoid"', kernels, [1.0])
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert bottom[0].diff[0] == 3
