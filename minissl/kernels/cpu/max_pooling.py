"""Max pooling; a thread owns whole planes (one channel of one image).

Vectors go through the windows where they can (:mod:`minissl.kernels.cpu.micro.plane_pooling`). The
loops here do it elsewhere, in two steps: down the columns of a band of rows, which leaves one line
as long as the image is wide, then along that line.

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu import jit
from minissl.kernels.cpu.jit import (
    fused_kernel,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    unsigned,
)
from minissl.kernels.cpu.micro import plane_pooling as micro

#: where a pixel outside the image would be: behind all others
NOWHERE = np.iinfo(np.int32).max


# --- values only, for inference ---


@kernel
def beats(b, a):
    """Whether b is larger than a, or NaN where a is not; so NaN is not lost, and the first wins."""
    return (b > a) | ((b != b) & (a == a))


@kernel
def larger(a, b):
    """The larger of two; the first when they are equal."""
    return b if beats(b, a) else a


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


# --- values and where they were, for training ---


@fused_kernel
def largest_of_rows_and_where(image, W, top, bottom, line, where):
    """As :func:`largest_of_rows`; where[w] is the index of the first of the largest pixels."""
    if bottom - top == 3:
        a, b, c = top * W, (top + 1) * W, (top + 2) * W
        for w in range(unsigned(W)):
            best, at = image[unsigned(a) + w], np.int32(a + np.int64(w))
            value = image[unsigned(b) + w]
            more = beats(value, best)
            best, at = value if more else best, np.int32(b + np.int64(w)) if more else at
            value = image[unsigned(c) + w]
            more = beats(value, best)
            line[w] = value if more else best
            where[w] = np.int32(c + np.int64(w)) if more else at
        return
    row = top * W
    for w in range(unsigned(W)):
        line[w] = image[unsigned(row) + w]
        where[w] = np.int32(row + np.int64(w))
    for h in range(top + 1, bottom):
        row = h * W
        for w in range(unsigned(W)):
            value = image[unsigned(row) + w]
            more = beats(value, line[w])
            line[w] = value if more else line[w]
            where[w] = np.int32(row + np.int64(w)) if more else where[w]


@kernel
def first_largest(value, at, best, index):
    """Of two pixels the larger, of equals the first; with its index."""
    more = beats(value, best) | (not beats(best, value) and at < index)
    return value if more else best, at if more else index


@kernel
def first_largest_of_three(line, place, at):
    """The winner of line[at : at + 3] and its index."""
    middle, last = at + unsigned(1), at + unsigned(2)
    best, index = first_largest(line[middle], place[middle], line[at], place[at])
    return first_largest(line[last], place[last], best, index)


@fused_kernel
def largest_of_runs_and_where(line, place, length, stride, out, where):
    """As :func:`largest_of_runs`; ``place`` holds the indices of the line's pixels."""
    if length == 3 and stride == 2:
        for q in range(unsigned(out.size)):
            out[q], where[q] = first_largest_of_three(line, place, unsigned(2) * q)
    elif length == 3 and stride == 1:
        for q in range(unsigned(out.size)):
            out[q], where[q] = first_largest_of_three(line, place, q)
    else:
        for q in range(unsigned(out.size)):
            at = unsigned(stride) * q
            best, index = line[at], place[at]
            for k in range(unsigned(1), unsigned(length)):
                best, index = first_largest(line[at + k], place[at + k], best, index)
            out[q], where[q] = best, index


@parallel_kernel
def _max_pool(x, kernel, stride, pad, lines, places, y, argmax):
    """Values and indices; beyond the ends of a line stands minus infinity, behind all pixels."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        thread = get_thread_id()
        line, place = lines[thread, 0], places[thread, 0]
        line[:] = -np.inf
        place[:] = NOWHERE
        left, right = pad[1], pad[1] + W
        for p in range(P):
            top = p * stride[0] - pad[0]
            top, bottom = max(top, 0), min(top + kernel[0], H)
            largest_of_rows_and_where(image, W, top, bottom, line[left:right], place[left:right])
            a, b = p * Q, (p + 1) * Q
            largest_of_runs_and_where(line, place, kernel[1], stride[1], out[a:b], where[a:b])


def _lines(name, x, kernel, stride, pad, Q, dtype):
    """Scratch of every thread: a line of W pixels between margins, as long as its windows reach."""
    length = max(pad[1] + x.shape[3], (Q - 1) * stride[1] + kernel[1])
    return jit.lines(name, length, dtype)


def max_pool_forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was; see the reference."""
    x, Q = np.ascontiguousarray(x), y.shape[3]
    if micro.applies(kernel, stride, x, y, places=argmax):
        micro.max_forward(x, kernel, stride, pad, y, argmax)
        return
    lines = _lines("lines", x, kernel, stride, pad, Q, x.dtype)
    if argmax is None:
        _max_pool_values(x, kernel, stride, pad, lines, y)
    else:
        places = _lines("places", x, kernel, stride, pad, Q, np.dtype(np.int32))
        _max_pool(x, kernel, stride, pad, lines, places, y, argmax)


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


def max_pool_backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; see the reference."""
    d_y = np.ascontiguousarray(d_y)
    if micro.applies(kernel, stride, d_y, d_x, places=argmax):
        micro.max_backward(d_y, argmax, kernel, stride, pad, d_x)
    else:
        _max_pool_backward(d_y, argmax, d_x)
