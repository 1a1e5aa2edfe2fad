"""Pooling: the largest value or the mean of each window, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.kernels.reference.types import Array, Pair


def max_pool_forward(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, y: Array, argmax: Array | None
) -> None:
    """Largest value of each window; ``argmax`` keeps where it was, as h * W + w.

    Windows are clipped to the image, so padding is never the largest. Of equal values the first in
    row-major order wins.

    Parameters
    ----------
    x : (N, C, H, W)
    y : (N, C, P, Q), written
    argmax : int32 (N, C, P, Q) or None, written; only the backward pass needs it
    """
    N, C, H, W = x.shape
    images, channels = np.ogrid[:N, :C]
    for p in range(y.shape[2]):
        for q in range(y.shape[3]):
            top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], H), min(left + kernel[1], W)
            top, left = max(top, 0), max(left, 0)
            pixels = (bottom - top) * (right - left)
            window = x[:, :, top:bottom, left:right].reshape(N, C, pixels)
            winner = window.argmax(axis=2)  # (N, C)
            y[:, :, p, q] = window[images, channels, winner]
            if argmax is not None:
                row, column = np.divmod(winner, right - left)
                argmax[:, :, p, q] = (top + row) * W + left + column


def max_pool_backward(
    d_y: Array, argmax: Array, kernel: Pair, stride: Pair, pad: Pair, d_x: Array
) -> None:
    """Send each gradient to the pixel that was the largest of its window.

    The geometry says which windows a pixel is in; whoever goes from window to pixel needs it not.
    """
    N, C, H, W = d_x.shape
    flat = d_x.reshape(N, C, H * W)  # a view
    flat[...] = 0
    images, channels = np.ogrid[:N, :C]
    for p in range(d_y.shape[2]):
        for q in range(d_y.shape[3]):
            # one window at a time: two windows may share their winner, one window never does
            flat[images, channels, argmax[:, :, p, q]] += d_y[:, :, p, q]


def ave_pool_forward(x: Array, kernel: Pair, stride: Pair, pad: Pair, y: Array) -> None:
    """Mean of each window, padding counted as zeros (Caffe's rule).

    The divisor is the window's area clipped at the padded border (H + pad), so only a last,
    partial window divides by less than kh * kw.
    """
    for p, q, area, (rows, columns) in _ave_windows(x.shape, kernel, stride, pad, y.shape):
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3)) / area


def ave_pool_backward(d_y: Array, kernel: Pair, stride: Pair, pad: Pair, d_x: Array) -> None:
    """Adjoint of :func:`ave_pool_forward`: each gradient is spread evenly over its window."""
    d_x[...] = 0
    for p, q, area, (rows, columns) in _ave_windows(d_x.shape, kernel, stride, pad, d_y.shape):
        d_x[:, :, rows, columns] += (d_y[:, :, p, q] / area)[:, :, None, None]


def _ave_windows(x_shape: Any, kernel: Pair, stride: Pair, pad: Pair, y_shape: Any):
    """Yield (p, q, divisor, slices inside the image) of every window of average pooling."""
    H, W = x_shape[2:]
    for p in range(y_shape[2]):
        for q in range(y_shape[3]):
            top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], H + pad[0]), min(left + kernel[1], W + pad[1])
            area = (bottom - top) * (right - left)
            inside = slice(max(top, 0), min(bottom, H)), slice(max(left, 0), min(right, W))
            yield p, q, area, inside
