"""Inner product, forward and gradients: one GEMM each, split into blocks that threads own.

The split is fixed by the shapes, each block is a single-threaded GEMM, and no sum is divided
between threads: results do not depend on how many there are. N images, K inputs, F outputs.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.activations import rectified
from minissl.kernels.cpu.gemm import blas, multiply
from minissl.kernels.cpu.jit import config, get_thread_id, parallel_kernel, prange, scratch, step


@parallel_kernel
def _forward(x, w, b, rows, outs, relu, y):
    """Blocks of outputs: y[:, block]^T = w[block] @ x^T + b[block]."""
    N, F = y.shape
    for block in prange((F + rows - 1) // rows):
        first = block * rows
        last = min(F, first + rows)
        out = outs[get_thread_id(), : N * (last - first)].reshape(last - first, N)
        np.dot(w[first:last], x.T, out)  # (block, K) @ (K, N)
        for n in range(N):
            for f in range(first, last):
                value = out[f - first, n] + b[f]
                y[n, f] = rectified(value) if relu else value


@parallel_kernel
def _backward_weights(function, x, d_y, rows, d_w):
    """Blocks of outputs: d_w[block] += d_y[:, block]^T @ x."""
    F = d_y.shape[1]
    for block in prange((F + rows - 1) // rows):
        first = np.int64(block) * rows  # prange counts in unsigned numbers
        last = min(F, first + rows)
        multiply(function, d_y[:, first:last].T, x, 1, d_w[first:last])


@parallel_kernel
def _backward_input(function, d_y, w, columns, d_x):
    """Blocks of inputs: d_x[:, block] = d_y @ w[:, block]."""
    K = d_x.shape[1]
    for block in prange((K + columns - 1) // columns):
        first = np.int64(block) * columns  # prange counts in unsigned numbers
        last = min(K, first + columns)
        multiply(function, d_y, w[:, first:last], 0, d_x[:, first:last])


def block_rows(n: int) -> int:
    """Rows of a block: enough rows for an efficient GEMM, enough blocks for several threads."""
    return max(128, step(n, 8))


def inner_product_forward(x, w, b, y, relu=False) -> None:
    """Y = x @ W^T + b; see the reference."""
    F = w.shape[0]
    b = np.zeros(F, y.dtype) if b is None else b
    rows = block_rows(F)
    x = np.ascontiguousarray(x)
    outs = scratch("outputs", (config.NUMBA_NUM_THREADS, x.shape[0] * rows), y.dtype)
    _forward(x, w, b, rows, outs, relu, y)


def inner_product_backward_weights(x, d_y, d_w) -> None:
    """d_W += d_y^T @ x; see the reference."""
    x, d_y = _ready(x, d_y, d_w)
    _backward_weights(blas(d_w.dtype), x, d_y, block_rows(d_y.shape[1]), d_w)


def inner_product_backward_input(d_y, w, d_x) -> None:
    """d_x = d_y @ W; see the reference."""
    d_y, w = _ready(d_y, w, d_x)
    _backward_input(blas(d_x.dtype), d_y, w, block_rows(d_x.shape[1]), d_x)


def _ready(a, b, out) -> tuple[np.ndarray, np.ndarray]:
    """Return factors as BLAS takes them; it sees addresses only, and believes what it is told."""
    assert out.flags.c_contiguous and a.dtype == b.dtype == out.dtype
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def inner_product_backward_bias(d_y, d_b) -> None:
    """d_b += sum of d_y over images; see the reference."""
    d_b += d_y.sum(axis=0)
