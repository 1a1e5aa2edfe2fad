"""Compressed sparse rows times a dense matrix, blocked for registers and caches.

The dense matrix (K, n) is copied into *panels*, runs of 64 columns (32 or 16 at the end)::

    A (F x K), sparse              x (K x n)
    [ . a . . b ]            [ 0 .. 63 | 64 .. 127 | ... ]  row 0
    [ c . . . . ]     @      [ 0 .. 63 | 64 .. 127 | ... ]  row 1
                              panel 0    panel 1            ...

A panel is contiguous and stays in the second-level cache while all rows of A are multiplied by it.
One row of A makes a run of 64 results, which are four vectors of the widest registers and stay in
them while the row's non-zeros pass, eight at a time. The width of a panel is a constant of the
compiled loop, which therefore becomes vector instructions without a remainder.

A matrix of few columns (one image, in an inner product) is bound by reading A instead; there every
row is a gathered dot product.

Threads take shares of the rows that hold equally many non-zeros. Every result is made by one
thread, in an order that the non-zeros of its row decide: it never depends on how many there are.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    fused_kernel,
    get_thread_id,
    kernel,
    lane_kernel,
    parallel_kernel,
    prange,
    scratch,
    unsigned,
)
from minissl.kernels.cpu.stages import ALL, MULTIPLY, SCATTER

#: columns of a panel
WIDE, HALF, NARROW = 64, 32, 16
#: a matrix of fewer columns is multiplied column by column
FEW = 4
#: rows whose results are collected before they are written
ROWS = 16
#: panels and shares of rows together make at least this many tasks
TASKS = 32
#: bytes of the panels that are filled together: a part of a common third-level cache
PANEL_BYTES = 4 * 1024 * 1024


# --- the arithmetic ---


@lane_kernel
def sparse_dot(values, columns, x):
    """Sum of values[j] * x[columns[j]]."""
    total = x.dtype.type(0)
    for j in range(unsigned(values.size)):
        total += values[j] * x[unsigned(columns[j])]
    return total


def _rows_of_width(width):
    """Make the kernel that multiplies rows by a panel of ``width`` columns."""
    width, EIGHT = unsigned(width), unsigned(8)
    j1, j2, j3, j4, j5, j6, j7 = (unsigned(i) for i in range(1, 8))

    @fused_kernel
    def multiply(values, columns, row_start, first, last, panel, count, tile):
        """tile[f - first] = sum of values[j] * panel[columns[j]], rows first .. last-1.

        ``count`` is the width as well, but the compiler does not know: a short loop of a known
        length would be unrolled into single numbers.
        """
        for f in range(first, last):
            at = unsigned(f - first) * width
            for i in range(width):
                tile[at + i] = 0
            start, stop = unsigned(row_start[f]), unsigned(row_start[f + 1])
            whole = start + (stop - start) // EIGHT * EIGHT
            for j in range(start, whole, EIGHT):
                v0, v1, v2, v3 = values[j], values[j + j1], values[j + j2], values[j + j3]
                v4, v5, v6, v7 = values[j + j4], values[j + j5], values[j + j6], values[j + j7]
                x0 = unsigned(columns[j]) * width
                x1 = unsigned(columns[j + j1]) * width
                x2 = unsigned(columns[j + j2]) * width
                x3 = unsigned(columns[j + j3]) * width
                x4 = unsigned(columns[j + j4]) * width
                x5 = unsigned(columns[j + j5]) * width
                x6 = unsigned(columns[j + j6]) * width
                x7 = unsigned(columns[j + j7]) * width
                for i in range(width):
                    tile[at + i] += (
                        v0 * panel[x0 + i]
                        + v1 * panel[x1 + i]
                        + v2 * panel[x2 + i]
                        + v3 * panel[x3 + i]
                        + v4 * panel[x4 + i]
                        + v5 * panel[x5 + i]
                        + v6 * panel[x6 + i]
                        + v7 * panel[x7 + i]
                    )
            for j in range(whole, stop):
                value = values[j]
                source = unsigned(columns[j]) * width
                for i in range(unsigned(count)):
                    tile[at + i] += value * panel[source + i]

    return multiply


_multiply_wide = _rows_of_width(WIDE)
_multiply_half = _rows_of_width(HALF)
_multiply_narrow = _rows_of_width(NARROW)


# --- the division of work ---


@kernel
def share(row_start, first, last, part, parts):
    """First row of a part, when rows first .. last-1 are divided into parts of equal work.

    The work of a row is its non-zeros and one more, for writing it.
    """
    begin = row_start[first] + first
    target = begin + part * (row_start[last] + last - begin) // parts
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if row_start[middle] + middle < target:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def panel_width(columns):
    """Width of the panel that holds the last columns: the narrowest that does."""
    return NARROW if columns <= NARROW else HALF if columns <= HALF else WIDE


@fused_kernel
def fill_row(run, k, K, panels):
    """Copy row k of the dense matrix into all panels, and zeros beyond its last column."""
    for first in range(0, run.size, WIDE):
        count = min(WIDE, run.size - first)
        width = panel_width(count)
        at = unsigned(first * K + k * width)
        start = unsigned(first)
        for i in range(unsigned(count)):
            panels[at + i] = run[start + i]
        for i in range(unsigned(count), unsigned(width)):
            panels[at + i] = 0


@fused_kernel
def fill_from_images(x, first_k, last_k, panels):
    """Copy some columns of x (n, K), which are rows of the dense matrix, into all panels."""
    n, K = x.shape
    for first in range(0, n, WIDE):
        count = min(WIDE, n - first)
        width = panel_width(count)
        for k in range(first_k, last_k, NARROW):  # as much as the first-level cache holds
            end = min(k + NARROW, last_k)
            for i in range(count):
                source = x[first + i]
                at = unsigned(first * K + i)
                for kk in range(unsigned(k), unsigned(end)):
                    panels[at + kk * unsigned(width)] = source[kk]
            for i in range(count, width):
                at = unsigned(first * K + i)
                for kk in range(unsigned(k), unsigned(end)):
                    panels[at + kk * unsigned(width)] = 0


@kernel
def write_tile(tile, width, first, last, b, column, count, y):
    """Add the bias to rows first .. last-1 of a tile, and write them to y (images, F, pixels).

    Column j of the product is pixel j % pixels of image j // pixels.
    """
    pixels = y.shape[2]
    if pixels == 1:
        for i in range(count):
            for f in range(first, last):
                y[column + i, f, 0] = tile[unsigned((f - first) * width + i)] + b[f]
        return
    for f in range(first, last):
        done = 0
        while done < count:
            image, pixel = (column + done) // pixels, (column + done) % pixels
            run = min(pixels - pixel, count - done)
            source, target = tile[(f - first) * width + done :], y[image, f, pixel:]
            for i in range(unsigned(run)):
                target[i] = source[i] + b[f]
            done += run


@kernel
def multiply_share(task, parts, matrix, first, last, b, K, n, panels, tile, start, y, stages):
    """Multiply one share of the rows first .. last-1 of A by one panel, and write the result.

    Parameters
    ----------
    task, parts : int
        Task t is part t % parts of the rows, times panel t // parts.
    matrix : tuple
        (values, columns, row_start) of A.
    panels : 1-D
        n columns of K numbers; they belong to columns ``start`` .. ``start`` + n - 1 of y.
    y : (images, F, pixels)
    """
    values, columns, row_start = matrix
    column = task // parts * WIDE
    count = min(WIDE, n - column)
    width = panel_width(count)
    panel = panels[column * K : column * K + width * K]
    end = share(row_start, first, last, task % parts + 1, parts)
    for f in range(share(row_start, first, last, task % parts, parts), end, ROWS):
        stop = min(f + ROWS, end)
        if stages & MULTIPLY:
            if width == WIDE:
                _multiply_wide(values, columns, row_start, f, stop, panel, width, tile)
            elif width == HALF:
                _multiply_half(values, columns, row_start, f, stop, panel, width, tile)
            else:
                _multiply_narrow(values, columns, row_start, f, stop, panel, width, tile)
        if stages & SCATTER:
            write_tile(tile, width, f, stop, b, start + column, count, y)


@kernel
def task_count(n):
    """How many tasks n columns make (panels times parts of the rows), and how many parts."""
    panels = (n + WIDE - 1) // WIDE
    parts = (TASKS + panels - 1) // panels
    return panels * parts, parts


@parallel_kernel
def _few_columns(x, matrix, b, y):
    """Each row of A is read once for all columns; x is (n, K), y is (images, F, pixels)."""
    values, columns, row_start = matrix
    F, pixels = y.shape[1:]
    for part in prange(TASKS):
        end = share(row_start, 0, F, part + 1, TASKS)
        for f in range(share(row_start, 0, F, part, TASKS), end):
            own = slice(row_start[f], row_start[f + 1])
            for i in range(x.shape[0]):
                total = sparse_dot(values[own], columns[own], x[i])
                y[i // pixels, f, i % pixels] = total + b[f]


@parallel_kernel
def _many_columns(x, by_image, matrix, b, wave, panels, tiles, y):
    """The product, ``wave`` columns (a multiple of 64) at a time.

    x is (K, n), or (n, K) where it is ``by_image``; y is (images, F, pixels).
    """
    K, n = x.shape
    if by_image:
        n, K = x.shape
    F = y.shape[1]
    for start in range(0, n, wave):
        here = min(wave, n - start)
        tasks, parts = task_count(here)
        for slab in prange(PARTS):
            first, last = slab * K // PARTS, (slab + 1) * K // PARTS
            if by_image:
                fill_from_images(x[start : start + here], first, last, panels)
            else:
                for k in range(first, last):
                    fill_row(x[k, start : start + here], k, K, panels)
        for task in prange(tasks):
            tile = tiles[get_thread_id()]
            multiply_share(task, parts, matrix, 0, F, b, K, here, panels, tile, start, y, ALL)


# --- the kernels ---


def panel_buffers(K: int, n: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Scratch memory: panels for n columns, shared, and a tile of results for every thread."""
    panels = scratch("lowered", (K * -(-n // WIDE) * WIDE,), dtype)
    return panels, scratch("outputs", (config.NUMBA_NUM_THREADS, ROWS * WIDE), dtype)


def _product(x, by_image, matrix, b, y) -> None:
    """Y = A @ x + b; see :func:`_many_columns` for the shapes."""
    x = np.ascontiguousarray(x)
    n, K = x.shape if by_image else x.shape[::-1]
    if n < FEW:
        _few_columns(x if by_image else np.ascontiguousarray(x.T), matrix, b, y)
        return
    wave = WIDE * max(1, PANEL_BYTES // max(1, K * WIDE * x.itemsize))
    panels, tiles = panel_buffers(K, min(n, wave), x.dtype)
    _many_columns(x, by_image, matrix, b, wave, panels, tiles, y)


def csr_times_dense(values, columns, row_start, x, y) -> None:
    """Y = A @ x; see the reference."""
    b = np.zeros(y.shape[0], y.dtype)
    _product(x, False, (values, columns, row_start), b, y[None])


def inner_product_csr(x, values, columns, row_start, b, y) -> None:
    """Y = x @ A^T + b; see the reference."""
    _product(x, True, (values, columns, row_start), b, y[:, :, None])
