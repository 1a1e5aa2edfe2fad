"""Crop: a part of a blob, as large as another blob."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.axes import resolve_axis
from minissl.layers.base import Layer, register


@register("Crop")
class Crop(Layer):
    """Cut bottom 0 to the lengths of bottom 1, in all axes from ``axis`` (2) on.

    ``offset`` says where the part begins: none for 0, one for all of these axes, or one for each.
    The values of bottom 1 play no part.
    """

    n_bottoms = (2, 2)
    no_gradient = (1,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the part."""
        shape, reference = bottom_shapes
        if len(shape) != len(reference):
            raise self.shape_error(
                f"bottoms of shapes {shape} and {reference} differ in their number of axes"
            )
        p = self.param.crop_param
        axis = resolve_axis(self, p.axis, shape)
        cropped = len(shape) - axis
        offsets = list(p.offset) or [0]
        if len(offsets) not in (1, cropped):
            raise self.config_error(
                f"has {len(offsets)} offsets for {cropped} axes; give one for all, or one for each"
            )
        offsets = offsets * cropped if len(offsets) == 1 else offsets
        top_shape = (*shape[:axis], *reference[axis:])
        for i, offset in enumerate(offsets, start=axis):
            if offset + reference[i] > shape[i]:
                raise self.shape_error(
                    f"offset {offset} and length {reference[i]} reach beyond axis {i} of a bottom "
                    f"of shape {shape}"
                )
        starts = [0] * axis + offsets
        self.part = tuple(
            slice(start, start + n) for start, n in zip(starts, top_shape, strict=True)
        )
        return [top_shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = the part of x."""
        top[0].data[...] = bottom[0].data[self.part]

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y in the part, 0 around it."""
        if propagate_down[0]:
            bottom[0].diff.fill(0)
            bottom[0].diff[self.part] = top[0].diff
        if propagate_down[1]:
            bottom[1].diff.fill(0)
