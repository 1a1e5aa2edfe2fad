"""LRN: local response normalization, as in AlexNet."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register

# LRNParameter.NormRegion
ACROSS_CHANNELS, WITHIN_CHANNEL = 0, 1


@register("LRN")
class LRN(Layer):
    """Divide each value by a power of the energy around it.

    With n = ``local_size``, odd, and zeros beyond the border:

    * ACROSS_CHANNELS: ``y = x * (k + alpha / n * sum of x^2)^-beta``, over the n channels around
      its own, at the same pixel (Krizhevsky, Sutskever and Hinton, NIPS 2012, section 3.3; their
      alpha is alpha / n here, as in Caffe);
    * WITHIN_CHANNEL: ``y = x * (1 + alpha / n^2 * sum of x^2)^-beta``, over the n x n pixels around
      its own, of the same channel; ``k`` has no part in it.

    Bottom and top (N, C, H, W).
    """

    reads_top = True

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Read the window and the constants."""
        (shape,) = bottom_shapes
        if len(shape) != 4:
            raise self.shape_error(
                f"the bottom has shape {shape}, but normalization needs four axes (N, C, H, W)"
            )
        p = self.param.lrn_param
        n = p.local_size
        if n % 2 == 0:
            raise self.config_error(
                f"local_size {n} has no middle; use an odd number, such as {n + 1}"
            )
        if p.alpha < 0 or p.k <= 0:
            raise self.config_error(
                f"alpha {p.alpha:g} must be at least 0 and k {p.k:g} greater than 0, "
                "or the sum that is raised to a power may not be positive"
            )
        across = p.norm_region == ACROSS_CHANNELS
        self.window = (n, 1, 1) if across else (1, n, n)
        self.alpha, self.beta, self.k = p.alpha, p.beta, p.k if across else 1.0
        self.shape = shape
        self._scale: Any = None
        return [shape]

    def workspace_bytes(self) -> int:
        """The sums that are raised to a power, kept for the backward pass."""
        n, c, h, w = self.shape
        return n * c * h * w * self.dtype.itemsize if self.phase == "TRAIN" else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Normalize; only a network that trains keeps the sums."""
        x = bottom[0].data
        if self.phase == "TRAIN" and self._scale is None:
            self._scale = self.kernels.xp.empty_like(x)
        self._normalize(x, self._scale, top[0].data)

    def _normalize(self, x: Any, scale: Any, y: Any) -> None:
        self.kernels.lrn_forward(x, self.window, self.alpha, self.beta, self.k, scale, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = d_y * scale^-beta - 2 alpha beta / |window| * x * sum of d_y * y / scale."""
        if not propagate_down[0]:
            return
        x, y, d_y = bottom[0].data, top[0].data, top[0].diff
        scale = self._scale
        if scale is None:  # phase TEST kept none
            scale = self.kernels.xp.empty_like(x)
            self._normalize(x, scale, self.kernels.xp.empty_like(x))
        constants = self.window, self.alpha, self.beta
        self.kernels.lrn_backward(x, y, scale, d_y, *constants, bottom[0].diff)
