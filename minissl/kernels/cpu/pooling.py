"""Max and average pooling; a thread owns whole planes (one channel of one image).

Windows are pooled in two steps: down the columns of a band of rows, which leaves one line as long
as the image is wide, then along that line. The first step and the usual cases of the second are
vector code. The gradient of the mean takes the two steps the other way round, and gathers: every
pixel sums the shares of the windows that cover it.

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

#: where a pixel outside the image would be: behind all others
NOWHERE = np.iinfo(np.int32).max


# --- the maximum, for inference ---


@kernel
def beats(b, a):
    """Whether b is larger than a; NaN beats everything, so that it is not lost."""
    return (b > a) | (b != b)


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


# --- the maximum and where it was, for training ---


@fused_kernel
def largest_of_halves(image, W, P, Q, out, where):
    """Pool one plane by windows of 2 x 2: of two pixels the larger, of two winners the larger."""
    one, two, right, down = unsigned(1), unsigned(2), np.int32(1), np.int32(W)
    W = unsigned(W)
    for p in range(unsigned(P)):
        top, line = two * p * W, p * unsigned(Q)
        for q in range(unsigned(Q)):
            corner = top + two * q
            a, b = image[corner], image[corner + one]
            c, d = image[corner + W], image[corner + W + one]
            at = np.int32(corner)
            is_right, below_is_right = beats(b, a), beats(d, c)
            best, index = b if is_right else a, at + right if is_right else at
            other = d if below_is_right else c
            below = at + down + right if below_is_right else at + down
            is_below = beats(other, best)
            out[line + q] = other if is_below else best
            where[line + q] = below if is_below else index


@parallel_kernel
def _max_pool_halves(x, y, argmax):
    """Windows of 2 x 2 that lie side by side, the usual case: no bounds, no inner loops."""
    N, C, _, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        largest_of_halves(image, W, P, Q, out, where)


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
    more = beats(value, best) | ((value == best) & (at < index))
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
    x = np.ascontiguousarray(x)
    H, W = x.shape[2:]
    P, Q = y.shape[2:]
    if argmax is None:
        lines = _lines("lines", x, kernel, stride, pad, Q, x.dtype)
        _max_pool_values(x, kernel, stride, pad, lines, y)
    elif tuple(kernel) == tuple(stride) == (2, 2) and not any(pad) and 2 * P <= H and 2 * Q <= W:
        _max_pool_halves(x, y, argmax)
    else:
        lines = _lines("lines", x, kernel, stride, pad, Q, x.dtype)
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


# --- the mean ---


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


def max_pool_backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; see the reference."""
    _max_pool_backward(np.ascontiguousarray(d_y), argmax, d_x)


def ave_pool_forward(x, kernel, stride, pad, y) -> None:
    """Mean of each window; see the reference."""
    x = np.ascontiguousarray(x)
    heights, widths = _clipped(x, kernel, stride, pad, y)
    lines = _lines("lines", x, kernel, stride, pad, y.shape[3], x.dtype)
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
    P, Q = d_y.shape[2:]
    if kernel[1] == 3 and stride[1] == 2:
        length = 2 * (Q + 1)  # two pixels for each share, and for the zero behind them
    else:
        length = max((Q - 1) * stride[1] + kernel[1], pad[1] + d_x.shape[3])
    memory = jit.lines("lines", max(P * length, 1 + P * (Q + 1)), d_x.dtype, each=2)
    d_y = np.ascontiguousarray(d_y)
    _ave_pool_backward(d_y, kernel, stride, pad, heights, widths, memory, length, d_x)
