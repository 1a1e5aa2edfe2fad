r"""LOWERED_CCNMM: concatenate the non-zero rows and columns, then multiply densely.

Group lasso leaves whole rows (filters) and columns (shape fibres) of the weight matrix at zero::

        W  (F/G x K)                 packed               lowered image
    [ a . b . . c ]               [ a b c ]          kept columns only,
    [ . . . . . . ]     ->        [ d e f ]    @     (3 x P*Q) here
    [ d . e . . f ]                                 ->  rows 0 and 2 of the output

Only the kept columns are ever lowered, the product is a small dense GEMM, and its rows are
scattered to their places. Removed filters give their bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.conv_modes.shape import ConvShape


class LoweredCcnmm:
    """The kept rows and columns of every conv group, packed one after the other.

    ``values`` holds the packed matrices; group g keeps the filters
    ``rows[row_start[g]:row_start[g + 1]]`` (counted over all filters) and the columns
    ``columns[column_start[g]:column_start[g + 1]]`` (counted within the group).
    """

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        self.shape, self.kernels = shape, kernels
        xp = kernels.xp
        values, rows, columns = [], [], []
        for g, band in enumerate(shape.bands(np.asarray(w))):  # (F/G, K)
            kept_rows = np.flatnonzero(band.any(axis=1))
            kept_columns = np.flatnonzero(band.any(axis=0))
            values.append(band[np.ix_(kept_rows, kept_columns)].reshape(-1))
            rows.append(kept_rows + g * shape.rows)
            columns.append(kept_columns)
        self.values = xp.asarray(np.concatenate(values))
        self.rows, self.row_start = (xp.asarray(part) for part in _concatenate(rows))
        self.columns, self.column_start = (xp.asarray(part) for part in _concatenate(columns))
        self.b = xp.zeros(shape.filters, self.values.dtype) if b is None else b

    def forward(self, x: Any, y: Any, **stages: int) -> None:
        """Convolve x into y; ``stages`` restricts the work for timing."""
        self.kernels.conv_ccnmm(
            x,
            self.values,
            self.rows,
            self.row_start,
            self.columns,
            self.column_start,
            self.b,
            *self.shape.geometry,
            y,
            **stages,
        )

    def dense(self) -> np.ndarray:
        """Return the weights (F, C/G, kh, kw)."""
        values, rows, columns = (np.asarray(a) for a in (self.values, self.rows, self.columns))
        matrix = np.zeros((self.shape.filters, self.shape.columns), values.dtype)
        start = 0
        for g in range(self.shape.groups):
            kept_rows = rows[self.row_start[g] : self.row_start[g + 1]]
            kept_columns = columns[self.column_start[g] : self.column_start[g + 1]]
            stop = start + kept_rows.size * kept_columns.size
            packed = values[start:stop].reshape(kept_rows.size, kept_columns.size)
            matrix[np.ix_(kept_rows, kept_columns)] = packed
            start = stop
        return matrix.reshape(self.shape.weight_shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: kept rows times kept columns, summed over groups."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrices and their indices."""
        return int(self.values.nbytes + self.rows.nbytes + self.columns.nbytes)


def _concatenate(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join index lists; the second array says where each begins and the last ends."""
    starts = np.concatenate([[0], np.cumsum([part.size for part in parts])])
    return np.concatenate(parts).astype(np.int64), starts.astype(np.int64)
