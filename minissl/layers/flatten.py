"""Flatten: fold several axes into one."""

from __future__ import annotations

import math

from minissl.blob import Blob, Shape
from minissl.layers.axes import resolve_axis
from minissl.layers.base import Layer, register


@register("Flatten")
class Flatten(Layer):
    """Fold the axes from ``axis`` (1) to ``end_axis`` (-1, included) into one.

    (N, C, H, W) becomes (N, C * H * W). Nothing is copied: the top is a view of the bottom, and the
    bottom's gradient a view of the top's.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Fold the shape."""
        shape = bottom_shapes[0]
        flatten_param = self.param.flatten_param
        start = resolve_axis(self, flatten_param.axis, shape)
        end = resolve_axis(self, flatten_param.end_axis, shape, "end_axis")
        if end < start:
            raise self.config_error(
                f"end_axis {flatten_param.end_axis} lies before axis {flatten_param.axis}; "
                "exchange them"
            )
        return [(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Look at the same values in another shape."""
        top[0].data = bottom[0].data.reshape(top[0].shape)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Look at the same gradient in the bottom's shape."""
        if propagate_down[0]:
            bottom[0].diff = top[0].diff.reshape(bottom[0].shape)
