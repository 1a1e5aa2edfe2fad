"""The inner product of a fully connected layer, and its gradients."""

from __future__ import annotations

from minissl.kernels.reference.activations import relu_forward
from minissl.kernels.reference.types import Array


def inner_product_forward(
    x: Array, w: Array, b: Array | None, y: Array, relu: bool = False
) -> None:
    """Y = x @ W^T + b, with x (N, K), W (F, K), b (F,) or None, y (N, F); ``relu`` rectifies it."""
    y[...] = x @ w.T
    if b is not None:
        y += b
    if relu:
        relu_forward(y, 0.0, y)


def inner_product_backward_weights(x: Array, d_y: Array, d_w: Array) -> None:
    """d_W += d_y^T @ x, shape (F, K)."""
    d_w += d_y.T @ x


def inner_product_backward_input(d_y: Array, w: Array, d_x: Array) -> None:
    """d_x = d_y @ W, shape (N, K)."""
    d_x[...] = d_y @ w


def inner_product_backward_bias(d_y: Array, d_b: Array) -> None:
    """d_b += sum of d_y over images."""
    d_b += d_y.sum(axis=0)
