"""Batch normalization, scales of channels, and their gradients."""

from __future__ import annotations

import numpy as np

from minissl.kernels.reference.activations import relu_forward
from minissl.kernels.reference.types import Array


def channel_moments(x: Array, mean: Array, variance: Array) -> None:
    """Mean of every channel and the mean squared distance from it.

    Parameters
    ----------
    x : (N, C, S)
        Channels, with what comes before and behind them folded.
    mean, variance : (C,), written
    """
    mean[...] = x.mean(axis=(0, 2), dtype=np.float64)
    variance[...] = np.square(x - mean[:, None]).mean(axis=(0, 2), dtype=np.float64)


def batch_norm_forward(x: Array, mean: Array, variance: Array, eps: float, y: Array) -> None:
    """Y = (x - mean) / sqrt(variance + eps), channel by channel of (N, C, S); y may be x itself."""
    inverse = 1 / np.sqrt(variance + variance.dtype.type(eps))
    y[...] = (x - mean[:, None]) * inverse[:, None]


def batch_norm_backward(
    x: Array, mean: Array, variance: Array, eps: float, d_y: Array, d_x: Array
) -> None:
    """Gradient of :func:`batch_norm_forward` where mean and variance are those of x.

    With m = N * S values in a channel and x^ = (x - mean) / sqrt(variance + eps),

    d_x = (d_y - sum(d_y) / m - x^ * sum(d_y * x^) / m) / sqrt(variance + eps).

    d_x may be d_y itself.
    """
    inverse = 1 / np.sqrt(variance + variance.dtype.type(eps))
    normalized = (x - mean[:, None]) * inverse[:, None]
    common = d_y.mean(axis=(0, 2), dtype=np.float64)
    slope = (d_y * normalized).mean(axis=(0, 2), dtype=np.float64)
    shared = common[:, None] + slope[:, None] * normalized
    d_x[...] = (d_y - shared.astype(x.dtype)) * inverse[:, None]


def norm_scale_forward(
    x: Array,
    mean: Array,
    variance: Array,
    eps: float,
    scale: Array,
    bias: Array | None,
    y: Array,
    relu: bool = False,
) -> None:
    """:func:`batch_norm_forward`, :func:`channel_scale` and a ReLU, one after the other."""
    batch_norm_forward(x, mean, variance, eps, y)
    channel_scale(y, scale, bias, y)
    if relu:
        relu_forward(y, 0.0, y)


def norm_scale_backward(
    x: Array,
    y: Array,
    mean: Array,
    variance: Array,
    eps: float,
    scale: Array,
    d_y: Array,
    d_scale: Array,
    d_bias: Array | None,
    d_x: Array,
    relu: bool = False,
) -> None:
    """Gradient of :func:`norm_scale_forward` where mean and variance are those of x.

    With g = d_y, 0 where y is not positive if there is a ReLU: d_bias += sum of g, d_scale += sum
    of g * x^, and d_x is the gradient of the normalization for scale * g. d_x may be d_y itself.
    """
    g = np.where(y > 0, d_y, 0) if relu else d_y
    normalized = np.empty_like(x)
    batch_norm_forward(x, mean, variance, eps, normalized)
    channel_scale_gradient(normalized, g, d_scale)
    if d_bias is not None:
        d_bias += g.sum(axis=(0, 2), dtype=np.float64).astype(x.dtype)
    batch_norm_backward(x, mean, variance, eps, g * scale[:, None], d_x)


def channel_scale(x: Array, scale: Array, bias: Array | None, y: Array) -> None:
    """Y = scale[c] * x + bias[c] for every channel c of (N, C, S); y may be x itself."""
    y[...] = x * scale[:, None]
    if bias is not None:
        y += bias[:, None]


def channel_scale_gradient(x: Array, d_y: Array, d_scale: Array) -> None:
    """d_scale += sum of d_y * x over every channel of (N, C, S)."""
    d_scale += (d_y * x).sum(axis=(0, 2), dtype=np.float64).astype(x.dtype)
