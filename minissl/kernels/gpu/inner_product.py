"""Inner products by cuBLAS: x (N, K), w (F, K), y (N, F)."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.products import multiply
from minissl.kernels.gpu.raw import blocks, each, threads_for


def inner_product_forward(x, w, b, y, relu=False) -> None:
    """Y = x @ W^T + b; see the reference."""
    multiply(cupy.ascontiguousarray(x), w, y, transpose_b=True)  # (N, K) @ (K, F)
    if b is not None or relu:
        each("bias", "add_bias", y, y.size, b, int(relu), *y.shape, y)


def inner_product_backward_weights(x, d_y, d_w) -> None:
    """d_W += d_y^T @ x; see the reference."""
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    multiply(d_y, x, d_w, transpose_a=True, accumulate=True)  # (F, N) @ (N, K)


def inner_product_backward_input(d_y, w, d_x) -> None:
    """d_x = d_y @ W; see the reference."""
    multiply(cupy.ascontiguousarray(d_y), w, d_x)  # (N, F) @ (F, K)


def inner_product_backward_bias(d_y, d_b) -> None:
    """d_b += sum of d_y over images; see the reference."""
    N, F = d_y.shape
    d_y = cupy.ascontiguousarray(d_y)
    blocks("bias", "bias_gradient", d_y, F, d_y, N, F, 1, d_b, threads=threads_for(N))
