"""LOWERED_CSRMM: the weight matrix in compressed sparse rows, times the lowered image."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.conv_modes.shape import ConvShape


class LoweredCsrmm:
    """Only the non-zero weights are stored and multiplied.

    ``values`` and ``columns`` hold the non-zeros row by row (filter by filter); those of filter f
    are at row_start[f] .. row_start[f + 1] - 1. Columns count within the filter's conv group. A
    layer without any non-zero is just its bias.
    """

    has_stages = True

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        self.shape, self.kernels = shape, kernels
        matrix = np.asarray(w).reshape(shape.filters, shape.columns)  # (F, K)
        rows, columns = np.nonzero(matrix)
        self.values = kernels.xp.asarray(matrix[rows, columns])
        self.columns = kernels.xp.asarray(columns.astype(np.int32))
        counts = np.bincount(rows, minlength=shape.filters)
        self.row_start = kernels.xp.asarray(np.concatenate([[0], np.cumsum(counts)]))
        self.b = kernels.xp.zeros(shape.filters, self.values.dtype) if b is None else b

    def forward(self, x: Any, y: Any, relu: bool = False, **stages: int) -> None:
        """Convolve x into y, rectified if asked; ``stages`` restricts the work for timing."""
        self.kernels.conv_csrmm(
            x,
            self.values,
            self.columns,
            self.row_start,
            self.b,
            *self.shape.geometry,
            self.shape.groups,
            y,
            **stages,
        )
        if relu:
            self.kernels.relu_forward(y, 0.0, y)

    def dense(self) -> np.ndarray:
        """Return the weights (F, C/G, kh, kw)."""
        values, columns = np.asarray(self.values), np.asarray(self.columns)
        matrix = np.zeros((self.shape.filters, self.shape.columns), values.dtype)
        rows = np.repeat(np.arange(self.shape.filters), np.diff(np.asarray(self.row_start)))
        matrix[rows, columns] = values
        return matrix.reshape(self.shape.weight_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: the non-zero weights."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of values, column indices and row pointers."""
        return int(self.values.nbytes + self.columns.nbytes + self.row_start.nbytes)
