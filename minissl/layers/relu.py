"""ReLU, also with a slope for negative values."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("ReLU")
class ReLU(Layer):
    """Rectified linear unit.

    ``y = x`` where x > 0, ``y = negative_slope * x`` elsewhere; at 0 the gradient is that of the
    negative side. May be computed in place: y > 0 exactly where x > 0, so that the gradient can be
    read off the output as well.
    """

    in_place = True
    unharmed_by = ("Dropout", "ReLU", "TanH")  # y > 0 stays so, or gets no gradient

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Keep the shape."""
        self.negative_slope = self.param.relu_param.negative_slope
        self.reads_top = list(self.param.top) == list(self.param.bottom)
        if self.negative_slope < 0 and self.reads_top:
            raise self.config_error(
                f"negative_slope {self.negative_slope:g} below 0 cannot be computed in place; "
                "give the top a name of its own"
            )
        return [bottom_shapes[0]]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = max(x, 0) + negative_slope * min(x, 0)."""
        self.kernels.relu_forward(bottom[0].data, self.negative_slope, top[0].data)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y where x > 0, negative_slope * d_y elsewhere."""
        if propagate_down[0]:
            self.kernels.relu_backward(
                bottom[0].data, top[0].diff, self.negative_slope, bottom[0].diff
            )
