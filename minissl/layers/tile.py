"""Tile: a blob several times, side by side."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register


@register("Tile")
class Tile(Layer):
    """Put ``tiles`` copies of the bottom one after the other along ``axis`` (1)."""

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Lengthen the axis."""
        (shape,) = bottom_shapes
        p = self.param.tile_param
        axis = resolve_axis(self, p.axis, shape)
        self.tiles = p.tiles
        if self.tiles < 1:
            raise self.config_error(f"tiles is {self.tiles}; use 1 or more")
        self.folded = around_axis(shape, axis)  # (outer, length, inner)
        return [(*shape[:axis], self.tiles * shape[axis], *shape[axis + 1 :])]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = x, tiles times."""
        outer, length, inner = self.folded
        y = top[0].data.reshape(outer, self.tiles, length * inner)  # (outer, tiles, length*inner)
        y[...] = bottom[0].data.reshape(outer, 1, length * inner)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = sum of d_y over the copies."""
        if propagate_down[0]:
            outer, length, inner = self.folded
            d_y = top[0].diff.reshape(outer, self.tiles, length * inner)
            bottom[0].diff.reshape(outer, length * inner)[...] = d_y.sum(axis=1)
