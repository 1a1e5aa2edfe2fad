"""Max and average pooling: a thread owns an output forward, a pixel backward."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.raw import each


def max_pool_forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was; see the reference."""
    N, C, H, W = x.shape
    x = cupy.ascontiguousarray(x)
    each(
        "pooling", "max_pool", x, y.size,
        x, N * C, H, W, *kernel, *stride, *pad, *y.shape[2:], y, argmax,
    )  # fmt: skip


def max_pool_backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; see the reference."""
    N, C, H, W = d_x.shape
    d_y = cupy.ascontiguousarray(d_y)
    each(
        "pooling", "max_pool_gradient", d_y, d_x.size,
        d_y, argmax, N * C, H, W, *kernel, *stride, *pad, *d_y.shape[2:], d_x,
    )  # fmt: skip


def ave_pool_forward(x, kernel, stride, pad, y) -> None:
    """Mean of each window; see the reference."""
    N, C, H, W = x.shape
    x = cupy.ascontiguousarray(x)
    each(
        "pooling", "ave_pool", x, y.size,
        x, N * C, H, W, *kernel, *stride, *pad, *y.shape[2:], y,
    )  # fmt: skip


def ave_pool_backward(d_y, kernel, stride, pad, d_x) -> None:
    """Spread each gradient evenly over its window; see the reference."""
    N, C, H, W = d_x.shape
    d_y = cupy.ascontiguousarray(d_y)
    each(
        "pooling", "ave_pool_gradient", d_y, d_x.size,
        d_y, N * C, H, W, *kernel, *stride, *pad, *d_y.shape[2:], d_x,
    )  # fmt: skip
