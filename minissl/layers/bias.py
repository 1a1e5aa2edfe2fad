"""Bias: an offset for each channel, learned or another blob."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.axes import fold_operand
from minissl.layers.base import Layer, register


@register("Bias")
class Bias(Layer):
    """Add offsets along some axes: ``y[n, c, ...] = x[n, c, ...] + bias[c]``.

    With one bottom the offsets are learned, with two the second bottom holds them; ``axis``,
    ``num_axes`` and ``filler`` as in :class:`minissl.layers.scale.Scale`, but they begin as 0. May
    be computed in place.
    """

    n_bottoms = (1, 2)
    in_place = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the axes of the offsets; declare them."""
        p = self.param.bias_param
        shape, self.folded = fold_operand(self, p.axis, p.num_axes, bottom_shapes)
        if len(bottom_shapes) == 1:
            self.declare_parameter(shape, p.filler, "bias")
        self._ones: Any = None
        return [bottom_shapes[0]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = x + bias."""
        if self._ones is None:
            self._ones = self.kernels.xp.ones(self.folded[1], self.dtype)
        x, y = (blob.data.reshape(self.folded) for blob in (bottom[0], top[0]))  # (outer, C, inner)
        bias = (bottom[1] if len(bottom) == 2 else self.parameters[0]).data.reshape(-1)
        self.kernels.channel_scale(x, self._ones, bias, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_bias = sum of d_y, d_x = d_y."""
        d_y = top[0].diff.reshape(*self.folded, 1)  # (outer, C, inner, 1), a view
        if len(bottom) == 1:
            self.kernels.conv_backward_bias(d_y, self.parameters[0].diff.reshape(-1))
        elif propagate_down[1]:
            bottom[1].diff[...] = 0
            self.kernels.conv_backward_bias(d_y, bottom[1].diff.reshape(-1))
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].diff[...] = top[0].diff
