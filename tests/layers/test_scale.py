"""Scale and Bias."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up

X = np.arange(12.0).reshape(2, 3, 2)


def text(kind: str = "Scale", options: str = "", bottoms: str = 'bottom: "x"') -> str:
    return f'name: "s1" type: "{kind}" {bottoms} top: "y" {kind.lower()}_param {{ {options} }}'


TWO = 'bottom: "x" bottom: "s"'


@pytest.mark.parametrize(
    ("options", "factor", "shape"),
    [
        ("", [2, 3, 4], (1, 3, 1)),
        ("axis: 0", [2, 3], (2, 1, 1)),
        ("axis: -1", [2, 3], (1, 1, 2)),
        ("axis: 1 num_axes: 2", [[1, 2], [3, 4], [5, 6]], (1, 3, 2)),
        ("axis: 0 num_axes: 2", [[1, 2, 3], [4, 5, 6]], (2, 3, 1)),
        ("axis: 0 num_axes: -1", X + 1, (2, 3, 2)),
        ("num_axes: 0", 5.0, (1, 1, 1)),
    ],
)
def test_along_some_axes(options, factor, shape, kernels):
    for kind, apply in (("Scale", np.multiply), ("Bias", np.add)):
        layer, bottom, top = set_up(text(kind, options), kernels, X)
        assert layer.parameters[0].shape == np.shape(factor)
        layer.parameters[0].data = np.array(factor, float)
        layer.forward(bottom, top)
        assert np.array_equal(top[0].data, apply(X, np.reshape(factor, shape)))


def test_the_second_bottom_is_the_factor(kernels):
    s = np.array([[1.0, 2, 3], [4, 5, 6]])
    (y,) = forward(text("Scale", "axis: 0", TWO), kernels, X, s)
    assert np.array_equal(y, X * s[:, :, None])
    (y,) = forward(text("Bias", "axis: 0", TWO), kernels, X, s)
    assert np.array_equal(y, X + s[:, :, None])
    (y,) = forward(text("Scale", "", TWO), kernels, X, np.array(3.0))
    assert np.array_equal(y, 3 * X)


def test_initial_values(kernels):
    def initial(kind, options):
        layer = make_layer(text(kind, options), kernels)
        layer.setup([(2, 3, 2)])
        layer.fill_parameters()
        return [p.data.tolist() for p in layer.parameters], [p.role for p in layer.parameters]

    assert initial("Scale", "bias_term: true") == ([[1] * 3, [0] * 3], ["scale", "bias"])
    assert initial("Scale", "filler { value: 4 }") == ([[4] * 3], ["scale"])
    assert initial("Bias", "filler { value: 7 }") == ([[7] * 3], ["bias"])


def test_a_gradient_in_place_in_phase_test_is_refused(kernels):
    words = 'name: "s1" type: "Scale" bottom: "x" top: "x"'
    layer, bottom, _ = set_up(words, kernels, X, phase="TEST")
    layer.fill_parameters()
    layer.forward(bottom, bottom)
    with pytest.raises(ConfigError, match="give its top another name"):
        layer.backward(bottom, [True], bottom)


@pytest.mark.parametrize(
    ("options", "bottoms", "shapes", "words"),
    [
        ("axis: 3", 'bottom: "x"', [(2, 3, 2)], "axis 3 does not exist"),
        ("axis: 2 num_axes: 2", 'bottom: "x"', [(2, 3, 2)], "2 axes from axis 2 on are more"),
        ("num_axes: -2", 'bottom: "x"', [(2, 3, 2)], "num_axes is -2; use -1 for all"),
        ("", TWO, [(2, 3, 2), (2,)], r"shape \(2,\) where the first, .* has \(3,\)"),
        ("", 'bottom: "x" bottom: "y"', [(2, 3, 2), (3,)], "in place of its second bottom"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["Scale", "Bias"])
def test_axes_that_are_refused(kind, options, bottoms, shapes, words, kernels):
    with pytest.raises((ConfigError, ShapeError), match=words) as error:
        make_layer(text(kind, options, bottoms), kernels).setup(shapes)
    assert f"layer 's1' ({kind}): " in str(error.value)
