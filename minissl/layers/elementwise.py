"""What layers have in common whose output y_i depends on their input x_i alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer


class Elementwise(Layer):
    """Base of layers y = f(x), element by element, with d_x = f'(x) * d_y.

    A layer that is computed in place overwrites its input. Where the slope needs it, the input is
    kept then, in phase TRAIN.
    """

    in_place = True
    #: whether the slope needs x; otherwise it can be read off y
    needs_input: ClassVar[bool] = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape; read the options."""
        (self.shape,) = bottom_shapes
        self.read_options()
        in_place = list(self.param.top) == list(self.param.bottom)
        self._keeps_input = in_place and self.needs_input and self.phase == "TRAIN"
        self._kept: Any = None
        return [self.shape]

    def read_options(self) -> None:
        """Read and check the fields of the prototxt."""

    def values(self, x: Any) -> Any:
        """Return f(x)."""
        raise NotImplementedError

    def slope(self, x: Any, y: Any) -> Any:
        """Return f'(x), from x and y = f(x)."""
        raise NotImplementedError

    def workspace_bytes(self) -> int:
        """The input, where it is overwritten and needed."""
        return math.prod(self.shape) * self.dtype.itemsize if self._keeps_input else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = f(x)."""
        x = bottom[0].data
        if top[0] is bottom[0] and self._keeps_input:
            if self._kept is None:
                self._kept = self.kernels.xp.empty(self.shape, self.dtype)
            self._kept[...] = x
        top[0].data[...] = self.values(x)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = f'(x) * d_y."""
        if propagate_down[0]:
            x, y, d_y = self.input(top, bottom), top[0].data, top[0].diff
            self.kernels.xp.multiply(d_y, self.slope(x, y), out=bottom[0].diff)

    def input(self, top: list[Blob], bottom: list[Blob]) -> Any:
        """Return x, also where y has taken its place."""
        if top[0] is not bottom[0] or not self.needs_input:
            return bottom[0].data
        if self._kept is None:
            raise self.config_error(
                "has no gradient in phase TEST where it is computed in place, since its bottom is "
                "gone; give its top another name"
            )
        return self._kept
