"""LOWERED_CSRMM: the weight matrix in compressed sparse rows, times the lowered image."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.compressed_rows import compress, expand
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
        matrix = to_host(w).reshape(shape.filters, shape.columns)  # (F, K)
        self.values, self.columns, self.row_start = map(kernels.xp.asarray, compress(matrix))
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
            relu,
            **stages,
        )

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are lowered into the panels together."""
        pixels = prod(self.shape.output)
        return self.kernels.images_per_panel(N, self.shape.columns, pixels, self.b.itemsize)

    def dense(self) -> np.ndarray:
        """Return the weights (F, C/G, kh, kw)."""
        matrix_shape = self.shape.filters, self.shape.columns
        matrix = expand(self.values, self.columns, self.row_start, matrix_shape)
        return matrix.reshape(self.shape.weight_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: the non-zero weights."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of values, column indices and row pointers."""
        return int(self.values.nbytes + self.columns.nbytes + self.row_start.nbytes)
