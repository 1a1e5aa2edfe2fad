"""Convolution by lowering and GEMM, and its gradients."""

from __future__ import annotations

import numpy as np

from minissl.kernels.reference.activations import relu_forward
from minissl.kernels.reference.lowering import col2im, im2col
from minissl.kernels.reference.types import Array, Pair


def images_per_chunk(N: int, K: int, pixels: int, itemsize: int) -> int:
    """Return how many images of a batch are lowered together: here each by itself.

    Split between chunks, a batch gives bitwise what it gives as a whole.
    """
    return 1


def images_per_panel(N: int, K: int, pixels: int, itemsize: int) -> int:
    """As :func:`images_per_chunk`, of compressed rows."""
    return 1


def conv_forward(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution as the product of the weight matrix with the lowered image.

    y[n, g] = W[g] @ im2col(x[n, g]) + b[g], for each image n and conv group g; with ``relu``
    rectified, as the ReLU behind the layer would do it.

    Parameters
    ----------
    x : (N, C, H, W)
    w : (F, C/G, kh, kw)
    b : (F,) or None
    y : (N, F, P, Q), written
    """
    N, C = x.shape[:2]
    F, kernel = w.shape[0], w.shape[2:]
    pixels = y.shape[2] * y.shape[3]
    channels, filters = C // groups, F // groups
    weights = w.reshape(groups, filters, -1)  # (G, F/G, K)
    col = np.empty((weights.shape[2], pixels), x.dtype)  # (K, P*Q)
    for n in range(N):
        for g in range(groups):
            im2col(x[n, g * channels : (g + 1) * channels], kernel, stride, pad, dilation, col)
            product = weights[g] @ col  # (F/G, K) @ (K, P*Q)
            y[n, g * filters : (g + 1) * filters] = product.reshape(filters, *y.shape[2:])
    if b is not None:
        y += b[:, None, None]
    if relu:
        relu_forward(y, 0.0, y)


def conv_backward_weights(
    x: Array, d_y: Array, stride: Pair, pad: Pair, dilation: Pair, groups: int, d_w: Array
) -> None:
    """Gradient of the weights: d_w[g] += sum over n of d_y[n, g] @ im2col(x[n, g])^T."""
    N, C = x.shape[:2]
    F, kernel = d_w.shape[0], d_w.shape[2:]
    pixels = d_y.shape[2] * d_y.shape[3]
    channels, filters = C // groups, F // groups
    d_weights = d_w.reshape(groups, filters, -1)  # (G, F/G, K), a view
    col = np.empty((d_weights.shape[2], pixels), x.dtype)
    for n in range(N):
        for g in range(groups):
            im2col(x[n, g * channels : (g + 1) * channels], kernel, stride, pad, dilation, col)
            d_out = d_y[n, g * filters : (g + 1) * filters].reshape(filters, pixels)
            d_weights[g] += d_out @ col.T  # (F/G, P*Q) @ (P*Q, K)


def conv_backward_input(
    d_y: Array, w: Array, stride: Pair, pad: Pair, dilation: Pair, groups: int, d_x: Array
) -> None:
    """Gradient of the input: d_x[n, g] = col2im(W[g]^T @ d_y[n, g])."""
    N, C = d_x.shape[:2]
    F, kernel = w.shape[0], w.shape[2:]
    pixels = d_y.shape[2] * d_y.shape[3]
    channels, filters = C // groups, F // groups
    weights = w.reshape(groups, filters, -1)  # (G, F/G, K)
    for n in range(N):
        for g in range(groups):
            d_out = d_y[n, g * filters : (g + 1) * filters].reshape(filters, pixels)
            d_col = weights[g].T @ d_out  # (K, F/G) @ (F/G, P*Q)
            target = d_x[n, g * channels : (g + 1) * channels]
            col2im(d_col, kernel, stride, pad, dilation, target)


def conv_backward_bias(d_y: Array, d_b: Array) -> None:
    """Gradient of the bias: d_b += sum of d_y over images and pixels."""
    d_b += d_y.sum(axis=(0, 2, 3))
