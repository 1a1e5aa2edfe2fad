"""BatchNorm: every channel to mean 0 and variance 1."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("BatchNorm")
class BatchNorm(Layer):
    """Normalize every channel (Ioffe and Szegedy, ICML 2015), without scale and bias.

    ``y = (x - mean) / sqrt(variance + eps)``

    While training, mean and variance are those of the batch, and are added to running sums. When
    testing, or with ``use_global_stats: true``, they are those sums divided by their factor. A
    Scale layer with ``bias_term: true`` behind this one learns scale and bias, as in Caffe.

    Three blobs, none of which is learned, f = ``moving_average_fraction``, m values in a channel:

    * 0, ``mean``: s = f * s + mean of the batch, (C,);
    * 1, ``variance``: s = f * s + m / (m - 1) * variance of the batch, (C,);
    * 2, ``factor``: s = f * s + 1, by which the other two are divided, (1,); while it is 0, mean
      and variance are 0.

    Bottom and top (N, C, ...), or (N,), which is one channel. May be computed in place; where the
    batch's own statistics are used, the bottom is then copied for the backward pass.
    """

    in_place = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the channels; declare the statistics, which no update may touch."""
        (shape,) = bottom_shapes
        p = self.param.batch_norm_param
        if p.HasField("use_weight_bias") and p.use_weight_bias:
            raise self.config_error(
                "use_weight_bias: true is not supported; remove it and put a Scale layer with "
                "bias_term: true behind this one"
            )
        if not shape:
            raise self.shape_error("the bottom is a single number, which has no channels")
        if p.eps <= 0 or not 0 <= p.moving_average_fraction <= 1:
            raise self.config_error(
                f"eps {p.eps:g} must be greater than 0 and moving_average_fraction "
                f"{p.moving_average_fraction:g} from 0 to 1"
            )
        self.eps, self.fraction = p.eps, p.moving_average_fraction
        self.uses_batch = self.phase == "TRAIN"
        if p.HasField("use_global_stats"):
            self.uses_batch = not p.use_global_stats
        channels = shape[1] if len(shape) > 1 else 1
        self.folded = shape[0], channels, prod(shape[2:])  # (N, C, S)
        self._declare_statistics(channels)
        self._in_place = list(self.param.top) == list(self.param.bottom)
        self._mean: Any = None
        self._variance: Any = None
        self._kept: Any = None
        return [shape]

    def _declare_statistics(self, channels: int) -> None:
        given = len(self.param.param)
        zero = type(self.param.batch_norm_param.filler)()
        for number, shape in enumerate(((channels,), (channels,), (1,))):
            spec = self.declare_parameter(shape, zero, "statistic").spec
            if number < given and spec.lr_mult != 0:
                raise self.config_error(
                    f"its statistics are not learned, but lr_mult of param {number} is "
                    f"{spec.lr_mult:g}; write lr_mult: 0, or remove its param blocks"
                )
            spec.lr_mult = 0

    def workspace_bytes(self) -> int:
        """What the backward pass needs of a bottom that is overwritten."""
        return prod(self.folded) * self.dtype.itemsize if self._in_place and self.uses_batch else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = (x - mean) / sqrt(variance + eps)."""
        x = bottom[0].data.reshape(self.folded)  # (N, C, S)
        if self.uses_batch:
            self.batch_moments(x)
            if top[0] is bottom[0]:
                if self._kept is None:
                    self._kept = self.kernels.xp.empty(self.folded, self.dtype)
                self._kept[...] = x
        else:
            self._read_statistics()
        y = top[0].data.reshape(self.folded)  # a view
        self.kernels.batch_norm_forward(x, self._mean, self._variance, self.eps, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x; with the batch's own statistics every value depends on all of its channel.

        Then d_x = (d_y - mean(d_y) - y * mean(d_y * y)) / sqrt(variance + eps), means over the
        m values of a channel. With global ones d_x = d_y / sqrt(variance + eps).
        """
        if not propagate_down[0]:
            return
        d_y, d_x = (blob.diff.reshape(self.folded) for blob in (top[0], bottom[0]))  # views
        if self.uses_batch:
            x = self._kept if top[0] is bottom[0] else bottom[0].data.reshape(self.folded)
            constants = self._mean, self._variance, self.eps
            self.kernels.batch_norm_backward(x, *constants, d_y, d_x)
        else:
            inverse = (self._variance + self.dtype.type(self.eps)) ** -0.5
            self.kernels.channel_scale(d_y, inverse, None, d_x)

    # --- statistics ---

    def batch_moments(self, x: Any) -> tuple[Any, Any]:
        """Return mean and variance of a batch (N, C, S), and add them to the running sums."""
        self._allocate()
        self.kernels.channel_moments(x, self._mean, self._variance)
        self._add_to_statistics()
        return self._mean, self._variance

    def _allocate(self) -> None:
        if self._mean is None:
            channels = (self.folded[1],)
            self._mean = self.kernels.xp.empty(channels, self.dtype)
            self._variance = self.kernels.xp.empty(channels, self.dtype)

    def _add_to_statistics(self) -> None:
        """Let the old batches fade, and add this one."""
        values = self.folded[0] * self.folded[2]
        correction = values / (values - 1) if values > 1 else 1.0
        mean, variance, factor = (parameter.data for parameter in self.parameters)
        for total, new in ((mean, self._mean), (variance, self._variance * correction)):
            total *= self.fraction
            total += new
        factor *= self.fraction
        factor += 1

    def _read_statistics(self) -> None:
        """Divide the sums by their factor."""
        self._allocate()
        mean, variance, factor = (parameter.data for parameter in self.parameters)
        share = (factor != 0) / (factor + (factor == 0))  # 0 while no batch was seen
        self._mean[...] = mean * share
        self._variance[...] = variance * share
