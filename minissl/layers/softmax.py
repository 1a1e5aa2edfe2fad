"""Softmax: scores to probabilities."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register


@register("Softmax")
class Softmax(Layer):
    """``y_k = exp(x_k) / sum_j exp(x_j)`` along ``axis`` (1 by default).

    The largest score is subtracted first, so that nothing overflows.
    """

    reads_top = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape; find the axis."""
        shape = bottom_shapes[0]
        axis = resolve_axis(self, self.param.softmax_param.axis, shape)
        self._folded = around_axis(shape, axis)  # (outer, classes, inner)
        return [shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Probabilities from scores."""
        x = bottom[0].data.reshape(self._folded)  # (outer, classes, inner)
        y = top[0].data.reshape(self._folded)  # (outer, classes, inner)
        self.kernels.softmax_forward(x, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = y * (d_y - sum_j d_y_j y_j)."""
        if not propagate_down[0]:
            return
        y = top[0].data.reshape(self._folded)  # (outer, classes, inner)
        d_y = top[0].diff.reshape(self._folded)  # (outer, classes, inner)
        d_x = bottom[0].diff.reshape(self._folded)  # (outer, classes, inner)
        self.kernels.softmax_backward(y, d_y, d_x)
