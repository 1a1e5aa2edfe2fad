"""ArgMax: which classes score highest."""

from __future__ import annotations

from math import prod

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register


@register("ArgMax")
class ArgMax(Layer):
    """The positions of the ``top_k`` largest values, as floating-point numbers, best first.

    With ``axis`` they are searched along it, and that axis becomes top_k long; with
    ``out_max_val`` the top holds the values instead of their positions. Without ``axis`` all values
    of an image are searched, and the top has shape (N, 1, top_k, 1, ...), with ``out_max_val``
    (N, 2, top_k, 1, ...): first the positions, then the values. Of equal values the one at the
    higher position comes first, as in Caffe. There is no gradient.
    """

    no_gradient = (0,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the axis and the shape of the top."""
        (shape,) = bottom_shapes
        if not shape:
            raise self.shape_error("needs a bottom of at least one axis, not a single number")
        p = self.param.argmax_param
        self.top_k, self.gives_values = p.top_k, p.out_max_val
        self.along_axis = p.HasField("axis")
        if self.along_axis:
            axis = resolve_axis(self, p.axis, shape)
            self._folded = around_axis(shape, axis)  # (outer, length, inner)
            top_shape = (*shape[:axis], self.top_k, *shape[axis + 1 :])
        else:
            self._folded = (shape[0], prod(shape[1:]), 1)
            ones = (1,) * max(0, len(shape) - 3)
            top_shape = (shape[0], 1 + self.gives_values, self.top_k, *ones)
        if not 1 <= self.top_k <= self._folded[1]:
            raise self.config_error(
                f"top_k {self.top_k} must lie between 1 and the number of values, {self._folded[1]}"
            )
        return [top_shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Sort by (value, position), largest first."""
        xp, (outer, _, inner) = self.kernels.xp, self._folded
        x = bottom[0].data.reshape(self._folded)  # (outer, length, inner)
        rising = xp.argsort(x, axis=1, kind="stable")
        best = rising[:, ::-1][:, : self.top_k]  # (outer, top_k, inner)
        values = xp.take_along_axis(x, best, axis=1)  # (outer, top_k, inner)
        y = top[0].data.reshape(outer, -1, self.top_k, inner)
        y[:, 0] = values if self.along_axis and self.gives_values else best
        if self.gives_values and not self.along_axis:
            y[:, 1] = values

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Positions are constant almost everywhere: their gradient is zero."""
        if propagate_down[0]:
            bottom[0].diff.fill(0)
