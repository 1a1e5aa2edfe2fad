"""Products with a matrix in compressed sparse rows."""

from __future__ import annotations

from minissl.kernels.reference.types import Array


def csr_times_dense(values: Array, columns: Array, row_start: Array, x: Array, y: Array) -> None:
    """Sparse times dense: Y = A @ x, with A (F, K) in compressed sparse rows.

    Parameters
    ----------
    values, columns : non-zeros of A row by row, and their columns
    row_start : (F + 1,), where each row's non-zeros begin
    x : (K, n)
    y : (F, n), written
    """
    for f in range(len(row_start) - 1):
        own = slice(row_start[f], row_start[f + 1])
        y[f] = values[own] @ x[columns[own]]  # (non-zeros,) @ (non-zeros, n)


def inner_product_csr(
    x: Array, values: Array, columns: Array, row_start: Array, b: Array, y: Array
) -> None:
    """Inner product with the weight matrix in compressed sparse rows: Y = x @ W^T + b.

    x (N, K), y (N, F) and b (F,) as in :func:`.inner_product_forward`; W as in
    :func:`csr_times_dense`, with the column numbers in any integer type.
    """
    csr_times_dense(values, columns, row_start, x.T, y.T)
    y += b
