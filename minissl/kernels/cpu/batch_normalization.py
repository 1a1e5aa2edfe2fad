"""Batch normalization and scales of channels; a thread owns planes, one channel of one image each.

Arrays are (N, C, S): N images, C channels, S values of a plane. Threads go through neighbouring
planes, as they lie in memory. A plane is summed in lanes, the sums of a channel's planes are added
in double; so they are close to exact, and always formed in the same order.

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
def _moments(x, sums, mean, variance):
    """Moments of planes, about centers of their own, then those of channels.

    ``sums`` (N, C, 3): the sum of a plane, its center, and the squared distances from that. Moved
    from center a to b, they become

        sum (v - b)^2  =  sum (v - a)^2  +  (a - b) * (2 * sum (v - a)  +  S * (a - b))
    """
    N, C, S = x.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        total = lane_sum(x[n, c])
        center = x.dtype.type(total / S)
        sums[n, c, 0] = total
        sums[n, c, 1] = center
        sums[n, c, 2] = lane_squares(x[n, c], center)
    for c in prange(C):
        total = 0.0
        for n in range(N):
            total += sums[n, c, 0]
        center = total / (N * S)
        squares = 0.0
        for n in range(N):
            moved = sums[n, c, 1] - center
            beyond = sums[n, c, 0] - S * sums[n, c, 1]
            squares += sums[n, c, 2] + moved * (2 * beyond + S * moved)
        mean[c] = center
        variance[c] = squares / (N * S)


@parallel_kernel
def _normalize(x, mean, variance, eps, one, y):
    N, C = x.shape[:2]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        normalize(x[n, c], mean[c], one / np.sqrt(variance[c] + eps), y[n, c])


@kernel
def sum_of(sums, c, which):
    """Add up what the planes of a channel have found."""
    total = 0.0
    for n in range(len(sums)):
        total += sums[n, c, which]
    return total


@parallel_kernel
def _normalize_backward(x, mean, variance, eps, one, d_y, in_place, sums, common, slope, d_x):
    N, C, S = x.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        sums[n, c, 0] = lane_sum(d_y[n, c])
        sums[n, c, 1] = lane_product(x[n, c], mean[c], d_y[n, c])
    for c in prange(C):
        common[c] = sum_of(sums, c, 0) / (N * S)
        slope[c] = sum_of(sums, c, 1) / (N * S) / (variance[c] + eps)
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        if not in_place:
            copy(d_y[n, c], d_x[n, c])
        inverse = one / np.sqrt(variance[c] + eps)
        normalize_gradient(x[n, c], mean[c], slope[c], common[c], inverse, d_x[n, c])


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
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        inverse = one / np.sqrt(variance[c] + eps)
        affine_run(x[n, c], mean[c], inverse, scale[c], bias[c], relu, y[n, c])


@parallel_kernel
def _norm_scale_backward(
    x, y, mean, variance, eps, one, scale, relu, d_y, in_place, d_scale, d_bias, has_bias, sums,
    common, slope, d_x,
):  # fmt: skip
    N, C, S = x.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        if not in_place:
            copy(d_y[n, c], d_x[n, c])
        found = rectified_sums(x[n, c], mean[c], y[n, c], relu, d_x[n, c])
        sums[n, c, 0] = found[0]
        sums[n, c, 1] = found[1]
    for c in prange(C):
        total, product = sum_of(sums, c, 0), sum_of(sums, c, 1)
        if has_bias:
            d_bias[c] += total
        d_scale[c] += product * (one / np.sqrt(variance[c] + eps))
        common[c] = total / (N * S)
        slope[c] = product / (N * S) / (variance[c] + eps)
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        factor = scale[c] * (one / np.sqrt(variance[c] + eps))
        normalize_gradient(x[n, c], mean[c], slope[c], common[c], factor, d_x[n, c])


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


def _sums(x, count):
    """Scratch for sums of planes in double, and for two numbers of each channel."""
    N, C = x.shape[:2]
    sums = scratch("sums of planes", (N, C, count), np.dtype(np.float64))
    return sums, *scratch("of channels", (2, C), x.dtype)


def channel_moments(x, mean, variance) -> None:
    """Mean and variance of every channel; see the reference."""
    _moments(np.ascontiguousarray(x), _sums(x, 3)[0], mean, variance)


def batch_norm_forward(x, mean, variance, eps, y) -> None:
    """Take off the mean and divide by the deviation; see the reference."""
    number = x.dtype.type
    _normalize(np.ascontiguousarray(x), mean, variance, number(eps), number(1), y)


def batch_norm_backward(x, mean, variance, eps, d_y, d_x) -> None:
    """Gradient of batch normalization; see the reference."""
    x, d_y, number = np.ascontiguousarray(x), np.ascontiguousarray(d_y), x.dtype.type
    in_place = np.may_share_memory(d_y, d_x)
    constants = number(eps), number(1)
    _normalize_backward(x, mean, variance, *constants, d_y, in_place, *_sums(x, 2), d_x)


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
        d_y, np.may_share_memory(d_y, d_x), d_scale, d_bias if has_bias else d_scale, has_bias,
        *_sums(x, 2), d_x,
    )  # fmt: skip
