"""MVN: mean and variance of each channel of each image, taken away."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("MVN")
class MVN(Layer):
    """Mean-variance normalization, image by image.

    ``y = (x - mean) / (s + eps)`` with the standard deviation s, over the pixels of each channel or
    with ``across_channels`` over the whole image; ``y = x - mean`` where ``normalize_variance`` is
    false. eps is 1e-9 by default.

    Backward, with averages <.> over the same K values and u = x - mean:

    ``d_x = (d_y - <d_y> - y <d_y y> (s + eps) / s) / (s + eps)``
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Fold the shape into what is normalized together."""
        (shape,) = bottom_shapes
        p = self.param.mvn_param
        if len(shape) < 2:
            raise self.shape_error(f"needs a bottom of shape (N, C, ...), not {shape}")
        if p.eps < 0:
            raise self.config_error(f"eps is {p.eps:g}; use 0 or more")
        kept = 1 if p.across_channels else 2
        self.folded = prod(shape[:kept]), prod(shape[kept:])  # (M, K)
        self.scales, self.eps = p.normalize_variance, p.eps
        self.reads_top = self.scales
        self._deviation: Any = None
        return [shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = (x - mean) / (s + eps)."""
        x = bottom[0].data.reshape(self.folded)  # (M, K)
        y = top[0].data.reshape(self.folded)
        y[...] = x - x.mean(axis=1, keepdims=True)
        if self.scales:
            squares = (y * y).mean(axis=1, keepdims=True)  # (M, 1)
            self._deviation = self.kernels.xp.sqrt(squares)
            y *= self._inverse()

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x, see the class."""
        if not propagate_down[0]:
            return
        d_y = top[0].diff.reshape(self.folded)  # (M, K)
        d_x = bottom[0].diff.reshape(self.folded)
        d_x[...] = d_y - d_y.mean(axis=1, keepdims=True)
        if self.scales:
            xp, y, s = self.kernels.xp, top[0].data.reshape(self.folded), self._deviation
            projection = (d_y * y).mean(axis=1, keepdims=True)  # (M, 1)
            # where all values are equal y is 0, and so is its part
            share = (s + self.eps) / xp.where(s > 0, s, 1)
            d_x -= y * (projection * share)
            d_x *= self._inverse()

    def _inverse(self) -> Any:
        """Return 1 / (s + eps), 0 where that is not a number."""
        divisor = self._deviation + self.eps
        return (divisor > 0) / self.kernels.xp.where(divisor > 0, divisor, 1)
