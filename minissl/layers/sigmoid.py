"""The logistic function."""

from __future__ import annotations

import math

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("Sigmoid")
class Sigmoid(Layer):
    """``y = 1 / (1 + exp(-x))``, with ``dy/dx = y (1 - y)``; may be computed in place."""

    in_place = True
    reads_top = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape."""
        # exp() of anything larger overflows; 1 / (1 + exp(limit)) is as good as 0
        self._largest_exponent = math.floor(math.log(float(self.kernels.xp.finfo(self.dtype).max)))
        return [bottom_shapes[0]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = 1 / (1 + exp(-x))."""
        xp, y = self.kernels.xp, top[0].data
        xp.negative(bottom[0].data, out=y)
        xp.minimum(y, self._largest_exponent, out=y)
        xp.exp(y, out=y)
        y += 1
        xp.reciprocal(y, out=y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y * y * (1 - y)."""
        if not propagate_down[0]:
            return
        y = top[0].data
        slope = 1 - y
        slope *= y
        self.kernels.xp.multiply(top[0].diff, slope, out=bottom[0].diff)
