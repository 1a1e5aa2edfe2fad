from __future__ import annotations

import math

import numpy as np
import pytest

from minissl.errors import ConfigError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up


def text(axis: int) -> str:
    return f'name: "prob" type: "Softmax" softmax_param {{ axis: {axis} }}'


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
def test_values_along_each_axis(axis, kernels):
    x = np.random.default_rng(axis + 4).normal(scale=3, size=(2, 3, 4, 2))
    (y,) = forward(text(axis), kernels, x)
    moved_x, moved_y = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    for position in np.ndindex(moved_x.shape[:-1]):
        powers = [math.exp(v) for v in moved_x[position]]
        expected = [power / math.fsum(powers) for power in powers]
        assert np.allclose(moved_y[position], expected, rtol=1e-13, atol=0)


def test_default_axis_is_the_channels(kernels):
    (y,) = forward('type: "Softmax"', kernels, np.zeros((2, 4, 3, 3)))
    assert np.allclose(y, 0.25, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_scores_do_not_overflow(dtype, kernels, recwarn):
    (y,) = forward('type: "Softmax"', kernels, [[1e4, 1e4, -1e4]], dtype=dtype)
    assert y.tolist() == [[0.5, 0.5, 0]]
    assert len(recwarn) == 0


def test_axis_that_does_not_exist(kernels):
    with pytest.raises(ConfigError, match=r"layer 'prob'.*axis 2 does not exist.*-2 to 1"):
        make_layer(text(2), kernels).setup([(2, 3)])


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(text(1), kernels, [[1.0, 2.0]])
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 3).all()
