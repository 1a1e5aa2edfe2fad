"""Flatten: fold several axes into one."""

from __future__ import annotations

import math

from minissl.blob import Shape
from minissl.layers.axes import resolve_axis
from minissl.layers.base import register
from minissl.layers.view import View


@register("Flatten")
class Flatten(View):
    """Fold the axes from ``axis`` (1) to ``end_axis`` (-1, included) into one.

    (N, C, H, W) becomes (N, C * H * W). Nothing is copied, unless the top is changed in place.
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
