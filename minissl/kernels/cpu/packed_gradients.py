"""Gradients of a convolution whose zero rows and columns are left out: LOWERED_CCNMM backward.

The rows and columns that are frozen at zero take part in nothing, so that fine-tuning a sparse
network costs what its packed matrices cost:

    weights        d_packed += d_y[kept rows] @ col[kept columns]^T
    input          d_col     = packed^T @ d_y[kept rows], raised at the kept columns only

Parallel over chunks of B images, as in :mod:`minissl.kernels.cpu.convolution`. N images, P x Q
output pixels; ``packing`` is what :mod:`minissl.kernels.cpu.sparse_convolution` says.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.convolution import (
    accumulate,
    chunk_buffers,
    copy,
    images_per_chunk,
    lower_chunk,
)
from minissl.kernels.cpu.jit import (
    PARTS,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    scratch,
)
from minissl.kernels.cpu.lowering import raise_image


@kernel
def gather_rows(d_y, first, images, rows, pixels, d_out):
    """Bring the gradients of some filters of a chunk into one matrix (rows, images * P*Q)."""
    for row in range(rows.size):
        for i in range(images):
            copy(d_y[first + i, rows[row]], d_out[row][i * pixels : (i + 1) * pixels])


@parallel_kernel
def _backward_weights(x, d_y, packing, geometry, B, Q, cols, outs, partial):
    """Part p of the sum takes chunks p, p + PARTS, ...; partial is (PARTS, values)."""
    _, rows, row_start, columns, column_start = packing
    N, C = x.shape[:2]
    groups = row_start.size - 1
    channels = C // groups
    pixels = d_y.shape[2]
    parts = partial.shape[0]
    for part in prange(parts):
        thread = get_thread_id()
        partial[part] = 0
        product = outs[thread, rows.size * B * pixels :]
        for chunk in range(part, (N + B - 1) // B, parts):
            first = chunk * B
            images = min(B, N - first)
            width = images * pixels
            start = 0
            for g in range(groups):
                kept_rows = rows[row_start[g] : row_start[g + 1]]
                kept = columns[column_start[g] : column_start[g + 1]]
                size = kept_rows.size * kept.size
                if size == 0:
                    continue
                col = cols[thread, : kept.size * width].reshape(kept.size, width)
                d_out = outs[thread, : kept_rows.size * width].reshape(kept_rows.size, width)
                lower_chunk(
                    x, kept, first, images, g * channels, channels, geometry, 0, Q, pixels, col
                )
                gather_rows(d_y, first, images, kept_rows, pixels, d_out)
                np.dot(d_out, col.T, product[:size].reshape(kept_rows.size, kept.size))
                accumulate(product[:size], partial[part, start : start + size])
                start += size


@parallel_kernel
def _backward_input(d_y, packing, geometry, B, Q, cols, outs, d_x):
    """See the module's picture; d_y is (N, F, P*Q)."""
    values, rows, row_start, columns, column_start = packing
    N, C = d_x.shape[:2]
    groups = row_start.size - 1
    channels = C // groups
    pixels = d_y.shape[2]
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
                d_x[first : first + images, g * channels : (g + 1) * channels] = 0
                continue
            d_col = cols[thread, : kept.size * width].reshape(kept.size, width)
            d_out = outs[thread, : kept_rows.size * width].reshape(kept_rows.size, width)
            gather_rows(d_y, first, images, kept_rows, pixels, d_out)
            np.dot(packed.reshape(kept_rows.size, kept.size).T, d_out, d_col)
            for i in range(images):
                target = d_x[first + i, g * channels : (g + 1) * channels]
                raise_image(d_col, kept, i * pixels, geometry, Q, pixels, target)


def conv_ccnmm_backward_weights(
    x, d_y, rows, row_start, columns, column_start, kernel, stride, pad, dilation, d_values
) -> None:
    """Gradient of the packed matrices; see the reference."""
    N, F, P, Q = d_y.shape
    B = images_per_chunk(N, max(1, np.diff(column_start).max()), P * Q, x.itemsize)
    extra = d_values.size
    cols, outs = chunk_buffers(B, len(columns), len(rows), P * Q, x.dtype, extra)
    parts = min(PARTS, -(-N // B))
    partial = scratch("partial", (parts, d_values.size), x.dtype)
    packing = (d_values, rows, row_start, columns, column_start)
    geometry = (*kernel, *stride, *pad, *dilation)
    x, d_y = np.ascontiguousarray(x), d_y.reshape(N, F, P * Q)
    _backward_weights(x, d_y, packing, geometry, B, Q, cols, outs, partial)
    d_values[...] = 0
    for part in partial:
        d_values += part


def conv_ccnmm_backward_input(
    d_y, values, rows, row_start, columns, column_start, kernel, stride, pad, dilation, d_x
) -> None:
    """Gradient of the input; see the reference."""
    N, F, P, Q = d_y.shape
    B = images_per_chunk(N, max(1, np.diff(column_start).max()), P * Q, d_x.itemsize)
    cols, outs = chunk_buffers(B, len(columns), len(rows), P * Q, d_x.dtype)
    packing = (values, rows, row_start, columns, column_start)
    geometry = (*kernel, *stride, *pad, *dilation)
    _backward_input(d_y.reshape(N, F, P * Q), packing, geometry, B, Q, cols, outs, d_x)
