"""Reduction: one number from many."""

from __future__ import annotations

from math import prod

from minissl.blob import Blob, Shape
from minissl.layers.axes import resolve_axis
from minissl.layers.base import Layer, register

# ReductionParameter.ReductionOp
SUM, ASUM, SUMSQ, MEAN = 1, 2, 3, 4


@register("Reduction")
class Reduction(Layer):
    """Reduce all axes from ``axis`` (0) on to one number, times ``coeff``.

    ``operation`` is SUM (sum of x), ASUM (sum of |x|), SUMSQ (sum of x^2) or MEAN. Their slopes are
    1, sign(x), 2 x and 1 / K, for the K numbers that are reduced.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Drop the axes that are reduced."""
        (shape,) = bottom_shapes
        p = self.param.reduction_param
        axis = resolve_axis(self, p.axis, shape)
        self.operation = p.operation
        self.folded = prod(shape[:axis]), prod(shape[axis:])  # (M, K)
        self.coeff = p.coeff / self.folded[1] if self.operation == MEAN else p.coeff
        return [shape[:axis]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = coeff * sum of x, |x| or x^2."""
        x = bottom[0].data.reshape(self.folded)  # (M, K)
        if self.operation == ASUM:
            x = self.kernels.xp.abs(x)
        elif self.operation == SUMSQ:
            x = x * x
        top[0].data.reshape(-1)[...] = self.coeff * x.sum(axis=1)  # (M,)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = coeff * d_y, times 1, sign(x) or 2 x."""
        if not propagate_down[0]:
            return
        x = bottom[0].data.reshape(self.folded)  # (M, K)
        d_x = bottom[0].diff.reshape(self.folded)
        d_x[...] = self.coeff * top[0].diff.reshape(-1, 1)  # (M, 1)
        if self.operation == ASUM:
            d_x *= self.kernels.xp.sign(x)
        elif self.operation == SUMSQ:
            d_x *= 2 * x
