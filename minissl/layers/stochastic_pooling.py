"""Stochastic pooling: a value of each window, drawn by chance, large ones more often.

Zeiler and Fergus, Stochastic Pooling for Regularization of Deep Convolutional Neural Networks, ICLR
2013. Values are taken to be 0 or more, as behind a ReLU. In training y is the value x_k of the
window with probability x_k / sum of x, and its gradient goes there; in testing y is the mean by
these probabilities, sum of x^2 / sum of x.

Dimensions: N images, C channels, H x W pixels, oh x ow windows of K = kh * kw values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minissl.layers.base import Layer


class StochasticPooling:
    """The arithmetic of one layer, and what it keeps for the backward pass.

    Parameters
    ----------
    layer : Layer
        Whose random numbers and phase are used.
    kernel, stride : (int, int)
    shape, top_shape : tuple of int
        (N, C, H, W) and (N, C, oh, ow); windows that hang over see zeros beyond the image.
    """

    def __init__(self, layer: Layer, kernel: Any, stride: Any, shape: Any, top_shape: Any):
        self.layer, self.kernel, self.stride = layer, kernel, stride
        self.shape, self.top_shape = shape, top_shape
        self._chosen: Any = None

    def _places(self) -> Iterator[tuple]:
        """Yield for each of the K places where all windows have it in the padded image."""
        (kh, kw), (sh, sw), (oh, ow) = self.kernel, self.stride, self.top_shape[2:]
        for r in range(kh):
            for q in range(kw):
                rows = slice(r, r + sh * (oh - 1) + 1, sh)
                columns = slice(q, q + sw * (ow - 1) + 1, sw)
                yield (..., rows, columns)

    def _padded(self, images: int) -> Any:
        """Return zeros for some images in which every window is whole."""
        _, c, h, w = self.shape
        ends = (
            max(size, (o - 1) * s + k)
            for size, o, s, k in zip(
                (h, w), self.top_shape[2:], self.stride, self.kernel, strict=True
            )
        )
        return self.layer.kernels.xp.zeros((images, c, *ends), self.layer.dtype)

    def _windows(self, x: Any) -> Any:
        """Return the values of all windows, (K, N, C, oh, ow)."""
        padded = self._padded(len(x))  # a fused step brings fewer images than a batch
        padded[:, :, : self.shape[2], : self.shape[3]] = x
        return self.layer.kernels.xp.stack([padded[place] for place in self._places()])

    def forward(self, x: Any, y: Any) -> None:
        """Draw (TRAIN) or average (TEST) the values of each window."""
        xp, values = self.layer.kernels.xp, self._windows(x)
        if self.layer.phase != "TRAIN":
            y[...] = (values * values).sum(axis=0) / self._sums(values)
            return
        below = xp.cumsum(values, axis=0)  # (K, N, C, oh, ow)
        # drawn in float32 whatever the data type, so that float64 chooses the same places
        drawn = self.layer.rng.random(self.top_shape, dtype="float32")
        limit = xp.asarray(drawn.astype(self.layer.dtype)) * below[-1]
        chosen = xp.minimum((below < limit).sum(axis=0), len(values) - 1)
        self._chosen = chosen
        y[...] = xp.take_along_axis(values, chosen[None], axis=0)[0]

    def backward(self, x: Any, y: Any, d_y: Any, d_x: Any) -> None:
        """d_x = d_y where a value was drawn; (2 x - y) / sum of x * d_y of a mean."""
        padded = self._padded(len(x))
        if self.layer.phase != "TRAIN":
            values = self._windows(x)
            share = d_y / self._sums(values)
        for k, place in enumerate(self._places()):
            if self.layer.phase == "TRAIN":
                padded[place] += d_y * (self._chosen == k)
            else:
                padded[place] += share * (2 * values[k] - y)
        d_x[...] = padded[:, :, : self.shape[2], : self.shape[3]]

    def _sums(self, values: Any) -> Any:
        """Return the sums of the windows, never 0."""
        smallest = np.finfo(self.layer.dtype).tiny
        return self.layer.kernels.xp.maximum(values.sum(axis=0), smallest)
