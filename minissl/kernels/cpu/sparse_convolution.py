"""Convolution with sparse weights by lowering: compressed rows, and concatenated rows and columns.

Parallel over chunks of images, or of output rows of one image, as in
:mod:`minissl.kernels.cpu.convolution`. P x Q output pixels; ``cut`` is (B, R, Q); ``width`` is the
number of columns of a chunk's lowered matrix.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.activations import rectified
from minissl.kernels.cpu.convolution import (
    add_bias,
    chunk_at,
    chunk_buffers,
    chunks_of,
    every,
    images_per_chunk,
    lower_chunk,
    rows_per_chunk,
)
from minissl.kernels.cpu.jit import get_thread_id, kernel, parallel_kernel, prange
from minissl.kernels.cpu.stages import ALL, LOWER, MULTIPLY, SCATTER


@kernel
def sparse_row(values, columns, col, out):
    """Out = sum over j of values[j] * col[columns[j]], four non-zeros in each pass over ``out``."""
    width = out.size
    out[:] = 0
    whole = values.size // 4 * 4
    for j in range(0, whole, 4):
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        c0, c1 = col[columns[j]], col[columns[j + 1]]
        c2, c3 = col[columns[j + 2]], col[columns[j + 3]]
        for i in range(width):
            out[i] += v0 * c0[i] + v1 * c1[i] + v2 * c2[i] + v3 * c3[i]
    for j in range(whole, values.size):
        value = values[j]
        source = col[columns[j]]
        for i in range(width):
            out[i] += value * source[i]


@parallel_kernel
def _csrmm(x, values, columns, row_start, b, geometry, groups, cut, cols, outs, relu, y, stages):
    """Run all chunks; y is (N, F, P*Q)."""
    N, C = x.shape[:2]
    filters = b.size // groups
    channels = C // groups
    K = channels * geometry[0] * geometry[1]
    all_columns = every(K)
    Q = cut[2]
    P = y.shape[2] // Q
    for chunk in prange(chunks_of(N, P, cut)):
        thread = get_thread_id()
        first, images, row, begin, end = chunk_at(chunk, N, P, cut)
        pixels = end - begin
        width = images * pixels
        col = cols[thread, : K * width].reshape(K, width)
        out = outs[thread, :width]
        for g in range(groups):
            if stages & LOWER:
                lower_chunk(
                    x,
                    all_columns,
                    first,
                    images,
                    g * channels,
                    channels,
                    geometry,
                    row,
                    Q,
                    pixels,
                    col,
                )
            for f in range(g * filters, (g + 1) * filters):
                if stages & MULTIPLY:
                    own = slice(row_start[f], row_start[f + 1])
                    sparse_row(values[own], columns[own], col, out)
                if stages & SCATTER:
                    for i in range(images):
                        source = out[i * pixels : (i + 1) * pixels]
                        add_bias(source, b[f], relu, y[first + i, f, begin:end])


@kernel
def left_out(rows, filters):
    """Filters that are not in ``rows``."""
    is_removed = np.ones(filters, np.bool_)
    for row in rows:
        is_removed[row] = False
    return np.flatnonzero(is_removed)


@parallel_kernel
def _ccnmm(x, packing, b, geometry, cut, cols, outs, relu, y, stages):
    """Run all chunks; y is (N, F, P*Q).

    ``packing`` is (values, rows, row_start, columns, column_start): the packed matrices, and the
    kept rows and columns of each group.
    """
    values, rows, row_start, columns, column_start = packing
    removed = left_out(rows, b.size)
    N, C = x.shape[:2]
    groups = row_start.size - 1
    channels = C // groups
    Q = cut[2]
    P = y.shape[2] // Q
    for chunk in prange(chunks_of(N, P, cut)):
        thread = get_thread_id()
        first, images, row, begin, end = chunk_at(chunk, N, P, cut)
        pixels = end - begin
        width = images * pixels
        start = 0
        for g in range(groups):
            kept_rows = rows[row_start[g] : row_start[g + 1]]
            kept = columns[column_start[g] : column_start[g + 1]]
            packed = values[start : start + kept_rows.size * kept.size]
            start += packed.size
            if packed.size == 0:
                continue
            col = cols[thread, : kept.size * width].reshape(kept.size, width)
            out = outs[thread, : kept_rows.size * width].reshape(kept_rows.size, width)
            if stages & LOWER:
                lower_chunk(
                    x, kept, first, images, g * channels, channels, geometry, row, Q, pixels, col
                )
            if stages & MULTIPLY:
                np.dot(packed.reshape(kept_rows.size, kept.size), col, out)
            if stages & SCATTER:
                for i in range(images):
                    for j in range(kept_rows.size):
                        source = out[j][i * pixels : (i + 1) * pixels]
                        f = kept_rows[j]
                        add_bias(source, b[f], relu, y[first + i, f, begin:end])
        if stages & SCATTER:
            for i in range(images):
                for f in removed:
                    y[first + i, f, begin:end] = rectified(b[f]) if relu else b[f]


def conv_csrmm(
    x,
    values,
    columns,
    row_start,
    b,
    kernel,
    stride,
    pad,
    dilation,
    groups,
    y,
    relu=False,
    stages=ALL,
) -> None:
    """Convolve with compressed rows; see the reference, and the stages module for ``stages``."""
    N, F, P, Q = y.shape
    K = x.shape[1] // groups * kernel[0] * kernel[1]
    cut = images_per_chunk(N, K, P * Q, x.itemsize), rows_per_chunk(K, P, Q, x.itemsize), Q
    cols, outs = chunk_buffers(cut[0], K, 1, cut[1] * Q, x.dtype)
    geometry = (*kernel, *stride, *pad, *dilation)
    x, y = np.ascontiguousarray(x), y.reshape(N, F, P * Q)
    _csrmm(x, values, columns, row_start, b, geometry, groups, cut, cols, outs, relu, y, stages)


def conv_ccnmm(
    x,
    values,
    rows,
    row_start,
    columns,
    column_start,
    b,
    kernel,
    stride,
    pad,
    dilation,
    y,
    relu=False,
    stages=ALL,
) -> None:
    """Convolve with kept rows and columns; see the reference, and the stages module."""
    N, F, P, Q = y.shape
    groups = len(row_start) - 1
    K = -(-len(columns) // groups)
    cut = images_per_chunk(N, K, P * Q, x.itemsize), rows_per_chunk(K, P, Q, x.itemsize), Q
    cols, outs = chunk_buffers(cut[0], len(columns), len(rows), cut[1] * Q, x.dtype)
    packing = (values, rows, row_start, columns, column_start)
    geometry = (*kernel, *stride, *pad, *dilation)
    x, y = np.ascontiguousarray(x), y.reshape(N, F, P * Q)
    _ccnmm(x, packing, b, geometry, cut, cols, outs, relu, y, stages)
