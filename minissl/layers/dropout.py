"""Dropout: leave out random values while training."""

from __future__ import annotations

from typing import Any

from minissl.backend import writing
from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("Dropout")
class Dropout(Layer):
    """Set each value to zero with probability p = ``dropout_ratio``.

    While training ``y = x * m`` with ``m = 0`` with probability p and ``1 / (1 - p)`` otherwise, so
    that the expected value stays x; when testing ``y = x``. May be computed in place.
    """

    in_place = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape."""
        self.ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.config_error(
                f"dropout_ratio {self.ratio:g} must be at least 0 and less than 1; "
                "it is the share of values that are left out"
            )
        self.drops = self.phase == "TRAIN" and self.ratio > 0
        self._multipliers: Any = None
        self._size = 1
        for length in bottom_shapes[0]:
            self._size *= length
        return [bottom_shapes[0]]

    def workspace_bytes(self) -> int:
        """The multipliers m, kept for the backward pass."""
        return self._size * self.dtype.itemsize if self.drops else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = x * m, with m drawn anew."""
        x, y = bottom[0].data, top[0].data
        if self.drops:
            # drawn in float32 whatever the data type, so that float64 drops the same values
            kept = self.rng.random(x.shape, dtype="float32") >= self.ratio
            if self._multipliers is None:
                self._multipliers = self.kernels.xp.empty(x.shape, self.dtype)
            with writing(self._multipliers) as multipliers:
                multipliers[...] = kept
                multipliers *= 1 / (1 - self.ratio)
            self.kernels.xp.multiply(x, self._multipliers, out=y)
        elif y is not x:
            y[...] = x

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y * m, with the m of the forward pass."""
        if not propagate_down[0]:
            return
        d_y, d_x = top[0].diff, bottom[0].diff
        if self.drops:
            self.kernels.xp.multiply(d_y, self._multipliers, out=d_x)
        elif d_x is not d_y:
            d_x[...] = d_y
