"""Local response normalization, and its gradient."""

from __future__ import annotations

import math

import numpy as np

from minissl.kernels.reference.types import Array


def lrn_forward(
    x: Array,
    window: tuple[int, int, int],
    alpha: float,
    beta: float,
    k: float,
    scale: Array | None,
    y: Array,
) -> None:
    """Divide each value by a power of the energy around it.

    scale = k + alpha / |window| * sum of x^2 over the window; y = x * scale^-beta. The window is
    centred, and what it covers beyond the border counts as zeros: |window| is always the same.

    Parameters
    ----------
    x : (N, C, H, W)
    window : (channels, rows, columns), odd numbers
    scale : (N, C, H, W) or None, written; only the backward pass needs it
    y : (N, C, H, W), written
    """
    found = k + alpha / math.prod(window) * _window_sums(x * x, window)
    y[...] = x * found**-beta
    if scale is not None:
        scale[...] = found


def lrn_backward(
    x: Array,
    y: Array,
    scale: Array,
    d_y: Array,
    window: tuple[int, int, int],
    alpha: float,
    beta: float,
    d_x: Array,
) -> None:
    """Gradient of :func:`lrn_forward`; x_i stands in the scale of all its neighbours j.

    d_x_i = d_y_i * scale_i^-beta - 2 alpha beta / |window| * x_i * sum of d_y_j * y_j / scale_j.
    """
    shared = _window_sums(d_y * y / scale, window)
    factor = 2 * alpha * beta / math.prod(window)
    d_x[...] = d_y * scale**-beta - factor * x * shared


def _window_sums(v: Array, window: tuple[int, int, int]) -> Array:
    """Sum of v (N, C, H, W) over the window around each element, axis by axis."""
    for axis, length in enumerate(window, start=1):
        half = length // 2
        around = np.pad(v, [(half, half) if a == axis else (0, 0) for a in range(v.ndim)])
        v = np.lib.stride_tricks.sliding_window_view(around, length, axis).sum(axis=-1)
    return v
