from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError
from tests.gradient_cases import make_layer
from tests.layers.running import set_up


def text(ratio: float, top: str = "y") -> str:
    return (
        f'name: "drop" type: "Dropout" bottom: "x" top: "{top}" '
        f"dropout_param {{ dropout_ratio: {ratio} }}"
    )


def test_values_are_zero_or_scaled_up(kernels):
    x = np.full((50, 40), 2.0)
    layer, bottom, top = set_up(text(0.75), kernels, x)
    layer.forward(bottom, top)
    y = top[0].data
    assert set(np.unique(y)) == {0, 8}
    # 2000 draws: the share of zeros is 0.75 +- 0.04 but for one case in 10^4
    assert abs((y == 0).mean() - 0.75) < 0.04
    assert (bottom[0].data == 2).all()


def test_gradient_passes_where_values_passed(kernels):
    layer, bottom, top = set_up(text(0.5), kernels, np.ones((10, 10)))
    layer.forward(bottom, top)
    top[0].diff[...] = 3
    layer.backward(top, [True], bottom)
    assert np.array_equal(bottom[0].diff, 3 * top[0].data)
    assert 0 < np.count_nonzero(bottom[0].diff) < 100


def test_every_forward_draws_anew_from_the_layers_generator(kernels):
    layer, bottom, top = set_up(text(0.5), kernels, np.ones((10, 10)))
    layer.forward(bottom, top)
    first = top[0].data.copy()
    layer.forward(bottom, top)
    assert not np.array_equal(first, top[0].data)
    layer.rng = np.random.default_rng(0)
    layer.forward(bottom, top)
    assert np.array_equal(first, top[0].data)


@pytest.mark.parametrize(("ratio", "phase"), [(0, "TRAIN"), (0.5, "TEST"), (0, "TEST")])
@pytest.mark.parametrize("in_place", [False, True])
def test_identity_without_drawing(ratio, phase, in_place, kernels):
    x = np.arange(6.0).reshape(2, 3)
    layer, bottom, top = set_up(text(ratio), kernels, x, phase=phase)
    top = bottom if in_place else top
    state = layer.rng.bit_generator.state
    layer.forward(bottom, top)
    assert np.array_equal(top[0].data, x)
    top[0].diff[...] = 10 + x
    layer.backward(top, [True], bottom)
    assert np.array_equal(bottom[0].diff, 10 + x)
    assert layer.rng.bit_generator.state == state
    assert layer.workspace_bytes() == 0


def test_in_place(kernels):
    layer, bottom, _ = set_up(text(0.5, top="x"), kernels, np.ones((10, 10)))
    layer.forward(bottom, bottom)
    y = bottom[0].data.copy()
    assert set(np.unique(y)) == {0, 2}
    bottom[0].diff[...] = 3
    layer.backward(bottom, [True], bottom)
    assert np.array_equal(bottom[0].diff, 3 * y)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, "nan"])
def test_ratio_that_is_no_share(ratio, kernels):
    with pytest.raises(ConfigError, match=r"layer 'drop' .*dropout_ratio.*less than 1"):
        make_layer(text(ratio), kernels).setup([(2, 2)])


def test_default_ratio_is_one_half(kernels):
    layer = make_layer('type: "Dropout"', kernels, np.float32)
    layer.setup([(2, 3)])
    assert layer.ratio == 0.5
    assert layer.workspace_bytes() == 24


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(text(0.5), kernels, [1.0])
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False], bottom)
    assert bottom[0].diff[0] == 3
