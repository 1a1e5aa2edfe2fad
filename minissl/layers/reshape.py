"""Reshape: the same values in another shape."""

from __future__ import annotations

import math

from minissl.blob import Shape
from minissl.layers.base import register
from minissl.layers.view import View


@register("Reshape")
class Reshape(View):
    """See a blob in another shape.

    ``reshape_param.shape`` takes the place of ``num_axes`` axes (all of them by default, -1) from
    ``axis`` (0) on. A ``dim`` of 0 keeps the bottom's length at that place, one ``dim`` of -1 takes
    what is left. A negative ``axis`` counts from behind the last one: with ``axis: -1`` and
    ``num_axes: 0`` new axes come last. Nothing is copied, unless the top is changed in place.

    Examples
    --------
    A bottom (2, 8) becomes (2, 2, 4) by ``shape { dim: 0 dim: -1 dim: 4 }``, or by
    ``shape { dim: 2 dim: 4 } axis: 1``.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Work out the shape."""
        (shape,) = bottom_shapes
        p = self.param.reshape_param
        n_axes = len(shape)
        start = p.axis if p.axis >= 0 else n_axes + p.axis + 1
        if not 0 <= start <= n_axes:
            raise self.config_error(
                f"axis {p.axis} does not exist in a bottom of shape {shape}; "
                f"choose axis from {-n_axes - 1} to {n_axes}"
            )
        end = n_axes if p.num_axes == -1 else start + p.num_axes
        if p.num_axes < -1 or end > n_axes:
            raise self.config_error(
                f"num_axes {p.num_axes} from axis {start} on are not axes of a bottom of shape "
                f"{shape}; use at most {n_axes - start}, or -1 for all"
            )
        middle = self._fill_in(list(p.shape.dim), shape, start, end)
        return [(*shape[:start], *middle, *shape[end:])]

    def _fill_in(self, dims: list[int], shape: Shape, start: int, end: int) -> list[int]:
        """Replace each 0 by the bottom's length, and a -1 by what is left."""
        replaced = math.prod(shape[start:end])
        if any(dim < -1 for dim in dims) or dims.count(-1) > 1:
            raise self.config_error(f"shape {dims} may have one -1, and else lengths from 0 on")
        for i, dim in enumerate(dims):
            if dim == 0:
                if start + i >= len(shape):
                    raise self.config_error(
                        f"dim {i} of shape {dims} is 0, but the bottom of shape {shape} has no "
                        f"axis {start + i} to copy it from"
                    )
                dims[i] = shape[start + i]
        given = math.prod(dim for dim in dims if dim != -1)
        if -1 in dims and given and replaced % given == 0:
            dims[dims.index(-1)] = replaced // given
        if math.prod(dims) != replaced:
            raise self.shape_error(
                f"shape {dims} cannot hold the {replaced} values of axes {start} to {end - 1} of a "
                f"bottom of shape {shape}"
            )
        return dims
