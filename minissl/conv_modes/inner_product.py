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
from itertools import pairwise
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.compressed_rows import compress, expand
from minissl.conv_modes.micro import micro_kernel
from minissl.conv_modes.shape import ConvShape
from minissl.errors import ConfigError

#: ``gemm_mode`` -> the ``conv_mode`` that executes the product the same way
GEMM_MODES = {"GEMM": "LOWERED_GEMM", "SPMDM": "LOWERED_CSRMM", "CCNMM": "LOWERED_CCNMM"}


#: most columns of a slab: their inputs take 24 KB, which a first-level cache holds
SLAB = 6144


class DenseProduct:
    """y = x @ W^T + b."""

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.w, self.b, self.kernels = w, b, kernels

    def forward(self, x: Any, y: Any, relu: bool = False) -> None:
        """Compute y (N, F) from x, which holds N times K numbers; ``relu`` rectifies y."""
        F, K = self.w.shape
        self.kernels.inner_product_forward(x.reshape(-1, K), self.w, self.b, y.reshape(-1, F), relu)

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

    For one image this is as fast as the weights can be read, and as the inputs can be picked by
    column number. So a wide matrix is divided into slabs of columns whose inputs stay in the
    first-level cache, and column numbers take 16 bits.

    A batch takes the register tile of the direct sparse convolution, where the backend has it
    (:mod:`minissl.kernels.cpu.micro.batch_product`). It is packed when the first one comes.
    """

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.kernels, self.matrix_shape = kernels, w.shape
        F, K = w.shape
        slabs = -(-K // SLAB)
        #: first column of each slab, and K
        self.bounds = [K * slab // slabs for slab in range(slabs + 1)]
        #: (values, columns, row_start) of each slab
        self.slabs = [
            tuple(map(kernels.xp.asarray, compress(w[:, first:last], np.uint16)))
            for first, last in pairwise(self.bounds)
        ]
        self.b = kernels.xp.zeros(F, w.dtype) if b is None else b
        #: width of the panels of a batch -> what multiplies them
        self._batches: dict[int, Any] = {}

    def forward(self, x: Any, y: Any, relu: bool = False) -> None:
        """Compute y (N, F) from x, which holds N times K numbers; ``relu`` rectifies y."""
        F, K = self.matrix_shape
        x, y = x.reshape(-1, K), y.reshape(-1, F)
        fast = self._batch_product(len(x))
        if fast is not None:
            fast.run(x, y, relu)
            return
        multiply = self.kernels.inner_product_csr
        multiply(x[:, : self.bounds[1]], *self.slabs[0], self.b, y)
        if len(self.slabs) > 1:
            part, nothing = self.kernels.xp.empty_like(y), self.kernels.xp.zeros_like(self.b)
            for first, last, slab in zip(
                self.bounds[1:-1], self.bounds[2:], self.slabs[1:], strict=True
            ):
                multiply(x[:, first:last], *slab, nothing, part)
                y += part
        if relu:
            self.kernels.relu_forward(y, 0.0, y)

    def _batch_product(self, N: int) -> Any:
        """Return what multiplies N images at once; None where the slabs do."""
        width = micro_kernel(self.kernels, "batch_width", N, self.b.dtype)
        if width is not None and width not in self._batches:
            F, K = self.matrix_shape
            shape = ConvShape(K, (1, width), F, (1, 1))
            csr = compress(self.dense())
            self._batches[width] = micro_kernel(self.kernels, "batch_product", shape, *csr, self.b)
        return self._batches.get(width) if width is not None else None

    def dense(self) -> np.ndarray:
        """Return the weights (F, K)."""
        F = self.matrix_shape[0]
        widths = np.diff(self.bounds)
        return np.hstack(
            [
                expand(values, columns, row_start, (F, width))
                for (values, columns, row_start), width in zip(self.slabs, widths, strict=True)
            ]
        )

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for each image: the non-zero weights."""
        return sum(int(values.size) for values, _, _ in self.slabs)

    @property
    def nbytes(self) -> int:
        """Bytes of values, column numbers and row pointers, and of copies packed for batches."""
        batches = sum(batch.nbytes for batch in self._batches.values())
        return batches + sum(int(array.nbytes) for slab in self.slabs for array in slab)


class SqueezedProduct:
    """The non-zero rows and columns as a smaller dense matrix: y[rows] = x[columns] @ values^T + b.

    Outputs of removed rows are their bias.
    """

    def __init__(self, w: Any, b: Any, kernels: Any):
        self.kernels, self.matrix_shape = kernels, w.shape
        xp, matrix = kernels.xp, to_host(w)
        rows, columns = np.flatnonzero(matrix.any(axis=1)), np.flatnonzero(matrix.any(axis=0))
        self.values = xp.asarray(np.ascontiguousarray(matrix[np.ix_(rows, columns)]))
        self.rows, self.columns = xp.asarray(rows), xp.asarray(columns)
        self.b = xp.zeros(w.shape[0], self.values.dtype) if b is None else b

    def forward(self, x: Any, y: Any, relu: bool = False) -> None:
        """Compute y (N, F) from x, which holds N times K numbers; ``relu`` rectifies y."""
        F, K = self.matrix_shape
        x, y = x.reshape(-1, K), y.reshape(-1, F)
        self._multiply(x, y)
        if relu:
            self.kernels.relu_forward(y, 0.0, y)

    def _multiply(self, x: Any, y: Any) -> None:
        xp, (F, K) = self.kernels.xp, self.matrix_shape
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
        values = to_host(self.values)
        w = np.zeros(self.matrix_shape, values.dtype)
        w[np.ix_(to_host(self.rows), to_host(self.columns))] = values
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
