"""Compressed sparse rows: the non-zeros of a matrix, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.backend import to_host


def compress(matrix: Any, index_type: Any = np.int32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collect the non-zeros of a matrix (F, K).

    Parameters
    ----------
    matrix : (F, K)
    index_type : dtype
        Of the column numbers.

    Returns
    -------
    values, columns : (non-zeros,)
        Row by row, columns rising within each row.
    row_start : (F + 1,), int64
        Row f holds the non-zeros row_start[f] .. row_start[f + 1] - 1.
    """
    matrix = to_host(matrix)
    rows, columns = np.nonzero(matrix)
    counts = np.bincount(rows, minlength=matrix.shape[0])
    row_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return matrix[rows, columns], columns.astype(index_type), row_start


def expand(values: Any, columns: Any, row_start: Any, shape: tuple[int, int]) -> np.ndarray:
    """Undo :func:`compress`."""
    values = to_host(values)
    matrix = np.zeros(shape, values.dtype)
    rows = np.repeat(np.arange(shape[0]), np.diff(to_host(row_start)))
    matrix[rows, to_host(columns)] = values
    return matrix
