"""Convolution with sparse weights, and the gradients of a packed one; a chunk of images at a time.

* concatenated rows and columns (CCNMM): only the kept columns are lowered, on the device; the
  packed products of all conv groups lie below one another and are scattered together;
* compressed rows (CSRMM): a thread for each output where there are few rows, else cuSPARSE;
* direct: no lowering at all, a thread for each output.

Row and column lists rise, and where a conv group begins (``row_start``, ``column_start`` of CCNMM)
the host must know: those two are NumPy arrays.

Dimensions: N images in chunks of B, F filters, G conv groups, P x Q output pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import cupy

from minissl.kernels.cpu.stages import ALL, LOWER, MULTIPLY, SCATTER
from minissl.kernels.gpu.convolution import chunks, gather, scatter
from minissl.kernels.gpu.lowering import lower, places, raise_
from minissl.kernels.gpu.products import multiply
from minissl.kernels.gpu.raw import each
from minissl.kernels.gpu.sparse_product import FEW_ROWS, add_to_products, library_product


def conv_csrmm(
    x, values, columns, row_start, b, kernel, stride, pad, dilation, groups, y,
    relu=False, stages=ALL,
) -> None:  # fmt: skip
    """Convolve with compressed rows; see the reference."""
    N, F, P, Q = y.shape
    x = cupy.ascontiguousarray(x)
    K = x.shape[1] // groups * kernel[0] * kernel[1]
    geometry = kernel, stride, pad, dilation
    by_library = groups == 1 and F > FEW_ROWS and values.size > 0
    for images in chunks(N, groups * K + F, P * Q, x.itemsize):
        B = images.stop - images.start
        col = cupy.empty((groups * K, B * P * Q), x.dtype)
        out = cupy.empty((F, B * P * Q), x.dtype) if by_library else None
        if stages & LOWER:
            lower(x[images], None, groups * K, 0, geometry, (P, Q), col)
        if by_library:
            if stages & MULTIPLY:
                library_product(values, columns, row_start, col, out)
            if stages & SCATTER:
                scatter(out, None, b, relu, y[images])
        elif stages & MULTIPLY:
            add_to_products(
                values, columns, row_start, col, b, relu, F // groups, K, P * Q, y[images]
            )


def conv_sconv(
    x, values, columns, row_start, b, kernel, stride, pad, dilation, groups, y, relu=False
) -> None:
    """Convolve by single weights, straight from the image; see the reference."""
    (N, C, H, W), (F, P, Q) = x.shape, y.shape[1:]
    x = cupy.ascontiguousarray(x)
    each(
        "direct", "sparse_convolution", x, y.size,
        x, values, columns, row_start, b, int(relu), N, C // groups, F // groups, C, H, W,
        *kernel, *stride, *pad, *dilation, F, P, Q, y, column=columns.dtype,
    )  # fmt: skip


def packed_groups(values, row_start, column_start) -> Iterator[tuple]:
    """Yield of each conv group that has values: number, rows, columns, packed matrix, positions."""
    start = 0
    for g in range(len(row_start) - 1):
        rows = slice(int(row_start[g]), int(row_start[g + 1]))
        columns = slice(int(column_start[g]), int(column_start[g + 1]))
        shape = rows.stop - rows.start, columns.stop - columns.start
        stop = start + shape[0] * shape[1]
        if stop > start:
            yield g, rows, columns, values[start:stop].reshape(shape)
        start = stop


def conv_ccnmm(
    x, values, rows, row_start, columns, column_start, b, kernel, stride, pad, dilation, y,
    relu=False, stages=ALL,
) -> None:  # fmt: skip
    """Convolve with kept rows and columns; see the reference."""
    N, F, P, Q = y.shape
    channels = x.shape[1] // (len(row_start) - 1)
    x = cupy.ascontiguousarray(x)
    geometry = kernel, stride, pad, dilation
    packed = list(packed_groups(values, row_start, column_start))
    place = places(rows, F, x) if rows.size < F else None
    for images in chunks(N, rows.size + columns.size, P * Q, x.itemsize):
        B = images.stop - images.start
        col = cupy.empty((columns.size, B * P * Q), x.dtype)
        out = cupy.empty((rows.size, B * P * Q), x.dtype)
        for g, own_rows, own, matrix in packed:
            if stages & LOWER:
                kept = columns[own]
                lower(x[images], kept, kept.size, g * channels, geometry, (P, Q), col[own])
            if stages & MULTIPLY:
                multiply(matrix, col[own], out[own_rows])  # (rows, columns) @ (columns, B*P*Q)
        if stages & SCATTER:
            scatter(out, place, b, relu, y[images])


def conv_ccnmm_backward_weights(
    x, d_y, rows, row_start, columns, column_start, kernel, stride, pad, dilation, d_values
) -> None:
    """Gradient of the packed matrices; see the reference."""
    N, _, P, Q = d_y.shape
    channels = x.shape[1] // (len(row_start) - 1)
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    geometry = kernel, stride, pad, dilation
    packed = list(packed_groups(d_values, row_start, column_start))
    for images in chunks(N, rows.size + columns.size, P * Q, x.itemsize):
        B = images.stop - images.start
        d_out = cupy.empty((rows.size, B * P * Q), x.dtype)
        gather(d_y[images], rows, rows.size, d_out)
        for g, own_rows, own, d_matrix in packed:
            kept = columns[own]
            col = cupy.empty((kept.size, B * P * Q), x.dtype)
            lower(x[images], kept, kept.size, g * channels, geometry, (P, Q), col)
            multiply(d_out[own_rows], col, d_matrix, transpose_b=True, accumulate=images.start > 0)


def conv_ccnmm_backward_input(
    d_y, values, rows, row_start, columns, column_start, kernel, stride, pad, dilation, d_x
) -> None:
    """Gradient of the input; see the reference."""
    N, _, P, Q = d_y.shape
    channels = d_x.shape[1] // (len(row_start) - 1)
    d_y = cupy.ascontiguousarray(d_y)
    geometry = kernel, stride, pad, dilation
    packed = list(packed_groups(values, row_start, column_start))
    K = channels * kernel[0] * kernel[1]
    place = [places(columns[own], K, d_y) for _, _, own, _ in packed]
    if len(packed) < len(row_start) - 1:
        d_x.fill(0)
    for images in chunks(N, rows.size + columns.size, P * Q, d_y.itemsize):
        B = images.stop - images.start
        d_out = cupy.empty((rows.size, B * P * Q), d_y.dtype)
        gather(d_y[images], rows, rows.size, d_out)
        for (g, own_rows, _, matrix), where in zip(packed, place, strict=True):
            d_col = cupy.empty((matrix.shape[1], B * P * Q), d_y.dtype)
            multiply(matrix, d_out[own_rows], d_col, transpose_a=True)
            raise_(d_col, where, g * channels, channels, geometry, (P, Q), d_x[images])
