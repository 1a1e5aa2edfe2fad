"""EuclideanLoss: half of the mean squared distance."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("EuclideanLoss")
class EuclideanLoss(Layer):
    """``loss = 1 / 2N * sum of (a - b)^2`` over all elements of N images.

    Bottoms a and b hold N images each, of equally many values; both get a gradient:
    ``d_a = loss_weight / N * (a - b) = -d_b``.
    """

    n_bottoms = (2, 2)
    is_loss = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Compare the shapes."""
        a, b = bottom_shapes
        check_same_size(self, a, b)
        self.images = a[0]
        return [()]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = sum of (a - b)^2 / 2N."""
        difference = self._difference(bottom)
        squares = (difference * difference).sum(dtype="float64")
        top[0].data[...] = squares / (2 * self.images)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_a = loss_weight / N * (a - b), d_b = -d_a."""
        d_a = self._difference(bottom) * (top[0].diff / self.images)
        if propagate_down[0]:
            bottom[0].diff[...] = d_a
        if propagate_down[1]:
            bottom[1].diff[...] = -d_a.reshape(bottom[1].shape)

    def _difference(self, bottom: list[Blob]) -> Any:
        return bottom[0].data - bottom[1].data.reshape(bottom[0].shape)


def check_same_size(layer: Layer, a: Shape, b: Shape) -> None:
    """Refuse bottoms that are not equally many images of equally many values."""
    if not a or not b or a[0] != b[0] or prod(a) != prod(b):
        raise layer.shape_error(
            f"compares bottoms of shapes {a} and {b}; both need the same number of images and of "
            "values"
        )
