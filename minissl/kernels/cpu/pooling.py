"""Max and average pooling; a thread owns whole planes (one channel of one image).

Most windows are pooled in two steps: down the columns of a band of rows, which leaves one line as
long as the image is wide, then along that line. The first step and the usual cases of the second
are vector code.

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu import jit
from minissl.kernels.cpu.jit import get_thread_id, kernel, parallel_kernel, prange, unsigned

#: where a pixel outside the image would be: behind all others
NOWHERE = np.iinfo(np.int32).max


# --- the maximum, for inference ---


@kernel
def larger(a, b):
    """The larger of two; the first when they are equal."""
    return b if b > a else a


@kernel
def largest_of_rows(image, W, top, bottom, line):
    """line[w] = largest value of column w in rows top to bottom - 1, three in the first pass."""
    last = bottom - 1
    a = unsigned(top * W)
    b = unsigned(min(top + 1, last) * W)
    c = unsigned(min(top + 2, last) * W)
    for w in range(unsigned(W)):
        line[w] = larger(larger(image[a + w], image[b + w]), image[c + w])
    for h in range(top + 3, bottom):
        row = unsigned(h * W)
        for w in range(unsigned(W)):
            line[w] = larger(line[w], image[row + w])


@kernel
def largest_of_runs(line, length, stride, out):
    """out[q] = largest value of line[q * stride : q * stride + length]."""
    one, two = unsigned(1), unsigned(2)
    if length == 3 and stride == 2:
        for q in range(unsigned(out.size)):
            at = two * q
            out[q] = larger(larger(line[at], line[at + one]), line[at + two])
    elif length == 2 and stride == 2:
        for q in range(unsigned(out.size)):
            at = two * q
            out[q] = larger(line[at], line[at + one])
    else:
        for q in range(unsigned(out.size)):
            at = unsigned(stride) * q
            best = line[at]
            for k in range(one, unsigned(length)):
                best = larger(best, line[at + k])
            out[q] = best


@parallel_kernel
def _max_pool_values(x, kernel, stride, pad, lines, y):
    """Only the values; beyond the ends of a line stands minus infinity."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out = x[n, c].reshape(-1), y[n, c].reshape(-1)
        line = lines[get_thread_id(), 0]
        line[:] = -np.inf
        inside = line[pad[1] : pad[1] + W]
        for p in range(P):
            top = p * stride[0] - pad[0]
            largest_of_rows(image, W, max(top, 0), min(top + kernel[0], H), inside)
            largest_of_runs(line, kernel[1], stride[1], out[p * Q : (p + 1) * Q])


# --- the maximum and where it was, for training ---


@kernel
def largest(image, W, top, bottom, left, right):
    """Index and value of the largest pixel of a window; ``image`` is a flat plane of width W."""
    index = unsigned(top * W + left)
    best = image[index]
    for h in range(top, bottom):
        row = unsigned(h * W)
        for w in range(unsigned(left), unsigned(right)):
            value = image[row + w]
            larger = value > best
            best = value if larger else best
            index = row + w if larger else index
    return index, best


@parallel_kernel
def _max_pool_halves(x, y, argmax):
    """Windows of 2 x 2 that lie side by side, the usual case: no bounds, no inner loops."""
    N, C, _, W = x.shape
    P, Q = unsigned(y.shape[2]), unsigned(y.shape[3])
    W = unsigned(W)
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        for p in range(P):
            top = unsigned(2) * p * W
            for q in range(Q):
                at = top + unsigned(2) * q
                a, b = image[at], image[at + unsigned(1)]
                c_, d = image[at + W], image[at + W + unsigned(1)]
                best, index = a, at
                index = at + unsigned(1) if b > best else index
                best = b if b > best else best
                index = at + W if c_ > best else index
                best = c_ if c_ > best else best
                index = at + W + unsigned(1) if d > best else index
                best = d if d > best else best
                out[p * Q + q] = best
                where[p * Q + q] = index


@kernel
def largest_of_rows_and_where(image, W, top, bottom, line, where):
    """As :func:`largest_of_rows`; where[w] is the index of the first of the largest pixels."""
    row = top * W
    for w in range(unsigned(W)):
        line[w] = image[unsigned(row) + w]
        where[w] = np.int32(row + np.int64(w))
    for h in range(top + 1, bottom):
        row = h * W
        for w in range(unsigned(W)):
            value = image[unsigned(row) + w]
            more = value > line[w]
            line[w] = value if more else line[w]
            where[w] = np.int32(row + np.int64(w)) if more else where[w]


@kernel
def comes_first(value, at, best, index):
    """Whether a pixel is the winner: larger than the best so far, or its equal and before it."""
    return (value > best) | ((value == best) & (at < index))


