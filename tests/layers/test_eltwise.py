from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up
from tests.tiny_nets import make_net


def text(options: str = "", count: int = 2) -> str:
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(count))
    return f'name: "e" type: "Eltwise" {bottoms} top: "y" eltwise_param {{ {options} }}'


A, B, C = np.array([[1.0, -2, 5]]), np.array([[3.0, -2, 4]]), np.array([[3.0, 7, 5]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", A + B + C),
        ("coeff: 2 coeff: -1 coeff: 0.5", 2 * A - B + 0.5 * C),
        ("operation: PROD", A * B * C),
        ("operation: PROD stable_prod_grad: false", A * B * C),
        ("operation: MAX", [[3, 7, 5]]),
    ],
)
def test_three_bottoms(options, expected, kernels):
    (y,) = forward(text(options, 3), kernels, A, B, C)
    assert np.array_equal(y, expected)


def test_who_wins_between_equals(kernels):
    """Caffe: the second of the first two, a later one only if greater."""
    layer, bottom, top = set_up(text("operation: MAX", 3), kernels, A, B, C)
    layer.forward(bottom, top)
    top[0].diff[...] = [[10, 20, 30]]
    layer.backward(top, [True] * 3, bottom)
    assert [blob.diff.tolist() for blob in bottom] == [[[0, 0, 30]], [[10, 0, 0]], [[0, 20, 0]]]
    (y,) = forward(text("operation: MAX"), kernels, [[4.0]], [[4.0]])
    assert y == 4


def test_a_product_with_a_zero_has_a_gradient(kernels):
    layer, bottom, top = set_up(text("operation: PROD"), kernels, [[0.0, 3]], [[5.0, 0]])
    layer.forward(bottom, top)
    top[0].diff[...] = 2
    layer.backward(top, [True, True], bottom)
    assert bottom[0].diff.tolist() == [[10, 0]] and bottom[1].diff.tolist() == [[0, 6]]


def test_only_the_gradients_asked_for_are_written(kernels):
    for operation in ("SUM", "PROD", "MAX"):
        layer, bottom, top = set_up(text(f"operation: {operation}"), kernels, A, B)
        layer.forward(bottom, top)
        bottom[0].diff[...] = 9
        layer.backward(top, [False, True], bottom)
        assert (bottom[0].diff == 9).all()


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("", [(2, 3), (2, 4)], r"bottom 'x1' has shape \(2, 4\) where 'x0' has \(2, 3\)"),
        ("coeff: 1", [(2, 3)] * 2, "has 1 coeff for 2 bottoms"),
        ("operation: MAX coeff: 1 coeff: 2", [(2, 3)] * 2, "only operation: SUM takes coeff"),
    ],
)
def test_what_is_refused(options, shapes, words, kernels):
    with pytest.raises((ConfigError, ShapeError), match=words):
        make_layer(text(options), kernels).setup(shapes)


def test_one_bottom_is_too_few():
    with pytest.raises(ConfigError, match="has 1 bottoms where 2 or more belong"):
        make_net(
            """layer { name: "in" type: "Input" top: "x0" input_param { shape { dim: 2 } } }
            layer { name: "e" type: "Eltwise" bottom: "x0" top: "y" }"""
        )


def test_a_residual_block_sums_the_gradients_of_both_ways(kernels):
    """x -> 3 x -> + x: a shortcut around a Scale layer, d_x = 3 + 1; the same blob twice too."""
    net = make_net(
        """force_backward: true
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 } } }
        layer { name: "s" type: "Scale" bottom: "x" top: "s" scale_param { filler { value: 3 } } }
        layer { name: "e" type: "Eltwise" bottom: "s" bottom: "x" top: "e" }
        layer { name: "f" type: "Eltwise" bottom: "e" bottom: "e" top: "f" loss_weight: 1 }""",
        phase="TRAIN",
    )
    net.forward({"x": np.array([[1.0, 2], [3, 4]])})
    assert net.blobs["f"].data.tolist() == [[8, 16], [24, 32]]
    net.backward()
    assert (net.blobs["x"].diff == 8).all()
    assert net.layer("s").parameters[0].diff.tolist() == [2 * (1 + 3), 2 * (2 + 4)]
