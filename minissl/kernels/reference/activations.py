"""ReLU, weighted sums, softmax, and their gradients."""

from __future__ import annotations

import numpy as np

from minissl.kernels.reference.types import Array


def relu_forward(x: Array, negative_slope: float, y: Array) -> None:
    """Y = x where x > 0, negative_slope * x elsewhere; y may be x itself."""
    y[...] = np.where(x > 0, x, x * x.dtype.type(negative_slope))


def relu_backward(x: Array, d_y: Array, negative_slope: float, d_x: Array) -> None:
    """d_x = d_y where x > 0, negative_slope * d_y elsewhere; x may be the layer's own output."""
    d_x[...] = np.where(x > 0, d_y, d_y * d_y.dtype.type(negative_slope))


def weighted_sum(
    a: Array, alpha: float, b: Array, beta: float, y: Array, relu: bool = False
) -> None:
    """Y = alpha * a + beta * b, rectified if asked for; y may be a or b itself."""
    number = a.dtype.type
    y[...] = number(alpha) * a + number(beta) * b
    if relu:
        relu_forward(y, 0.0, y)


def sum_relu_backward(y: Array, d_y: Array, d_a: Array, d_b: Array) -> None:
    """Gradient of y = max(a + b, 0): both get d_y where y > 0, else 0; d_a may be d_y itself."""
    d_a[...] = np.where(y > 0, d_y, 0)
    d_b[...] = d_a


def softmax_forward(x: Array, y: Array) -> None:
    """Y = exp(x - max) / sum exp(x - max) over the middle axis of (outer, classes, inner)."""
    np.exp(x - x.max(axis=1, keepdims=True), out=y)
    y /= y.sum(axis=1, keepdims=True)


def softmax_backward(y: Array, d_y: Array, d_x: Array) -> None:
    """d_x = y * (d_y - sum over classes of d_y * y), all (outer, classes, inner)."""
    d_x[...] = y * (d_y - (d_y * y).sum(axis=1, keepdims=True))
