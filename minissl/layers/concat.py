"""Concat: blobs side by side along an axis."""

from __future__ import annotations

import sys

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register


@register("Concat")
class Concat(Layer):
    """Put the bottoms one after the other along ``axis`` (1, the channels, by default).

    All other lengths must agree. ``concat_dim`` is the old name of ``axis``.
    """

    n_bottoms = (1, sys.maxsize)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Add up the lengths."""
        p, shape = self.param.concat_param, bottom_shapes[0]
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise self.config_error("give axis or its old name concat_dim, not both")
        field = "concat_dim" if p.HasField("concat_dim") else "axis"
        axis = resolve_axis(self, getattr(p, field), shape, field)
        for name, other in zip(self.param.bottom, bottom_shapes, strict=True):
            if other[:axis] + other[axis + 1 :] != shape[:axis] + shape[axis + 1 :] or len(
                other
            ) != len(shape):
                raise self.shape_error(
                    f"bottom '{name}' has shape {other} where '{self.param.bottom[0]}' has "
                    f"{shape}; they may differ in axis {axis} only"
                )
        lengths = [other[axis] for other in bottom_shapes]
        self.starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        top_shape = (*shape[:axis], sum(lengths), *shape[axis + 1 :])
        self.folded = around_axis(top_shape, axis)
        return [top_shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """y[:, start_i : start_i+1] = x_i."""
        outer, _, inner = self.folded
        y = top[0].data.reshape(self.folded)  # (outer, length, inner), a view
        for i, blob in enumerate(bottom):
            x = blob.data.reshape(outer, -1, inner)
            y[:, self.starts[i] : self.starts[i + 1]] = x

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x_i = d_y[:, start_i : start_i+1]."""
        outer, _, inner = self.folded
        d_y = top[0].diff.reshape(self.folded)
        for i, blob in enumerate(bottom):
            if propagate_down[i]:
                d_x = blob.diff.reshape(outer, -1, inner)  # a view
                d_x[...] = d_y[:, self.starts[i] : self.starts[i + 1]]
