from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError
from tests.gradient_cases import make_layer
from tests.layers.running import set_up


def text(options: str = "") -> str:
    return f'name: "flat" type: "Flatten" flatten_param {{ {options} }}'


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ("", (2, 60)),
        ("axis: 0", (120,)),
        ("axis: 2", (2, 3, 20)),
        ("axis: 1 end_axis: 2", (2, 12, 5)),
        ("axis: -3 end_axis: -2", (2, 12, 5)),
        ("axis: 1 end_axis: 1", (2, 3, 4, 5)),
    ],
)
def test_shape_and_order(options, shape, kernels):
    x = np.arange(120.0).reshape(2, 3, 4, 5)
    layer, bottom, top = set_up(text(options), kernels, x)
    layer.forward(bottom, top)
    assert top[0].shape == top[0].data.shape == shape
    assert np.array_equal(top[0].data.ravel(), np.arange(120))


def test_nothing_is_copied(kernels):
    layer, bottom, top = set_up(text(), kernels, np.zeros((2, 3, 4)))
    layer.forward(bottom, top)
    assert np.shares_memory(top[0].data, bottom[0].data)
    top[0].diff[...] = np.arange(24).reshape(2, 12)
    layer.backward(top, [True], bottom)
    assert np.shares_memory(top[0].diff, bottom[0].diff)
    assert np.array_equal(bottom[0].diff, np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("axis: 3", "axis 3 does not exist"),
        ("end_axis: 3", "end_axis 3 does not exist"),
        ("axis: 2 end_axis: 1", "end_axis 1 lies before axis 2"),
    ],
)
def test_axes_that_do_not_exist(options, words, kernels):
    with pytest.raises(ConfigError, match=words):
        make_layer(text(options), kernels).setup([(2, 3, 4)])


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(text(), kernels, np.zeros((1, 2, 1)))
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 3).all()
