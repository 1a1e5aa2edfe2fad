"""Slice: a blob cut into pieces along an axis."""

from __future__ import annotations

import sys
from itertools import pairwise

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register


@register("Slice")
class Slice(Layer):
    """Cut the bottom along ``axis`` (1, the channels, by default), one piece for each top.

    The cuts are at ``slice_point``, one fewer than there are tops; without any the pieces are
    equal. ``slice_dim`` is the old name of ``axis``.
    """

    n_tops = (1, sys.maxsize)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the pieces."""
        p, (shape,) = self.param.slice_param, bottom_shapes
        if p.HasField("axis") and p.HasField("slice_dim"):
            raise self.config_error("give axis or its old name slice_dim, not both")
        field = "slice_dim" if p.HasField("slice_dim") else "axis"
        axis = resolve_axis(self, getattr(p, field), shape, field)
        length, tops, points = shape[axis], max(1, len(self.param.top)), list(p.slice_point)
        if points:
            if len(points) != tops - 1:
                raise self.config_error(
                    f"has {len(points)} slice_point for {tops} tops; give one fewer than tops"
                )
            self.cuts = [0, *points, length]
            if any(later <= earlier for earlier, later in pairwise(self.cuts)):
                raise self.config_error(
                    f"slice_point {', '.join(map(str, points))} must rise, from 1 to {length - 1}"
                )
        else:
            if length % tops:
                raise self.config_error(
                    f"axis {axis} of length {length} cannot be cut into {tops} equal pieces; give "
                    "slice_point"
                )
            self.cuts = [i * length // tops for i in range(tops + 1)]
        self.folded = around_axis(shape, axis)
        pieces = (stop - start for start, stop in pairwise(self.cuts))
        return [(*shape[:axis], piece, *shape[axis + 1 :]) for piece in pieces]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """y_i = x[:, cut_i : cut_i+1]."""
        outer, _, inner = self.folded
        x = bottom[0].data.reshape(self.folded)  # (outer, length, inner)
        for i, blob in enumerate(top):
            y = blob.data.reshape(outer, -1, inner)  # a view
            y[...] = x[:, self.cuts[i] : self.cuts[i + 1]]

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x[:, cut_i : cut_i+1] = d_y_i."""
        if not propagate_down[0]:
            return
        outer, _, inner = self.folded
        d_x = bottom[0].diff.reshape(self.folded)  # a view
        for i, blob in enumerate(top):
            d_x[:, self.cuts[i] : self.cuts[i + 1]] = blob.diff.reshape(outer, -1, inner)
