"""Scale: a factor for each channel, learned or another blob."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.axes import fold_operand
from minissl.layers.base import Layer, register


@register("Scale")
class Scale(Layer):
    """Multiply by factors along some axes, and with ``bias_term`` add a bias along the same ones.

    ``y[n, c, ...] = factor[c] * x[n, c, ...] + bias[c]``

    With one bottom the factors are learned: they have the lengths of ``num_axes`` axes (1 by
    default, -1 for all) from ``axis`` (1 by default) on, and begin as 1 unless ``filler`` says
    otherwise. With two bottoms the second holds the factors; its shape is that of the first from
    ``axis`` on. May be computed in place; the bottom is then copied while training.
    """

    n_bottoms = (1, 2)
    in_place = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the axes of the factors; declare factors and bias."""
        p = self.param.scale_param
        shape, self.folded = fold_operand(self, p.axis, p.num_axes, bottom_shapes)
        if len(bottom_shapes) == 1:
            filler = p.filler if p.HasField("filler") else type(p.filler)(value=1)
            self.declare_parameter(shape, filler, "scale")
        self.has_bias = p.bias_term
        if self.has_bias:
            self.declare_parameter(shape, p.bias_filler, "bias")
        self._in_place = self.param.top[0] == self.param.bottom[0]
        self._kept: Any = None
        return [bottom_shapes[0]]

    def workspace_bytes(self) -> int:
        """What the backward pass needs of a bottom that is overwritten."""
        outer, length, inner = self.folded
        keeps = self._in_place and self.phase == "TRAIN"
        return outer * length * inner * self.dtype.itemsize if keeps else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = factor * x + bias."""
        x = bottom[0].data.reshape(self.folded)  # (outer, C, inner)
        if top[0] is bottom[0] and self.phase == "TRAIN":
            if self._kept is None:
                self._kept = self.kernels.xp.empty(self.folded, self.dtype)
            self._kept[...] = x
        bias = self.parameters[-1].data.reshape(-1) if self.has_bias else None
        self.kernels.channel_scale(x, self._factor(bottom), bias, top[0].data.reshape(self.folded))

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_factor = sum of d_y * x, d_bias = sum of d_y, d_x = factor * d_y."""
        d_y = top[0].diff.reshape(self.folded)  # (outer, C, inner), a view
        if self.has_bias:
            d_b = self.parameters[-1].diff.reshape(-1)
            self.kernels.conv_backward_bias(d_y[..., None], d_b)
        x = self._input(bottom[0], in_place=top[0] is bottom[0])
        if len(bottom) == 1:
            self.kernels.channel_scale_gradient(x, d_y, self.parameters[0].diff.reshape(-1))
        elif propagate_down[1]:
            bottom[1].diff[...] = 0
            self.kernels.channel_scale_gradient(x, d_y, bottom[1].diff.reshape(-1))
        if propagate_down[0]:
            d_x = bottom[0].diff.reshape(self.folded)
            self.kernels.channel_scale(d_y, self._factor(bottom), None, d_x)

    def _input(self, bottom: Blob, in_place: bool) -> Any:
        """Return x, (outer, C, inner)."""
        if not in_place:
            return bottom.data.reshape(self.folded)
        if self._kept is None:
            raise self.config_error(
                "has no gradient in phase TEST where it is computed in place, since its bottom is "
                "gone; give its top another name"
            )
        return self._kept

    def _factor(self, bottom: list[Blob]) -> Any:
        return (bottom[1] if len(bottom) == 2 else self.parameters[0]).data.reshape(-1)
