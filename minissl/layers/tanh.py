"""The hyperbolic tangent."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("TanH")
class TanH(Layer):
    """``y = tanh(x)``, with ``dy/dx = 1 - y**2``; may be computed in place."""

    in_place = True
    reads_top = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape."""
        return [bottom_shapes[0]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = tanh(x)."""
        self.kernels.xp.tanh(bottom[0].data, out=top[0].data)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y * (1 - y**2)."""
        if not propagate_down[0]:
            return
        y = top[0].data
        slope = 1 - y * y
        self.kernels.xp.multiply(top[0].diff, slope, out=bottom[0].diff)
