"""Element-wise activations and sums, and softmax."""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import kernel, parallel_kernel, prange


@kernel
def rectified(v):
    """ReLU of one number, bitwise what the ReLU layer gives: v * 0 where v is not above 0.

    v - v is a zero of v's own type, or NaN, so that a NaN or an infinity stays visible.
    """
    return v if v > 0 else v * (v - v)


@parallel_kernel
def _relu_forward(x, slope, y):
    for i in prange(x.size):
        y[i] = x[i] if x[i] > 0 else x[i] * slope


@parallel_kernel
def _relu_backward(x, d_y, slope, d_x):
    for i in prange(x.size):
        d_x[i] = d_y[i] if x[i] > 0 else d_y[i] * slope


@parallel_kernel
def _weighted_sum(a, alpha, b, beta, y):
    for i in prange(y.size):
        y[i] = alpha * a[i] + beta * b[i]


@parallel_kernel
def _rectified_sum(a, alpha, b, beta, zero, y):
    for i in prange(y.size):
        value = alpha * a[i] + beta * b[i]
        y[i] = value if value > 0 else value * zero


@parallel_kernel
def _sum_relu_backward(y, d_y, zero, d_a, d_b):
    for i in prange(y.size):
        gradient = d_y[i] if y[i] > 0 else zero
        d_a[i] = gradient
        d_b[i] = gradient


@parallel_kernel
def _softmax_forward(x, y):
    outer, classes, inner = x.shape
    for o in prange(outer):
        for i in range(inner):
            largest = x[o, 0, i]
            for c in range(1, classes):
                largest = max(largest, x[o, c, i])
            total = largest * 0
            for c in range(classes):
                y[o, c, i] = np.exp(x[o, c, i] - largest)
                total += y[o, c, i]
            for c in range(classes):
                y[o, c, i] /= total


@parallel_kernel
def _softmax_backward(y, d_y, d_x):
    outer, classes, inner = y.shape
    for o in prange(outer):
        for i in range(inner):
            dot = y[o, 0, i] * 0
            for c in range(classes):
                dot += d_y[o, c, i] * y[o, c, i]
            for c in range(classes):
                d_x[o, c, i] = y[o, c, i] * (d_y[o, c, i] - dot)


def relu_forward(x, negative_slope, y) -> None:
    """Y = x where positive, scaled elsewhere; see the reference."""
    _relu_forward(x.reshape(-1), x.dtype.type(negative_slope), y.reshape(-1))


def relu_backward(x, d_y, negative_slope, d_x) -> None:
    """Gradient of ReLU; see the reference."""
    _relu_backward(x.reshape(-1), d_y.reshape(-1), x.dtype.type(negative_slope), d_x.reshape(-1))


def weighted_sum(a, alpha, b, beta, y, relu=False) -> None:
    """Y = alpha * a + beta * b; see the reference."""
    number = a.dtype.type
    terms = a.reshape(-1), number(alpha), b.reshape(-1), number(beta)
    if relu:
        _rectified_sum(*terms, number(0), y.reshape(-1))
    else:
        _weighted_sum(*terms, y.reshape(-1))


def sum_relu_backward(y, d_y, d_a, d_b) -> None:
    """Gradient of a rectified sum; see the reference."""
    flat = (array.reshape(-1) for array in (d_a, d_b))
    _sum_relu_backward(y.reshape(-1), d_y.reshape(-1), y.dtype.type(0), *flat)


def softmax_forward(x, y) -> None:
    """Softmax over the middle axis of (outer, classes, inner); see the reference."""
    _softmax_forward(np.ascontiguousarray(x), y)


def softmax_backward(y, d_y, d_x) -> None:
    """Gradient of softmax; see the reference."""
    _softmax_backward(np.ascontiguousarray(y), np.ascontiguousarray(d_y), d_x)
