"""GEMM on parts of matrices, C = A B + beta C, by the BLAS that comes with SciPy.

What Numba makes of ``np.dot`` takes whole arrays, and cannot add to what is there. BLAS can: it is
told how far apart the rows, or columns, of a matrix lie.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import extending

from minissl.kernels.cpu.jit import config, kernel
from minissl.kernels.cpu.micro.tiles import address_of, call


@cache
def blas(dtype: np.dtype) -> int:
    """Address of the function that multiplies matrices of these numbers."""
    name = {"float32": "sgemm", "float64": "dgemm"}[np.dtype(dtype).name]
    return extending.get_cython_function_address("scipy.linalg.cython_blas", name)


@kernel
def layout(matrix):
    """Whether a matrix lies in memory column by column, and its leading dimension."""
    across, down = matrix.strides[1] // matrix.itemsize, matrix.strides[0] // matrix.itemsize
    M, K = matrix.shape
    is_turned = across != 1 and K > 1
    return is_turned, max(1, across, M) if is_turned else max(1, down, K)


@kernel
def _multiply(function, a, b, beta, c):
    M, K = a.shape
    a_turned, a_length = layout(a)
    b_turned, b_length = layout(b)
    # BLAS thinks in columns: to it these are C^T = B^T A^T
    letters = np.array([84 if b_turned else 78, 84 if a_turned else 78], np.uint8)  # T or N
    c_length = max(1, c.strides[0] // c.itemsize, c.shape[1])
    numbers = np.array([c.shape[1], M, K, b_length, a_length, c_length], np.int32)
    factors = np.array([1, beta], c.dtype)
    letter, number, factor = address_of(letters), address_of(numbers), address_of(factors)
    call(
        function,
        (
            letter,
            letter + 1,
            number,
            number + 4,
            number + 8,
            factor,
            address_of(b),
            number + 12,
            address_of(a),
            number + 16,
            factor + c.itemsize,
            address_of(c),
            number + 20,
        ),
    )
    return letters.size + numbers.size + factors.size  # they are alive until here


def _multiply_plainly(_function, a, b, beta, c):
    if beta:
        c += a @ b
    else:
        c[...] = a @ b


#: C = A B + beta C (beta 0 or 1): ``multiply(blas(dtype), a, b, beta, c)``; C's rows are runs of
#: memory, those of A and B, or their columns
multiply = _multiply_plainly if config.DISABLE_JIT else _multiply
