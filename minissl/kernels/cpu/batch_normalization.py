"""Batch normalization and scales of channels; a thread owns whole channels.

Arrays are (N, C, S): N images, C channels, S values of a channel in one image. A run of S values is
summed in lanes, the runs of a channel are added in double; so sums are close to exact, and always
formed in the same order.

A channel is read several times. Runs that were read last are still in the cache, so that every
other pass goes through them backwards.

Gradients are computed in their own memory, often that of the gradient they are made from; where it
is another, a run is copied first. So no loop writes one array while it reads another that may be
the same: it would not become vector code.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.convolution import copy
from minissl.kernels.cpu.jit import (
    fused_kernel,
    kernel,
    lane_kernel,
    parallel_kernel,
    prange,
    scratch,
    step,
)


@lane_kernel
def lane_sum(v):
    """Sum of a run."""
    total = v.dtype.type(0)
    for i in range(v.size):
        total += v[i]
    return total


@lane_kernel
def lane_squares(v, center):
    """Sum of (v - center)^2 over a run."""
    total = v.dtype.type(0)
    for i in range(v.size):
        distance = v[i] - center
        total += distance * distance
    return total


@lane_kernel
def lane_product(v, center, w):
    """Sum of (v - center) * w over a run."""
    total = v.dtype.type(0)
    for i in range(v.size):
        total += (v[i] - center) * w[i]
    return total


@kernel
def normalize(v, center, inverse, y):
    """Y = (v - center) * inverse, along one run."""
    for i in range(v.size):
        y[i] = (v[i] - center) * inverse


@fused_kernel
def normalize_gradient(v, center, slope, common, inverse, d_v):
    """d_v = (d_v - common - slope * (v - center)) * inverse, along one run."""
    for i in range(v.size):
        d_v[i] = (d_v[i] - common - slope * (v[i] - center)) * inverse


@kernel
def scale_run(v, factor, offset, y):
    """Y = factor * v + offset, along one run."""
    for i in range(v.size):
        y[i] = factor * v[i] + offset


@parallel_kernel
def _moments(x, mean, variance):
    N, C, S = x.shape
    for c in prange(C):
        total = 0.0
        for n in range(N):
            total += lane_sum(x[n, c])
        mean[c] = total / (N * S)
        total = 0.0
        for n in range(N - 1, -1, -1):
            total += lane_squares(x[n, c], mean[c])
        variance[c] = total / (N * S)


@parallel_kernel
def _normalize(x, mean, variance, eps, one, y):
    N, C = x.shape[:2]
    for c in prange(C):
        inverse = one / np.sqrt(variance[c] + eps)
        for n in range(N):
            normalize(x[n, c], mean[c], inverse, y[n, c])


@parallel_kernel
def _normalize_backward(x, mean, variance, eps, one, d_y, in_place, d_x):
    N, C, S = x.shape
    for c in prange(C):
        inverse = one / np.sqrt(variance[c] + eps)
        total = 0.0
        product = 0.0
        for n in range(N):
            total += lane_sum(d_y[n, c])
            product += lane_product(x[n, c], mean[c], d_y[n, c])
        common = x.dtype.type(total / (N * S))
        slope = x.dtype.type(product / (N * S)) * inverse * inverse
        for n in range(N - 1, -1, -1):
            if not in_place:
                copy(d_y[n, c], d_x[n, c])
            normalize_gradient(x[n, c], mean[c], slope, common, inverse, d_x[n, c])


@kernel
def affine_run(v, center, inverse, factor, offset, relu, y):
    """Y = factor * (v - center) * inverse + offset along one run, rectified if asked for."""
    zero = v.dtype.type(0)
    if relu:
        for i in range(v.size):
            value = factor * ((v[i] - center) * inverse) + offset
            y[i] = value if value > 0 else value * zero
    else:
        for i in range(v.size):
            y[i] = factor * ((v[i] - center) * inverse) + offset


@lane_kernel
def rectified_sums(v, center, y, relu, d_v):
    """Take ``d_v`` back through the rectifier; return its sum, and that of it times v - center."""
    zero = v.dtype.type(0)
    total = zero
    product = zero
    if relu:
        for i in range(v.size):
            gradient = d_v[i]
            gradient = gradient if y[i] > 0 else zero
            d_v[i] = gradient
            total += gradient
            product += (v[i] - center) * gradient
    else:
        for i in range(v.size):
            total += d_v[i]
            product += (v[i] - center) * d_v[i]
    return total, product


@parallel_kernel
def _norm_scale(x, mean, variance, eps, one, scale, bias, relu, y):
    N, C = x.shape[:2]
    for c in prange(C):
        inverse = one / np.sqrt(variance[c] + eps)
        for n in range(N):
            affine_run(x[n, c], mean[c], inverse, scale[c], bias[c], relu, y[n, c])


@parallel_kernel
def _norm_scale_backward(
    x, y, mean, variance, eps, one, scale, relu, d_y, in_place, d_scale, d_bias, has_bias, d_x
):
    N, C, S = x.shape
    for c in prange(C):
        inverse = one / np.sqrt(variance[c] + eps)
        total = 0.0
        product = 0.0
        for n in range(N):
            if not in_place:
                copy(d_y[n, c], d_x[n, c])
            sums = rectified_sums(x[n, c], mean[c], y[n, c], relu, d_x[n, c])
            total += sums[0]
            product += sums[1]
        if has_bias:
            d_bias[c] += total
        d_scale[c] += product * inverse
        common = x.dtype.type(total / (N * S))
        slope = x.dtype.type(product / (N * S)) * inverse * inverse
        factor = scale[c] * inverse
        for n in range(N - 1, -1, -1):
            normalize_gradient(x[n, c], mean[c], slope, common, factor, d_x[n, c])


@parallel_kernel
def _scale(x, scale, bias, y):
    N, C = x.shape[:2]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        scale_run(x[n, c], scale[c], bias[c], y[n, c])


@parallel_kernel
def _scale_rows(x, scale, bias, y):
    """Channels of a single value: x is (N, C), and a thread owns images."""
    for n in prange(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = scale[c] * x[n, c] + bias[c]


@parallel_kernel
def _scale_gradient(x, d_y, zero, d_scale):
    N, C = x.shape[:2]
    for c in prange(C):
        total = 0.0
        for n in range(N):
            total += lane_product(x[n, c], zero, d_y[n, c])
        d_scale[c] += total


@parallel_kernel
def _scale_gradient_rows(x, d_y, length, sums, d_scale):
    """Channels of a single value: x is (N, C), and a thread owns ``length`` channels."""
    N, C = x.shape
    for part in prange((C + length - 1) // length):
        first, last = part * length, min(C, (part + 1) * length)
        sums[first:last] = 0
        for n in range(N):
            for c in range(first, last):
                sums[c] += x[n, c] * d_y[n, c]
        for c in range(first, last):
            d_scale[c] += sums[c]


def channel_moments(x, mean, variance) -> None:
    """Mean and variance of every channel; see the reference."""
    _moments(np.ascontiguousarray(x), mean, variance)


def batch_norm_forward(x, mean, variance, eps, y) -> None:
    """Take off the mean and divide by the deviation; see the reference."""
    number = x.dtype.type
    _normalize(np.ascontiguousarray(x), mean, variance, number(eps), number(1), y)


def batch_norm_backward(x, mean, variance, eps, d_y, d_x) -> None:
    """Gradient of batch normalization; see the reference."""
    x, d_y, number = np.ascontiguousarray(x), np.ascontiguousarray(d_y), x.dtype.type
    in_place = np.may_share_memory(d_y, d_x)
    _normalize_backward(x, mean, variance, number(eps), number(1), d_y, in_place, d_x)


def channel_scale(x, scale, bias, y) -> None:
    """Multiply every channel by its factor; see the reference."""
    x = np.ascontiguousarray(x)
    if bias is None:
        bias = scratch("no bias", scale.shape, scale.dtype)
        bias[...] = 0
    if x.shape[2] == 1:
        _scale_rows(x[:, :, 0], scale, bias, y[:, :, 0])
    else:
        _scale(x, scale, bias, y)


def channel_scale_gradient(x, d_y, d_scale) -> None:
    """Gradient of the factors of channels; see the reference."""
    x, d_y = np.ascontiguousarray(x), np.ascontiguousarray(d_y)
    if x.shape[2] == 1:
        sums = scratch("sums of channels", d_scale.shape, np.dtype(np.float64))
        _scale_gradient_rows(x[:, :, 0], d_y[:, :, 0], step(len(sums)), sums, d_scale)
    else:
        _scale_gradient(x, d_y, x.dtype.type(0), d_scale)


def norm_scale_forward(x, mean, variance, eps, scale, bias, y, relu=False) -> None:
    """Normalize, scale, add a bias and rectify in one pass; see the reference."""
    number = x.dtype.type
    if bias is None:
        bias = scratch("no bias", scale.shape, scale.dtype)
        bias[...] = 0
    x = np.ascontiguousarray(x)
    _norm_scale(x, mean, variance, number(eps), number(1), scale, bias, bool(relu), y)


def norm_scale_backward(
    x, y, mean, variance, eps, scale, d_y, d_scale, d_bias, d_x, relu=False
) -> None:
    """Gradient of all of it in two passes; see the reference."""
    number, has_bias = x.dtype.type, d_bias is not None
    x, y, d_y = (np.ascontiguousarray(a) for a in (x, y, d_y))
    _norm_scale_backward(
        x, y, mean, variance, number(eps), number(1), scale, bool(relu),
        d_y, np.may_share_memory(d_y, d_x), d_scale, d_bias if has_bias else d_scale, has_bias, d_x,
    )  # fmt: skip