@parallel_kernel
def _max_pool_threes(x, rows, stride, pad, lines, places, y, argmax):
    """Windows 3 wide and 2 apart, ``rows`` high, AlexNet's."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        thread = get_thread_id()
        line, place = lines[thread, 0], places[thread, 0]
        line[:] = -np.inf
        place[:] = NOWHERE
        inside = slice(pad[1], pad[1] + W)
        for p in range(P):
            top = p * stride - pad[0]
            top, bottom = max(top, 0), min(top + rows, H)
            largest_of_rows_and_where(image, W, top, bottom, line[inside], place[inside])
            first = unsigned(p * Q)
            for q in range(unsigned(Q)):
                at = unsigned(2) * q
                best, index = line[at], place[at]
                value, other = line[at + unsigned(1)], place[at + unsigned(1)]
                more = comes_first(value, other, best, index)
                best, index = value if more else best, other if more else index
                value, other = line[at + unsigned(2)], place[at + unsigned(2)]
                more = comes_first(value, other, best, index)
                out[first + q] = value if more else best
                where[first + q] = other if more else index


@parallel_kernel
def _max_pool_forward(x, kernel, stride, pad, y, argmax):
    """Find the winner of every window of every plane; x is C-contiguous."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c], argmax[n, c]
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H)
            top = max(top, 0)
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W)
                index, best = largest(image, W, top, bottom, max(left, 0), right)
                out[p, q] = best
                where[p, q] = index


def _lines(name, x, kernel, stride, pad, Q, dtype):
    """Scratch of every thread: a line of W pixels between margins, as long as its windows reach."""
    length = max(pad[1] + x.shape[3], (Q - 1) * stride[1] + kernel[1])
    return jit.lines(name, length, dtype)


def max_pool_forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was; see the reference."""
    x = np.ascontiguousarray(x)
    H, W = x.shape[2:]
    P, Q = y.shape[2:]
    if argmax is None:
        lines = _lines("lines", x, kernel, stride, pad, Q, x.dtype)
        _max_pool_values(x, kernel, stride, pad, lines, y)
    elif tuple(kernel) == tuple(stride) == (2, 2) and not any(pad) and 2 * P <= H and 2 * Q <= W:
        _max_pool_halves(x, y, argmax)
    elif kernel[1] == 3 and stride[1] == 2:
        lines = _lines("lines", x, kernel, stride, pad, Q, x.dtype)
        places = _lines("places", x, kernel, stride, pad, Q, np.dtype(np.int32))
        _max_pool_threes(x, kernel[0], stride[0], pad, lines, places, y, argmax)
    else:
        _max_pool_forward(x, kernel, stride, pad, y, argmax)


@parallel_kernel
def _max_pool_backward(d_y, argmax, d_x):
    N, C = d_x.shape[:2]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        target = d_x[n, c].reshape(-1)
        source, where = d_y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        target[:] = 0
        for i in range(source.size):
            target[where[i]] += source[i]


# --- the mean ---


@kernel
def sum_of_rows(image, W, top, bottom, line):
    """line[w] = sum of column w over rows top to bottom - 1."""
    row = unsigned(top * W)
    for w in range(unsigned(W)):
        line[w] = image[row + w]
    for h in range(top + 1, bottom):
        row = unsigned(h * W)
        for w in range(unsigned(W)):
            line[w] += image[row + w]


@kernel
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


@parallel_kernel
def _ave_pool_backward(d_y, kernel, stride, pad, d_x):
    N, C, H, W = d_x.shape
    P, Q = d_y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        target, source = d_x[n, c], d_y[n, c]
        target[:, :] = 0
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H + pad[0])
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W + pad[1])
                share = source[p, q] / ((bottom - top) * (right - left))
                for h in range(max(top, 0), min(bottom, H)):
                    for w in range(max(left, 0), min(right, W)):
                        target[h, w] += share


def max_pool_backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; see the reference."""
    _max_pool_backward(np.ascontiguousarray(d_y), argmax, d_x)


def ave_pool_forward(x, kernel, stride, pad, y) -> None:
    """Mean of each window; see the reference."""
    x = np.ascontiguousarray(x)
    heights, widths = (
        _clipped(*axis).astype(x.dtype)
        for axis in zip(x.shape[2:], kernel, stride, pad, y.shape[2:], strict=True)
    )
    lines = _lines("lines", x, kernel, stride, pad, y.shape[3], x.dtype)
    _ave_pool_forward(x, kernel, stride, pad, heights, widths, lines, y)


def _clipped(size, kernel, stride, pad, windows) -> np.ndarray:
    """Lengths of the windows along one axis, of which the last may hang over the padding."""
    first = np.arange(windows) * stride - pad
    return np.minimum(first + kernel, size + pad) - first


def ave_pool_backward(d_y, kernel, stride, pad, d_x) -> None:
    """Spread each gradient evenly over its window; see the reference."""
    _ave_pool_backward(np.ascontiguousarray(d_y), kernel, stride, pad, d_x)
