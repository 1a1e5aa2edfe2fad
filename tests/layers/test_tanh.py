from __future__ import annotations

import math

import numpy as np

from tests.layers.running import set_up


def test_values_and_gradient(kernels):
    x = [-3.0, 0.0, 0.5]
    layer, bottom, top = set_up('type: "TanH"', kernels, x)
    layer.forward(bottom, top)
    assert np.allclose(top[0].data, [math.tanh(v) for v in x], rtol=1e-15)
    top[0].diff[...] = [1, 10, 100]
    layer.backward(top, [True], bottom)
    slopes = [1 / math.cosh(v) ** 2 for v in x]
    assert np.allclose(bottom[0].diff, np.array(slopes) * [1, 10, 100], rtol=1e-12)


def test_in_place(kernels):
    layer, bottom, _ = set_up('type: "TanH"', kernels, [0.0, 0.5])
    layer.forward(bottom, bottom)
    assert np.allclose(bottom[0].data, [0, math.tanh(0.5)], rtol=1e-15)
    bottom[0].diff[...] = [8, 100]
    layer.backward(bottom, [True], bottom)
    assert np.allclose(bottom[0].diff, [8, 100 / math.cosh(0.5) ** 2], rtol=1e-14)


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up('type: "TanH"', kernels, [1.0])
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert bottom[0].diff[0] == 3
