"""PReLU: a ReLU that learns its slope for negative values."""

from __future__ import annotations

import math

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis
from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("PReLU")
class PReLU(Elementwise):
    """``y[n, c, ...] = max(x, 0) + a[c] * min(x, 0)`` with a learned slope a for each channel.

    ``channel_shared`` keeps a single slope for all. Slopes begin as 0.25 unless ``filler`` says
    otherwise. He, Zhang, Ren and Sun, ICCV 2015, equation 1. May be computed in place.

    Backward: d_x = d_y where x > 0, a * d_y elsewhere; d_a += sum of d_y * min(x, 0).
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Declare the slopes."""
        tops = super().setup(bottom_shapes)
        if len(self.shape) < 2:
            raise self.shape_error(
                f"needs a bottom with channels as its axis 1, not one of shape {self.shape}"
            )
        p = self.param.prelu_param
        self.is_shared = p.channel_shared
        filler = p.filler if p.HasField("filler") else type(p.filler)(value=0.25)
        folded = around_axis(self.shape, 1)
        self.folded = (1, 1, math.prod(folded)) if self.is_shared else folded  # (outer, C, inner)
        self.declare_parameter(() if self.is_shared else (folded[1],), filler, "scale")
        return tops

    def values(self, x):
        """max(x, 0) + a * min(x, 0)."""
        xp = self.kernels.xp
        return xp.maximum(x, 0) + (self._slopes() * self._negative(x)).reshape(self.shape)

    def slope(self, x, y):
        """1 where x > 0, else a."""
        where = x.reshape(self.folded) > 0  # (outer, C, inner)
        return self.kernels.xp.where(where, 1, self._slopes()).reshape(self.shape)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_a += sum of d_y * min(x, 0); d_x = slope * d_y."""
        a = self.parameters[0]
        d_y = top[0].diff.reshape(self.folded)  # (outer, C, inner)
        terms = d_y * self._negative(self.input(top, bottom))
        a.diff += terms.sum(axis=(0, 2)).reshape(a.shape)
        super().backward(top, propagate_down, bottom)

    def _negative(self, x):
        return self.kernels.xp.minimum(x.reshape(self.folded), 0)  # (outer, C, inner)

    def _slopes(self):
        return self.parameters[0].data.reshape(1, -1, 1)  # (1, C, 1)
