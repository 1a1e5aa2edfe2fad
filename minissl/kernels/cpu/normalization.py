"""Local response normalization; a thread owns whole planes (one channel of one image).

N images, C channels, H x W pixels. The sums over a window are formed anew for every row of pixels,
without subtracting what has left the window: nothing cancels, and the innermost loops run along the
row. A window across channels knows no neighbours in the plane, so there a plane is one long row.
"""

from __future__ import annotations

import math

import numpy as np

from minissl.kernels.cpu import jit
from minissl.kernels.cpu.convolution import accumulate, copy
from minissl.kernels.cpu.jit import get_thread_id, kernel, parallel_kernel, prange, scratch


@kernel
def accumulate_squares(source, target):
    """target += source^2, along one run."""
    for j in range(source.size):
        target[j] += source[j] * source[j]


@kernel
def window_sums(v, squared, n, c, p, window, line, sums):
    """Sum of v, or of v^2, over the window around every pixel of row p: ``sums`` is (W,).

    ``line`` holds the sums over channels and rows, with half a window of zeros at both ends.
    """
    C, H, W = v.shape[1:]
    depth, height, width = window[0] // 2, window[1] // 2, window[2] // 2
    line[:] = 0
    middle = line[width : width + W]
    for channel in range(max(0, c - depth), min(C, c + depth + 1)):
        for row in range(max(0, p - height), min(H, p + height + 1)):
            if squared:
                accumulate_squares(v[n, channel, row], middle)
            else:
                accumulate(v[n, channel, row], middle)
    sums[:] = 0
    for q in range(window[2]):
        accumulate(line[q : q + W], sums)


@kernel
def times_power(x, scale, beta, y):
    """Y = x * scale^-beta along one run; the usual beta of 3/4 takes two square roots."""
    if beta == 0.75:
        for j in range(y.size):
            root = np.sqrt(scale[j])
            y[j] = x[j] / (root * np.sqrt(root))
    else:
        for j in range(y.size):
            y[j] = x[j] * scale[j] ** -beta


@kernel
def subtract_shared(x, factor, shared, d_x):
    """d_x -= factor * x * shared, along one run."""
    for j in range(d_x.size):
        d_x[j] -= factor * x[j] * shared[j]


@parallel_kernel
def _forward(x, window, factor, beta, k, keep, lines, scale, y):
    """See the reference; ``factor`` is alpha / |window|, ``keep`` whether scale is written."""
    N, C, H, W = x.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        thread = get_thread_id()
        line, sums = lines[thread, 0], lines[thread, 1, :W]
        for p in range(H):
            window_sums(x, True, n, c, p, window, line, sums)
            for j in range(W):
                sums[j] = k + factor * sums[j]
            if keep:
                copy(sums, scale[n, c, p])
            times_power(x[n, c, p], sums, beta, y[n, c, p])


@parallel_kernel
def _backward(x, ratio, scale, d_y, window, factor, beta, lines, d_x):
    """``ratio`` is d_y * y / scale, ``factor`` 2 alpha beta / |window|."""
    N, C, H, W = x.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        thread = get_thread_id()
        line, sums = lines[thread, 0], lines[thread, 1, :W]
        for p in range(H):
            window_sums(ratio, False, n, c, p, window, line, sums)
            times_power(d_y[n, c, p], scale[n, c, p], beta, d_x[n, c, p])
            subtract_shared(x[n, c, p], factor, sums, d_x[n, c, p])


@parallel_kernel
def _ratio(y, scale, d_y, ratio):
    for i in prange(ratio.size):
        ratio[i] = d_y[i] * y[i] / scale[i]


def _rows(window, *arrays):
    """See the arrays (N, C, H, W) as rows: a plane is one row where rows have no neighbours."""
    N, C, H, W = arrays[0].shape
    shape = (N, C, 1, H * W) if window[1:] == (1, 1) else (N, C, H, W)
    return [np.ascontiguousarray(array).reshape(shape) for array in arrays]


def _lines(x, window):
    """Scratch of every thread: a row with margins, and the sums of a row."""
    return jit.lines("lines", x.shape[3] + window[2] - 1, x.dtype, each=2)


def lrn_forward(x, window, alpha, beta, k, scale, y) -> None:
    """Divide by a power of the energy around each value; see the reference."""
    number = x.dtype.type
    factor = number(alpha / math.prod(window))
    keep = scale is not None
    x, y, scale = _rows(window, x, y, scale if keep else y)
    lines = _lines(x, window)
    _forward(x, window, factor, number(beta), number(k), keep, lines, scale, y)


def lrn_backward(x, y, scale, d_y, window, alpha, beta, d_x) -> None:
    """Gradient of the normalization; see the reference."""
    number = x.dtype.type
    factor = number(2 * alpha * beta / math.prod(window))
    x, y, scale, d_y, d_x = _rows(window, x, y, scale, d_y, d_x)
    ratio = scratch("ratio", x.shape, x.dtype)
    _ratio(y.reshape(-1), scale.reshape(-1), d_y.reshape(-1), ratio.reshape(-1))
    _backward(x, ratio, scale, d_y, window, factor, number(beta), _lines(x, window), d_x)
