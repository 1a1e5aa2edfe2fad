"""Dense products by cuBLAS: one, or several of the same shape at equal distances.

By default a float32 product is computed in float32. With TF32 the factors are rounded to 10 bits of
mantissa first, which tensor cores multiply several times faster: results then agree to about 1e-3
of the sum of magnitudes instead of 1e-6. It is never on unless asked for
(:func:`minissl.backend.allow_tf32`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from cupy.cuda import device

_tf32 = False

#: CUBLAS_TF32_TENSOR_OP_MATH of cublas_api.h, which CuPy does not name
TF32_MATH = 3

#: the library's letter for each type, by NumPy's
_LETTER = {"f": "s", "d": "d"}
#: alpha and beta, where the library looks for them
_SCALARS = {(kind, value): np.array(value, kind) for kind in _LETTER for value in (0, 1)}


@cache
def _library() -> Any:
    """Load cuBLAS on first use: own kernels can be compiled where it is not installed."""
    from cupy_backends.cuda.libs import cublas

    return cublas


def use_tf32(enabled: bool) -> None:
    """Let float32 products use TF32, or forbid it again."""
    global _tf32
    _tf32 = enabled


def uses_tf32() -> bool:
    """Whether float32 products use TF32."""
    return _tf32


def multiply(
    a: Any,
    b: Any,
    out: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    accumulate: bool = False,
) -> None:
    """Compute ``out = op(a) @ op(b)``, or add it to ``out``.

    Parameters
    ----------
    a, b, out : (m, k), (k, n), (m, n), or (batch, ...) each
        C-contiguous; op transposes the last two axes where asked.
    """
    m, n = out.shape[-2:]
    k = a.shape[-2] if transpose_a else a.shape[-1]
    if not m * n:
        return
    if not k:
        if not accumulate:
            out.fill(0)
        return
    cublas, handle = _library(), device.get_cublas_handle()
    kind = out.dtype.char
    cublas.setMathMode(handle, TF32_MATH if _tf32 else cublas.CUBLAS_DEFAULT_MATH)
    # the library counts columns first, so it is given out^T = op(b)^T @ op(a)^T
    op_b, op_a = (
        cublas.CUBLAS_OP_T if transposed else cublas.CUBLAS_OP_N
        for transposed in (transpose_b, transpose_a)
    )
    one, beta = (_SCALARS[kind, value].ctypes.data for value in (1, int(accumulate)))
    width_a, width_b = a.shape[-1], b.shape[-1]
    pointers = b.data.ptr, a.data.ptr, out.data.ptr
    if out.ndim == 2:
        getattr(cublas, f"{_LETTER[kind]}gemm")(
            handle, op_b, op_a, n, m, k, one, pointers[0], width_b, pointers[1], width_a,
            beta, pointers[2], n,
        )  # fmt: skip
        return
    size_a, size_b = a.shape[-2] * width_a, b.shape[-2] * width_b
    getattr(cublas, f"{_LETTER[kind]}gemmStridedBatched")(
        handle, op_b, op_a, n, m, k, one, pointers[0], width_b, size_b, pointers[1], width_a,
        size_a, beta, pointers[2], n, m * n, out.shape[0],
    )  # fmt: skip
