"""Convolution with sparse weights by lowering: compressed rows, and concatenated rows and columns.

Concatenated rows and columns run in parallel over chunks of B images, as in
:mod:`minissl.kernels.cpu.convolution`; compressed rows take one chunk after the other, each in
parallel over the tasks of :mod:`minissl.kernels.cpu.sparse_product`, and lower straight into its
panels. P x Q output pixels; ``width`` is the number of columns of a chunk's lowered matrix,
B * P * Q.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.convolution import (
    add_bias,
    chunk_buffers,
    images_per_chunk,
    lower_chunk,
)
from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    scratch,
)
from minissl.kernels.cpu.lowering import lower_row
from minissl.kernels.cpu.sparse_product import (
    PANEL_BYTES,
    fill_row,
    multiply_share,
    panel_buffers,
    task_count,
)
from minissl.kernels.cpu.stages import ALL, LOWER, MULTIPLY, SCATTER


@kernel
def lower_rows(x, first, images, channel, geometry, Q, pixels, first_k, last_k, K, run, panels):
    """Lower rows first_k .. last_k-1 of the matrix of some images into panels, by way of ``run``.

    The rows are those of the conv group that begins at a channel; ``geometry`` is explained in
    :mod:`minissl.kernels.cpu.lowering`.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    C, H, W = x.shape[1:]
    flat = x.reshape(-1)
    for k in range(first_k, last_k):
        c, r, q = k // (kh * kw), k // kw % kh, k % kw
        top, left = r * dh - ph, q * dw - pw
        for i in range(images):
            plane = ((first + i) * C + channel + c) * H * W
            lower_row(flat, plane, H, W, top, left, sh, sw, Q, pixels, run, i * pixels)
        fill_row(run[: images * pixels], k, K, panels)


@parallel_kernel
def _csrmm(x, matrix, b, geometry, groups, B, Q, panels, runs, tiles, y, stages):
    """Run B images at a time; y is (N, F, P*Q), ``panels`` hold their lowered matrix."""
    N, C = x.shape[:2]
    filters, channels = b.size // groups, C // groups
    K = channels * geometry[0] * geometry[1]
    pixels = y.shape[2]
    for first in range(0, N, B):
        images = min(B, N - first)
        width = images * pixels
        tasks, parts = task_count(width)
        for g in range(groups):
            if stages & LOWER:
                for slab in prange(PARTS):
                    run = runs[get_thread_id()]
                    first_k, last_k = slab * K // PARTS, (slab + 1) * K // PARTS
                    lower_rows(
                        x, first, images, g * channels, geometry, Q, pixels, first_k, last_k, K,
                        run, panels,
                    )  # fmt: skip
            for task in prange(tasks):
                multiply_share(
                    task, parts, matrix, g * filters, (g + 1) * filters, b, K, width, panels,
                    tiles[get_thread_id()], first * pixels, y, stages,
                )  # fmt: skip


@parallel_kernel
def _ccnmm(x, packing, b, geometry, B, Q, cols, outs, y, stages):
    """Run all chunks; y is (N, F, P*Q).

    ``packing`` is (values, rows, row_start, columns, column_start): the packed matrices, and the
    kept rows and columns of each group.
    """
    values, rows, row_start, columns, column_start = packing
    is_removed = np.ones(b.size, np.bool_)
    is_removed[rows] = False
    removed = np.flatnonzero(is_removed)
    N, C = x.shape[:2]
    groups = row_start.size - 1
    channels = C // groups
    pixels = y.shape[2]
    for chunk in prange((N + B - 1) // B):
        thread = get_thread_id()
        first = chunk * B
        images = min(B, N - first)
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
                    x, kept, first, images, g * channels, channels, geometry, Q, pixels, col
                )
            if stages & MULTIPLY:
                np.dot(packed.reshape(kept_rows.size, kept.size), col, out)
            if stages & SCATTER:
                for i in range(images):
                    for row in range(kept_rows.size):
                        source = out[row][i * pixels : (i + 1) * pixels]
                        add_bias(source, b[kept_rows[row]], y[first + i, kept_rows[row]])
        if stages & SCATTER:
            for i in range(images):
                for f in removed:
                    y[first + i, f, :] = b[f]


def conv_csrmm(
    x, values, columns, row_start, b, kernel, stride, pad, dilation, groups, y, stages=ALL
) -> None:
    """Convolve with compressed rows; see the reference, and the stages module for ``stages``."""
    N, F, P, Q = y.shape
    K = x.shape[1] // groups * kernel[0] * kernel[1]
    B = max(1, min(N, PANEL_BYTES // max(1, K * P * Q * x.itemsize)))
    panels, tiles = panel_buffers(K, B * P * Q, x.dtype)
    runs = scratch("partial", (config.NUMBA_NUM_THREADS, B * P * Q), x.dtype)
    geometry = (*kernel, *stride, *pad, *dilation)
    x, y = np.ascontiguousarray(x), y.reshape(N, F, P * Q)
    matrix = (values, columns, row_start)
    _csrmm(x, matrix, b, geometry, groups, B, Q, panels, runs, tiles, y, stages)


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
    stages=ALL,
) -> None:
    """Convolve with kept rows and columns; see the reference, and the stages module."""
    N, F, P, Q = y.shape
    groups = len(row_start) - 1
    B = images_per_chunk(N, -(-len(columns) // groups), P * Q, x.itemsize)
    cols, outs = chunk_buffers(B, len(columns), len(rows), P * Q, x.dtype)
    packing = (values, rows, row_start, columns, column_start)
    geometry = (*kernel, *stride, *pad, *dilation)
    x, y = np.ascontiguousarray(x), y.reshape(N, F, P * Q)
    _ccnmm(x, packing, b, geometry, B, Q, cols, outs, y, stages)
