"""Local response normalization; a thread owns whole planes (one channel of one image).

N images, C channels, H x W pixels. The sums over a window are formed axis by axis: over channels,
down columns, along rows. Nothing is subtracted when it leaves the window, so nothing cancels. A
plane is one flat run of H*W numbers, since the planes behind a few poolings have rows shorter than
a vector: a row above or below is W places away, where margins of zeros stand for rows outside;
a neighbour in the row is one place away, and counts only where the column says that it is in the
same row.
"""

from __future__ import annotations

import math

import numpy as np

from minissl.kernels.cpu import jit
from minissl.kernels.cpu.convolution import accumulate
from minissl.kernels.cpu.jit import (
    fused_kernel,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    scratch,
    unsigned,
)


@fused_kernel
def squares(source, target):
    """Target = source^2, along one run."""
    for j in range(unsigned(target.size)):
        target[j] = source[j] * source[j]


@fused_kernel
def accumulate_squares(source, target):
    """target += source^2, along one run."""
    for j in range(unsigned(target.size)):
        target[j] += source[j] * source[j]


@fused_kernel
def ratios(y, scale, d_y, target):
    """Target = d_y * y / scale, along one run."""
    for j in range(unsigned(target.size)):
        target[j] = d_y[j] * y[j] / scale[j]


@fused_kernel
def sum_down(values, W, height, sums):
    """sums[i] = sum of values[i + r * W] over r < height: a window's column, in a flat plane."""
    one, two = unsigned(W), unsigned(2 * W)
    if height == 3:
        for i in range(unsigned(sums.size)):
            sums[i] = values[i] + values[i + one] + values[i + two]
    else:
        for i in range(unsigned(sums.size)):
            sums[i] = values[i]
        for r in range(1, height):
            row = unsigned(r * W)
            for i in range(unsigned(sums.size)):
                sums[i] += values[i + row]


@fused_kernel
def sum_along(values, columns, W, width, sums):
    """sums[i] = sum over the pixels around i, up to width // 2 away, in the same row.

    ``values`` has a margin of width // 2 numbers at both ends; ``columns`` is i % W.
    """
    zero = values.dtype.type(0)
    half = width // 2
    if width == 3:
        last = W - 1
        for i in range(unsigned(sums.size)):
            left, right = values[i], values[i + unsigned(2)]
            left = left if columns[i] > 0 else zero
            right = right if columns[i] < last else zero
            sums[i] = left + values[i + unsigned(1)] + right
    else:
        for i in range(unsigned(sums.size)):
            sums[i] = values[i + unsigned(half)]
        for q in range(1, half + 1):
            left, right, last = unsigned(half - q), unsigned(half + q), W - q
            for i in range(unsigned(sums.size)):
                before, behind = values[i + left], values[i + right]
                before = before if columns[i] >= q else zero
                behind = behind if columns[i] < last else zero
                sums[i] += before + behind


