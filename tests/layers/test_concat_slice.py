from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward

X = np.arange(24.0).reshape(2, 4, 3)


def concat(options: str = "", count: int = 2) -> str:
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(count))
    return f'name: "c" type: "Concat" {bottoms} top: "y" concat_param {{ {options} }}'


def pieces(options: str = "", count: int = 2) -> str:
    tops = " ".join(f'top: "y{i}"' for i in range(count))
    return f'name: "c" type: "Slice" bottom: "x" {tops} slice_param {{ {options} }}'


@pytest.mark.parametrize(
    ("axis", "field"), [(0, "axis: 0"), (1, ""), (2, "axis: -1"), (2, "{}_dim: 2")]
)
def test_pieces_are_put_together_again(axis, field, kernels):
    points = {0: [1], 1: [1, 3], 2: [1, 2]}[axis]
    options = field.format("slice") + "".join(f" slice_point: {point}" for point in points)
    found = forward(pieces(options, len(points) + 1), kernels, X)
    expected = np.split(X, points, axis)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)
    (y,) = forward(concat(field.format("concat"), len(found)), kernels, *found)
    assert np.array_equal(y, X)


def test_equal_pieces(kernels):
    for piece, expected in zip(
        forward(pieces("", 4), kernels, X), np.split(X, 4, axis=1), strict=True
    ):
        assert np.array_equal(piece, expected)


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        (concat("axis: 1 concat_dim: 1"), [(2, 3)] * 2, "axis or its old name concat_dim"),
        (concat("axis: 2"), [(2, 3)] * 2, "axis 2 does not exist"),
        (concat(), [(2, 3), (3, 3)], r"'x1' has shape \(3, 3\) where 'x0' has \(2, 3\)"),
        (concat(), [(2, 3), (2, 3, 1)], "may differ in axis 1 only"),
        (pieces("axis: 1 slice_dim: 1"), [(2, 4)], "axis or its old name slice_dim"),
        (pieces("slice_dim: 5"), [(2, 4)], "slice_dim 5 does not exist"),
        (pieces("slice_point: 1 slice_point: 2"), [(2, 4)], "has 2 slice_point for 2 tops"),
        (pieces("slice_point: 4"), [(2, 4)], "slice_point 4 must rise, from 1 to 3"),
        (pieces("slice_point: 0"), [(2, 4)], "slice_point 0 must rise"),
        (pieces("slice_point: 2 slice_point: 2", 3), [(2, 4)], "slice_point 2, 2 must rise"),
        (pieces("", 3), [(2, 4)], "length 4 cannot be cut into 3 equal pieces"),
    ],
)
def test_what_is_refused(text, shapes, words, kernels):
    with pytest.raises((ConfigError, ShapeError), match=words):
        make_layer(text, kernels).setup(shapes)
