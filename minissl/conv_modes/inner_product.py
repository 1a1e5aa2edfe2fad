"""How an inner product with sparse weights is executed, by its ``gemm_mode``.

An inner product is a convolution of a single pixel: there is nothing to lower, but its product has
the same modes, and ``minissl time`` reports them under the same names.

=============  =================  ==========================================================
``gemm_mode``  ``conv_mode``      what is multiplied
=============  =================  ==========================================================
``GEMM``       ``LOWERED_GEMM``   the dense weight matrix
``SPMDM``      ``LOWERED_CSRMM``  single weights, by compressed rows
``CCNMM``      ``LOWERED_CCNMM``  a dense matrix of the non-zero rows and columns, by the
                                  inputs of those columns
=============  =================  ==========================================================

GEMM and SPMDM are SkimCaffe's names, CCNMM is minissl's own. Dimensions: N images, K inputs, F
outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.conv_modes.compressed_rows import compress, expand
from minissl.errors import ConfigError

#: ``gemm_mode`` -> the ``conv_mode`` that executes the product the same way
GEMM_MODES = {"GEMM": "LOWERED_GEMM", "SPMDM": "LOWERED_CSRMM", "CCNMM": "LOWERED_CCNMM"}


class DenseProduct:
    """y = x @ W^T + b."""

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.w, self.b, self.kernels = w, b, kernels

    def forward(self, x: Any, y: Any) -> None:
        """Compute y (N, F) from x, which holds N times K numbers."""
        F, K = self.w.shape
        self.kernels.inner_product_forward(x.reshape(-1, K), self.w, self.b, y.reshape(-1, F))

    def dense(self) -> Any:
        """Return the weights (F, K)."""
        return self.w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each image: every weight."""
        return int(self.w.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return int(self.w.nbytes)


class SparseProduct:
    """Only the non-zero weights are stored and multiplied.

    For one image this is as fast as the weights can be read, so column numbers take 16 bits where
    that is enough.
    """

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.kernels, self.matrix_shape = kernels, w.shape
        index_type = np.uint16 if w.shape[1] <= 1 << 16 else np.int32
        packed = compress(w, index_type)
        self.values, self.columns, self.row_start = map(kernels.xp.asarray, packed)
        self.b = kernels.xp.zeros(w.shape[0], self.values.dtype) if b is None else b

    def forward(self, x: Any, y: Any) -> None:
        """Compute y (N, F) from x, which holds N times K numbers."""
        F, K = self.matrix_shape
        self.kernels.inner_product_csr(
            x.reshape(-1, K), self.values, self.columns, self.row_start, self.b, y.reshape(-1, F)
        )

    def dense(self) -> np.ndarray:
        """Return the weights (F, K)."""
        return expand(self.values, self.columns, self.row_start, self.matrix_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each image: the non-zero weights."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of values, column numbers and row pointers."""
        return int(self.values.nbytes + self.columns.nbytes + self.row_start.nbytes)


class SqueezedProduct:
    """The non-zero rows and columns as a smaller dense matrix: y[rows] = x[columns] @ values^T + b.

    Outputs of removed rows are their bias.
    """

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.kernels, self.matrix_shape = kernels, w.shape
        xp, matrix = kernels.xp, np.asarray(w)
        rows, columns = np.flatnonzero(matrix.any(axis=1)), np.flatnonzero(matrix.any(axis=0))
        self.values = xp.asarray(np.ascontiguousarray(matrix[np.ix_(rows, columns)]))
        self.rows, self.columns = xp.asarray(rows), xp.asarray(columns)
        self.b = xp.zeros(w.shape[0], self.values.dtype) if b is None else b

    def forward(self, x: Any, y: Any) -> None:
        """Compute y (N, F) from x, which holds N times K numbers."""
        xp, (F, K) = self.kernels.xp, self.matrix_shape
        x, y = x.reshape(-1, K), y.reshape(-1, F)
        y[...] = self.b
        if not self.values.size:
            return
        if self.columns.size < K:
            x = xp.take(x, self.columns, axis=1)
        if self.rows.size == F:
            self.kernels.inner_product_forward(x, self.values, self.b, y)
            return
        kept = xp.empty((x.shape[0], self.rows.size), y.dtype)
        self.kernels.inner_product_forward(x, self.values, self.b[self.rows], kept)
        y[:, self.rows] = kept

    def dense(self) -> np.ndarray:
        """Return the weights (F, K)."""
        values = np.asarray(self.values)
        w = np.zeros(self.matrix_shape, values.dtype)
        w[np.ix_(np.asarray(self.rows), np.asarray(self.columns))] = values
        return w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each image: kept rows times kept columns."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrix and its indices."""
        return int(self.values.nbytes + self.rows.nbytes + self.columns.nbytes)


PRODUCTS: dict[str, Callable[..., Any]] = {
    "LOWERED_GEMM": DenseProduct,
    "LOWERED_CSRMM": SparseProduct,
    "LOWERED_CCNMM": SqueezedProduct,
}


def prepare_inner_product(mode: str, w: Any, b: Any, kernels: Any) -> Any:
    """Pack the weights of an inner product for one mode, as :func:`minissl.conv_modes.prepare`.

    Parameters
    ----------
    mode : str
        A ``conv_mode`` of ``PRODUCTS``.
    w : array
        Weights (F, K).
    b : array or None
        Bias (F,).
    kernels : module
        Backend that will execute it.

    Raises
    ------
    ConfigError
        For a mode that an inner product does not have.
    """
    if mode not in PRODUCTS:
        raise ConfigError(
            f"an inner product has no mode {mode}; choose one of {', '.join(PRODUCTS)}"
        )
    return PRODUCTS[mode](w, b, kernels)
