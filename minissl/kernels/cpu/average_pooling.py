"""Average pooling; a thread owns whole planes (one channel of one image).

Vectors go through the windows where they can (:mod:`minissl.kernels.cpu.micro.plane_pooling`). The
loops here do it elsewhere, in two steps: down the columns of a band of rows, which leaves one line
as long as the image is wide, then along that line. The gradient takes them the other way round,
and gathers: every pixel sums the shares of the windows that cover it.

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu import jit
from minissl.kernels.cpu.jit import fused_kernel, get_thread_id, parallel_kernel, prange, unsigned
from minissl.kernels.cpu.micro import plane_pooling as micro


@fused_kernel
def sum_of_rows(image, W, top, bottom, line):
    """line[w] = sum of column w over rows top to bottom - 1."""
    a, b, c = unsigned(top * W), unsigned((top + 1) * W), unsigned((top + 2) * W)
    if bottom - top == 3:
        for w in range(unsigned(W)):
            line[w] = image[a + w] + image[b + w] + image[c + w]
        return
    for w in range(unsigned(W)):
        line[w] = image[a + w]
    for h in range(top + 1, bottom):
        row = unsigned(h * W)
        for w in range(unsigned(W)):
            line[w] += image[row + w]


@fused_kernel
def mean_of_runs(line, length, stride, height, widths, out):
    """out[q] = sum of line[q * stride : q * stride + length] / (height * widths[q])."""
    one, two = unsigned(1), unsigned(2)
    if length == 3 and stride == 2:
        for q in range(unsigned(out.size)):
            at = two * q
            total = line[at] + line[at + one] + line[at + two]
            out[q] = total / (height * widths[q])
    else:
        for q in range(unsigned(out.size)):
            at = unsigned(stride) * q
            total = line[at]
            for k in range(one, unsigned(length)):
                total += line[at + k]
            out[q] = total / (height * widths[q])


@parallel_kernel
def _ave_pool_forward(x, kernel, stride, pad, heights, widths, lines, y):
    """``heights`` and ``widths`` are those of the windows, clipped beyond the padding."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out = x[n, c].reshape(-1), y[n, c].reshape(-1)
        line = lines[get_thread_id(), 0]
        line[:] = 0
        inside = line[pad[1] : pad[1] + W]
        for p in range(P):
            top = p * stride[0] - pad[0]
            sum_of_rows(image, W, max(top, 0), min(top + kernel[0], H), inside)
            row = out[p * Q : (p + 1) * Q]
            mean_of_runs(line, kernel[1], stride[1], heights[p], widths, row)


@fused_kernel
def shares_of(gradient, height, widths, shares):
    """shares[q] = gradient[q] / (height * widths[q]), what every pixel of a window receives."""
    for q in range(unsigned(gradient.size)):
        shares[q] = gradient[q] / (height * widths[q])


@fused_kernel
def spread_threes(shares, sums):
    """Sums over the windows that cover a pixel: 3 wide and 2 apart, before each share one margin.

    ``shares`` and ``sums`` hold one row behind the other, each row of shares with a zero behind it,
    and one zero stands before the first. An even pixel, counted from the padding's border, lies in
    two windows or beside the first or last one, an odd one in the middle of one.
    """
    one, two = unsigned(1), unsigned(2)
    for j in range(unsigned(shares.size - 1)):
        before, behind = shares[j], shares[j + one]
        sums[two * j] = before + behind
        sums[two * j + one] = behind


@fused_kernel
def spread_runs(shares, length, stride, sums):
    """sums[q * stride : q * stride + length] += shares[q]."""
    for k in range(length):
        for q in range(unsigned(shares.size)):
            sums[unsigned(k) + unsigned(stride) * q] += shares[q]


@fused_kernel
def add_rows(sums, length, first, last, row):
    """Row = sum of rows first to last of ``sums``, each ``length`` from the next."""
    if first == last:
        a = unsigned(first * length)
        for w in range(unsigned(row.size)):
            row[w] = sums[a + w]
    elif first + 1 == last:
        a, b = unsigned(first * length), unsigned(last * length)
        for w in range(unsigned(row.size)):
            row[w] = sums[a + w] + sums[b + w]
    else:
        for w in range(unsigned(row.size)):
            row[w] = 0
        for p in range(first, last + 1):
            a = unsigned(p * length)
            for w in range(unsigned(row.size)):
                row[w] += sums[a + w]


@parallel_kernel
def _ave_pool_backward(d_y, kernel, stride, pad, heights, widths, memory, length, d_x):
    """Along the lines of windows first, to lines of ``length`` pixels, then down the columns."""
    N, C, H, _ = d_x.shape
    P, Q = d_y.shape[2:]
    threes = kernel[1] == 3 and stride[1] == 2
    each = Q + 1
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        thread = get_thread_id()
        shares, sums = memory[thread, 0, : 1 + P * each], memory[thread, 1, : P * length]
        shares[0] = 0
        for p in range(P):
            at = 1 + p * each
            shares_of(d_y[n, c, p], heights[p], widths, shares[at : at + Q])
            shares[at + Q] = 0
        if threes:
            spread_threes(shares, sums)
        else:
            sums[:] = 0
            for p in range(P):
                at, to = 1 + p * each, p * length
                run = shares[at : at + Q]
                spread_runs(run, kernel[1], stride[1], sums[to : to + length])
        inside = sums[pad[1] :]
        for h in range(H):
            first = max(0, (h + pad[0] - kernel[0]) // stride[0] + 1)
            last = min(P - 1, (h + pad[0]) // stride[0])
            add_rows(inside, length, first, last, d_x[n, c, h])


def ave_pool_forward(x, kernel, stride, pad, y) -> None:
    """Mean of each window; see the reference."""
    x = np.ascontiguousarray(x)
    heights, widths = _clipped(x, kernel, stride, pad, y)
    if micro.applies(kernel, stride, x, y, places=None):
        micro.mean_forward(x, kernel, stride, pad, np.outer(heights, widths), y)
        return
    length = max(pad[1] + x.shape[3], (y.shape[3] - 1) * stride[1] + kernel[1])
    lines = jit.lines("lines", length, x.dtype)
    _ave_pool_forward(x, kernel, stride, pad, heights, widths, lines, y)


def _clipped(x, kernel, stride, pad, y) -> list[np.ndarray]:
    """Heights and widths of the windows, of which the last may hang over the padding."""
    lengths = []
    for size, k, s, p, windows in zip(x.shape[2:], kernel, stride, pad, y.shape[2:], strict=True):
        first = np.arange(windows) * s - p
        lengths.append((np.minimum(first + k, size + p) - first).astype(x.dtype))
    return lengths


def ave_pool_backward(d_y, kernel, stride, pad, d_x) -> None:
    """Spread each gradient evenly over its window; see the reference."""
    heights, widths = _clipped(d_x, kernel, stride, pad, d_y)
    d_y = np.ascontiguousarray(d_y)
    if micro.applies(kernel, stride, d_y, d_x, places=None):
        micro.mean_backward(d_y, kernel, stride, pad, np.outer(heights, widths), d_x)
        return
    P, Q = d_y.shape[2:]
    if kernel[1] == 3 and stride[1] == 2:
        length = 2 * (Q + 1)  # two pixels for each share, and for the zero behind them
    else:
        length = max((Q - 1) * stride[1] + kernel[1], pad[1] + d_x.shape[3])
    memory = jit.lines("lines", max(P * length, 1 + P * (Q + 1)), d_x.dtype, each=2)
    _ave_pool_backward(d_y, kernel, stride, pad, heights, widths, memory, length, d_x)
