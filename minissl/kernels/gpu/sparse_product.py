"""Sparse times dense: own kernels for few rows or few images, cuSPARSE for the rest.

Dimensions: F rows of A, K columns, n columns of the dense matrix; N images.
"""

from __future__ import annotations

import cupy
import numpy as np
from cupy.cuda import device

from minissl.kernels.gpu.raw import blocks, each, threads_for

#: up to so many rows the own kernel computes a product, beyond it cuSPARSE
FEW_ROWS = 64
#: below so many images a block of threads sums each output of an inner product
FEW_IMAGES = 8

#: CUSPARSE_SPMM_CSR_ALG3 of cusparse.h, which CuPy does not name: results repeat bitwise
REPEATABLE = 12

_KIND = {"float32": 0, "float64": 1}  # CUDA_R_32F, CUDA_R_64F
_ONE = {kind: np.array(1, kind) for kind in _KIND}
_NONE = {kind: np.array(0, kind) for kind in _KIND}


def add_to_products(values, columns, row_start, x, b, relu, rows, K, pixels, y) -> None:
    """Multiply with the own kernel; y is (images, F, pixels), ``rows`` those of a conv group."""
    images, F = y.shape[:2]
    each(
        "csr", "csr_product", x, y.size,
        values, columns, row_start, x, b, int(relu), rows, K, images, F, pixels, y,
        column=columns.dtype,
    )  # fmt: skip


def library_product(values, columns, row_start, x, y) -> None:
    """Y (F, n) = A @ x (K, n) by cuSPARSE, with its algorithm whose results repeat bitwise."""
    from cupy_backends.cuda.libs import cusparse

    (K, n), F, kind = x.shape, y.shape[0], values.dtype.name
    handle = device.get_cusparse_handle()
    starts, numbers = row_start.astype("int32"), columns.astype("int32", copy=False)
    index = cusparse.CUSPARSE_INDEX_32I
    matrix = cusparse.createCsr(
        F, K, values.size, starts.data.ptr, numbers.data.ptr, values.data.ptr,
        index, index, cusparse.CUSPARSE_INDEX_BASE_ZERO, _KIND[kind],
    )  # fmt: skip
    dense = [
        cusparse.createDnMat(*one.shape, n, one.data.ptr, _KIND[kind], cusparse.CUSPARSE_ORDER_ROW)
        for one in (x, y)
    ]
    as_is = cusparse.CUSPARSE_OPERATION_NON_TRANSPOSE
    arguments = (
        handle, as_is, as_is, _ONE[kind].ctypes.data, matrix, dense[0], _NONE[kind].ctypes.data,
        dense[1], _KIND[kind], REPEATABLE,
    )  # fmt: skip
    try:
        scratch = cupy.empty(max(1, cusparse.spMM_bufferSize(*arguments)), "int8")
        cusparse.spMM(*arguments, scratch.data.ptr)
    finally:
        cusparse.destroySpMat(matrix)
        for one in dense:
            cusparse.destroyDnMat(one)


def csr_times_dense(values, columns, row_start, x, y) -> None:
    """Y = A @ x; see the reference."""
    (K, n), F = x.shape, y.shape[0]
    x = cupy.ascontiguousarray(x)
    if F > FEW_ROWS and values.size and n:
        library_product(values, columns, row_start, x, y)
    else:
        add_to_products(values, columns, row_start, x, None, False, F, K, n, y[None])


def inner_product_csr(x, values, columns, row_start, b, y) -> None:
    """Y = x @ A^T + b; see the reference."""
    (N, K), F = x.shape, y.shape[1]
    if N < FEW_IMAGES and x.strides[1] == x.itemsize:
        threads = threads_for(values.size // max(1, F))
        blocks(
            "csr", "csr_dots", x, N * F,
            values, columns, row_start, x, b, x.strides[0] // x.itemsize, F, y,
            column=columns.dtype, threads=threads,
        )  # fmt: skip
        return
    by_column = cupy.ascontiguousarray(x.T)  # (K, N)
    # the images are those of a convolution of one pixel
    add_to_products(values, columns, row_start, by_column, b, False, F, K, 1, y[:, :, None])
