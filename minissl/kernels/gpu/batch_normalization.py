"""Batch normalization and scales of channels: a block sums each channel, a thread owns a value."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.raw import blocks, each, threads_for


def channel_moments(x, mean, variance) -> None:
    """Mean and variance of every channel of x (N, C, S); see the reference."""
    N, C, S = x.shape
    x = cupy.ascontiguousarray(x)
    threads = threads_for(N * S)
    blocks("channels", "channel_moments", x, C, x, N, C, S, mean, variance, threads=threads)


def batch_norm_forward(x, mean, variance, eps, y) -> None:
    """Y = (x - mean) / sqrt(variance + eps), channel by channel; see the reference."""
    N, C, S = x.shape
    x = cupy.ascontiguousarray(x)
    each("channels", "normalize", x, x.size, x, N, C, S, mean, variance, float(eps), y)


def batch_norm_backward(x, mean, variance, eps, d_y, d_x) -> None:
    """Gradient of the normalization by the batch's own mean and variance; see the reference."""
    N, C, S = x.shape
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    blocks(
        "channels", "normalize_gradient", x, C,
        x, d_y, N, C, S, mean, variance, float(eps), d_x,
        threads=threads_for(N * S),
    )  # fmt: skip


def channel_scale(x, scale, bias, y) -> None:
    """Y = scale[c] * x + bias[c] for every channel c; see the reference."""
    N, C, S = x.shape
    x = cupy.ascontiguousarray(x)
    each("channels", "channel_scale", x, x.size, x, N, C, S, scale, bias, y)


def channel_scale_gradient(x, d_y, d_scale) -> None:
    """d_scale += sum of d_y * x over every channel; see the reference."""
    N, C, S = x.shape
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    threads = threads_for(N * S)
    blocks("channels", "scale_gradient", x, C, x, d_y, N, C, S, d_scale, threads=threads)


def norm_scale_forward(x, mean, variance, eps, scale, bias, y, relu=False) -> None:
    """Normalize, scale, add a bias and rectify in one pass; see the reference."""
    N, C, S = x.shape
    x = cupy.ascontiguousarray(x)
    constants = mean, variance, float(eps), scale, bias, int(relu)
    each("channels", "norm_scale", x, x.size, x, N, C, S, *constants, y)


def norm_scale_backward(
    x, y, mean, variance, eps, scale, d_y, d_scale, d_bias, d_x, relu=False
) -> None:
    """Gradient of all of it; see the reference."""
    N, C, S = x.shape
    x, y, d_y = (cupy.ascontiguousarray(a) for a in (x, y, d_y))
    blocks(
        "channels", "norm_scale_gradient", x, C,
        x, y, d_y, N, C, S, mean, variance, float(eps), scale, int(relu), d_scale, d_bias, d_x,
        threads=threads_for(N * S),
    )  # fmt: skip
