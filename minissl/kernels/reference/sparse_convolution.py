"""Convolution with sparse weights: only what is kept is lowered or multiplied."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minissl.kernels.reference.activations import relu_forward
from minissl.kernels.reference.lowering import col2im, im2col, lower_columns
from minissl.kernels.reference.types import Array, Pair


def conv_csrmm(
    x: Array,
    values: Array,
    columns: Array,
    row_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution with the weight matrix in compressed sparse rows (LOWERED_CSRMM).

    y[n, f] = b[f] + sum over the non-zeros j of filter f of values[j] * col[columns[j]].

    Parameters
    ----------
    values, columns : non-zeros filter by filter; columns count within the conv group
    row_start : (F + 1,), where each filter's non-zeros begin
    """
    N, C = x.shape[:2]
    F, P, Q = y.shape[1:]
    channels, filters = C // groups, F // groups
    col = np.empty((channels * kernel[0] * kernel[1], P * Q), x.dtype)
    for n in range(N):
        for g in range(groups):
            im2col(x[n, g * channels : (g + 1) * channels], kernel, stride, pad, dilation, col)
            for f in range(g * filters, (g + 1) * filters):
                own = slice(row_start[f], row_start[f + 1])
                y[n, f] = (values[own] @ col[columns[own]] + b[f]).reshape(P, Q)
    if relu:
        relu_forward(y, 0.0, y)


def conv_ccnmm(
    x: Array,
    values: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution with the kept rows and columns concatenated (LOWERED_CCNMM, SSL paper, 3.3).

    For each conv group: lower its kept columns, multiply by its packed matrix, scatter to its kept
    rows. Removed rows are their bias. See :class:`minissl.conv_modes.lowered_ccnmm.LoweredCcnmm`
    for the layout.
    """
    N, C = x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    P, Q = y.shape[2:]
    y[...] = b[:, None, None]
    packed_matrices = _packed_matrices(values, rows, row_start, columns, column_start)
    for g, (kept_rows, kept_columns, packed) in enumerate(packed_matrices):
        col = np.empty((len(kept_columns), P * Q), x.dtype)
        for n in range(N):
            image = x[n, g * channels : (g + 1) * channels]
            lower_columns(image, kept_columns, kernel, stride, pad, dilation, col)
            y[n, kept_rows] += (packed @ col).reshape(-1, P, Q)
    if relu:
        relu_forward(y, 0.0, y)


def conv_ccnmm_backward_weights(
    x: Array,
    d_y: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    d_values: Array,
) -> None:
    """Gradient of the packed matrices of :func:`conv_ccnmm`, overwritten.

    For each conv group: d_packed = sum over images of d_y[kept rows] @ col[kept columns]^T.
    """
    N, C = x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    pixels = d_y.shape[2] * d_y.shape[3]
    d_values[...] = 0
    packed_matrices = _packed_matrices(d_values, rows, row_start, columns, column_start)
    for g, (kept_rows, kept_columns, d_packed) in enumerate(packed_matrices):
        col = np.empty((len(kept_columns), pixels), x.dtype)
        for n in range(N):
            image = x[n, g * channels : (g + 1) * channels]
            lower_columns(image, kept_columns, kernel, stride, pad, dilation, col)
            d_packed += d_y[n, kept_rows].reshape(-1, pixels) @ col.T


def conv_ccnmm_backward_input(
    d_y: Array,
    values: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    d_x: Array,
) -> None:
    """Gradient of the input of :func:`conv_ccnmm`: d_x = col2im(packed^T @ d_y[kept rows])."""
    N, C = d_x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    K = channels * kernel[0] * kernel[1]
    pixels = d_y.shape[2] * d_y.shape[3]
    packed_matrices = _packed_matrices(values, rows, row_start, columns, column_start)
    for g, (kept_rows, kept_columns, packed) in enumerate(packed_matrices):
        for n in range(N):
            d_col = np.zeros((K, pixels), d_y.dtype)
            d_col[kept_columns] = packed.T @ d_y[n, kept_rows].reshape(-1, pixels)
            target = d_x[n, g * channels : (g + 1) * channels]
            col2im(d_col, kernel, stride, pad, dilation, target)


def _packed_matrices(
    values: Array, rows: Array, row_start: Array, columns: Array, column_start: Array
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield each conv group's kept rows, kept columns, and packed matrix, a view of ``values``."""
    start = 0
    for g in range(len(row_start) - 1):
        kept_rows = rows[row_start[g] : row_start[g + 1]]
        kept_columns = columns[column_start[g] : column_start[g + 1]]
        end = start + len(kept_rows) * len(kept_columns)
        yield kept_rows, kept_columns, values[start:end].reshape(len(kept_rows), len(kept_columns))
        start = end


def conv_sconv(
    x: Array,
    values: Array,
    columns: Array,
    row_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution by single weights, straight from the image, with no lowering (DIRECT_SCONV).

    y[n, f] = b[f] + sum over the non-zeros (c, r, q) of filter f of w[f, c, r, q] * x[n, c, moved].

    Parameters
    ----------
    values, columns, row_start : as :func:`conv_csrmm` takes them
    relu : bool
        Whether y is rectified.
    """
    F, P, Q = y.shape[1:]
    channels = x.shape[1] // groups
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    y[...] = b[:, None, None]
    for f in range(F):
        group = padded[:, f // (F // groups) * channels :]  # its channels come first
        for j in range(row_start[f], row_start[f + 1]):
            c, r, q = np.unravel_index(columns[j], (channels, *kernel))
            top, left = r * dilation[0], q * dilation[1]
            y[:, f] += (
                values[j]
                * group[
                    :,
                    c,
                    top : top + stride[0] * P : stride[0],
                    left : left + stride[1] * Q : stride[1],
                ]
            )
    if relu:
        relu_forward(y, 0.0, y)
