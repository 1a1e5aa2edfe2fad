from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError
from tests.gradient_cases import make_layer
from tests.layers.running import set_up

X = [[-4.0, -0.5, 0.0, 0.5, 8.0]]


@pytest.mark.parametrize("slope", [0, 0.25, -0.5])
def test_values_and_gradient(slope, kernels):
    text = f'name: "r" type: "ReLU" relu_param {{ negative_slope: {slope} }}'
    layer, bottom, top = set_up(text + ' bottom: "x" top: "y"', kernels, X)
    layer.forward(bottom, top)
    assert top[0].data.tolist() == [[-4 * slope, -0.5 * slope, 0, 0.5, 8]]
    assert bottom[0].data.tolist() == X
    top[0].diff[...] = [[1, 10, 100, 1000, 10000]]
    layer.backward(top, [True], bottom)
    assert bottom[0].diff.tolist() == [[slope, 10 * slope, 100 * slope, 1000, 10000]]


def test_in_place(kernels):
    text = 'name: "r" type: "ReLU" bottom: "x" top: "x" relu_param { negative_slope: 0.25 }'
    layer, bottom, _ = set_up(text, kernels, X)
    layer.forward(bottom, bottom)
    assert bottom[0].data.tolist() == [[-1, -0.125, 0, 0.5, 8]]
    bottom[0].diff[...] = [[1, 10, 100, 1000, 10000]]
    layer.backward(bottom, [True], bottom)
    assert bottom[0].diff.tolist() == [[0.25, 2.5, 25, 1000, 10000]]


def test_nan_stays_visible(kernels):
    layer, bottom, top = set_up('type: "ReLU" relu_param { negative_slope: 1 }', kernels, [np.nan])
    layer.forward(bottom, top)
    assert np.isnan(top[0].data).all()


def test_negative_slope_below_zero_is_refused_in_place(kernels):
    # the sign of x could not be read off the output
    text = 'name: "r" type: "ReLU" bottom: "x" top: "x" relu_param { negative_slope: -1 }'
    with pytest.raises(ConfigError, match=r"layer 'r'.*in place"):
        make_layer(text, kernels).setup([(1, 3)])


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up('type: "ReLU"', kernels, X)
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 3).all()