@kernel
def sums_in_plane(padded, columns, W, window, line, sums):
    """Sum over the window around every pixel of a flat plane.

    ``padded`` holds the plane with the rows of the margins, ``line`` is as long as a plane with the
    columns of the margins.
    """
    height, width = window[1], window[2]
    if width == 1:
        sum_down(padded, W, height, sums)
    elif height == 1:
        line[width // 2 : width // 2 + sums.size] = padded[: sums.size]
        sum_along(line, columns, W, width, sums)
    else:
        sum_down(padded, W, height, line[width // 2 : width // 2 + sums.size])
        sum_along(line, columns, W, width, sums)


@fused_kernel
def normalized(x, sums, factor, beta, k, scale, y):
    """Scale = k + factor * sums, y = x * scale^-beta; for beta = 3/4 by two square roots."""
    if beta == 0.75:
        for j in range(unsigned(y.size)):
            energy = k + factor * sums[j]
            root = np.sqrt(energy)
            scale[j] = energy
            y[j] = x[j] / (root * np.sqrt(root))
    else:
        for j in range(unsigned(y.size)):
            energy = k + factor * sums[j]
            scale[j] = energy
            y[j] = x[j] * energy**-beta


@fused_kernel
def normalized_gradient(x, sums, scale, d_y, factor, beta, d_x):
    """d_x = d_y * scale^-beta - factor * x * sums."""
    if beta == 0.75:
        for j in range(unsigned(d_x.size)):
            root = np.sqrt(scale[j])
            d_x[j] = d_y[j] / (root * np.sqrt(root)) - factor * x[j] * sums[j]
    else:
        for j in range(unsigned(d_x.size)):
            d_x[j] = d_y[j] * scale[j] ** -beta - factor * x[j] * sums[j]


@parallel_kernel
def _forward(x, W, window, factor, beta, k, keep, columns, lines, scale, y):
    """See the reference; planes are flat, (N, C, H*W).

    ``factor`` is alpha / |window|, ``keep`` whether scale is written.
    """
    N, C, size = x.shape
    depth, margin = window[0] // 2, window[1] // 2 * W
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        thread = get_thread_id()
        padded = lines[thread, 0, : size + 2 * margin]
        padded[:margin] = 0
        padded[margin + size :] = 0
        inside = padded[margin : margin + size]
        first = max(0, c - depth)
        squares(x[n, first], inside)
        for channel in range(first + 1, min(C, c + depth + 1)):
            accumulate_squares(x[n, channel], inside)
        sums = lines[thread, 2, :size]
        sums_in_plane(padded, columns, W, window, lines[thread, 1], sums)
        kept = scale[n, c] if keep else lines[thread, 1, :size]
        normalized(x[n, c], sums, factor, beta, k, kept, y[n, c])


@parallel_kernel
def _backward(x, y, ratio, scale, d_y, W, window, factor, beta, columns, lines, d_x):
    """See the reference; planes are flat.

    ``factor`` is 2 alpha beta / |window|; ``ratio`` d_y * y / scale, read where windows span
    channels.
    """
    N, C, size = x.shape
    depth, margin = window[0] // 2, window[1] // 2 * W
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        thread = get_thread_id()
        padded = lines[thread, 0, : size + 2 * margin]
        padded[:margin] = 0
        padded[margin + size :] = 0
        inside = padded[margin : margin + size]
        if depth == 0:
            ratios(y[n, c], scale[n, c], d_y[n, c], inside)
        else:
            inside[:] = 0
            for channel in range(max(0, c - depth), min(C, c + depth + 1)):
                accumulate(ratio[n, channel], inside)
        sums = lines[thread, 2, :size]
        sums_in_plane(padded, columns, W, window, lines[thread, 1], sums)
        normalized_gradient(x[n, c], sums, scale[n, c], d_y[n, c], factor, beta, d_x[n, c])


@parallel_kernel
def _ratio(y, scale, d_y, ratio):
    N, C, _ = ratio.shape
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        ratios(y[n, c], scale[n, c], d_y[n, c], ratio[n, c])


def _flat(*arrays):
    """See the arrays (N, C, H, W) as flat planes (N, C, H*W)."""
    return [np.ascontiguousarray(array).reshape(*array.shape[:2], -1) for array in arrays]


def _scratch(x, window):
    """Columns of the pixels, and lines of every thread: a plane with margins, and sums."""
    H, W = x.shape[2:]
    columns = np.tile(np.arange(W, dtype=np.int32), H if window[2] > 1 else 0)
    length = max(H * W + window[1] // 2 * 2 * W, H * W + window[2] - 1)
    return columns, jit.lines("lines", length, x.dtype, each=3)


def lrn_forward(x, window, alpha, beta, k, scale, y) -> None:
    """Divide by a power of the energy around each value; see the reference."""
    number = x.dtype.type
    factor = number(alpha / math.prod(window))
    keep = scale is not None
    memory, W = _scratch(x, window), x.shape[3]
    x, y, scale = _flat(x, y, scale if keep else y)
    _forward(x, W, window, factor, number(beta), number(k), keep, *memory, scale, y)


def lrn_backward(x, y, scale, d_y, window, alpha, beta, d_x) -> None:
    """Gradient of the normalization; see the reference."""
    number = x.dtype.type
    factor = number(2 * alpha * beta / math.prod(window))
    memory, W = _scratch(x, window), x.shape[3]
    x, y, scale, d_y, d_x = _flat(x, y, scale, d_y, d_x)
    ratio = x
    if window[0] > 1:
        ratio = scratch("ratio", x.shape, x.dtype)
        _ratio(y, scale, d_y, ratio)
    _backward(x, y, ratio, scale, d_y, W, window, factor, number(beta), *memory, d_x)
