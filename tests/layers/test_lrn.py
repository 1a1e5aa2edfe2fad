from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError, ShapeError
from tests.gradient_cases import make_layer
from tests.kernels import naive
from tests.layers.running import forward, set_up


def text(options: str = "") -> str:
    return f'name: "norm1" type: "LRN" bottom: "x" top: "y" lrn_param {{ {options} }}'


def test_across_channels_by_hand(kernels):
    x = np.array([1.0, 2, 3]).reshape(1, 3, 1, 1)
    (y,) = forward(text("local_size: 3 alpha: 3 beta: 1 k: 2"), kernels, x)
    # alpha / local_size is 1: each is divided by 2 and the squares of itself and its neighbours
    assert y.ravel() == pytest.approx([1 / (2 + 5), 2 / (2 + 14), 3 / (2 + 13)], rel=1e-7)


def test_within_a_channel_by_hand(kernels):
    x = np.array([[1.0, 2], [3, 4]]).reshape(1, 1, 2, 2)
    options = "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 9 beta: 1 k: 50"
    (y,) = forward(text(options), kernels, x)
    # every window covers the whole image, its area is 9 all the same, and k has no part in it
    assert y.ravel() == pytest.approx([v / (1 + 30) for v in (1, 2, 3, 4)], rel=1e-12)


def test_the_usual_constants(kernels):
    x = np.random.default_rng(0).normal(scale=30, size=(2, 7, 3, 4))
    (y,) = forward(text("alpha: 0.0001"), kernels, x)
    expected = naive.normalize(x, (5, 1, 1), np.float32(0.0001), 0.75, 1)
    assert np.allclose(y, expected, rtol=1e-12, atol=0)
    assert np.abs(y - x).max() > 0.1  # the constants are large enough to be seen


@pytest.mark.parametrize("region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
def test_testing_keeps_no_sums_and_finds_them_for_a_gradient(region, kernels):
    options = f"norm_region: {region} local_size: 3 alpha: 2"
    gradients = {}
    for phase in ("TRAIN", "TEST"):
        x = np.random.default_rng(1).normal(size=(1, 4, 3, 3))
        layer, bottom, top = set_up(text(options), kernels, x, phase=phase)
        assert layer.workspace_bytes() == (8 * 36 if phase == "TRAIN" else 0)
        layer.forward(bottom, top)
        top[0].diff[...] = np.arange(36).reshape(1, 4, 3, 3)
        layer.backward(top, [True], bottom)
        gradients[phase] = bottom[0].diff
    assert np.array_equal(gradients["TRAIN"], gradients["TEST"])
    assert np.abs(gradients["TEST"]).max() > 1


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(text(), kernels, np.ones((1, 2, 2, 2)))
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 3).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("local_size: 4", "local_size 4 has no middle; use an odd number, such as 5"),
        ("local_size: 0", "local_size 0 has no middle"),
        ("alpha: -1", "alpha -1 must be at least 0"),
        ("k: 0", "k 0 greater than 0"),
    ],
)
def test_constants_that_are_refused(options, words, kernels):
    with pytest.raises(ConfigError, match=words) as error:
        make_layer(text(options), kernels).setup([(1, 2, 3, 3)])
    assert "layer 'norm1' (LRN): " in str(error.value)


def test_a_bottom_without_four_axes_is_refused(kernels):
    with pytest.raises(ShapeError, match="four axes"):
        make_layer(text(), kernels).setup([(2, 3)])
