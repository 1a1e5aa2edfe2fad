"""The definition of every kernel, in plain NumPy, to be read and stepped through.

No speed tricks: whatever stands here is what the other backends are tested against. Functions
write into the array(s) given last. Gradients of parameters are *added* to, since several passes
may share one update; gradients of activations are overwritten.

Dimensions: N images, C input channels, H x W input pixels, F filters, G conv groups, kh x kw
kernel, P x Q output pixels, K = C/G * kh * kw columns of the weight matrix.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from minissl.kernels.geometry import convolution_output

#: the array module of this backend
xp = np

Array = np.ndarray
Pair = tuple[int, int]


# --- lowering ---


def im2col(x: Array, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, col: Array) -> None:
    """Lower one image: copy the patch under each output pixel into a column (paper, 3.3).

    col[(c, r, q), (p, s)] = x[c, p * stride + r * dilation - pad, s * stride + q * dilation - pad],
    zero outside the image.

    Parameters
    ----------
    x : (C, H, W)
    kernel, stride, pad, dilation : pairs (height, width)
    col : (C * kh * kw, P * Q), written
    """
    C, H, W = x.shape
    kh, kw = kernel
    P = convolution_output(H, kh, stride[0], pad[0], dilation[0])
    Q = convolution_output(W, kw, stride[1], pad[1], dilation[1])
    padded = np.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    patches = col.reshape(C, kh, kw, P, Q)
    for r in range(kh):
        for q in range(kw):
            top, left = r * dilation[0], q * dilation[1]
            patches[:, r, q] = padded[
                :, top : top + stride[0] * P : stride[0], left : left + stride[1] * Q : stride[1]
            ]


def col2im(col: Array, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, x: Array) -> None:
    """Adjoint of :func:`im2col`: add every entry of the columns back to the pixel it came from.

    Parameters
    ----------
    col : (C * kh * kw, P * Q)
    x : (C, H, W), overwritten
    """
    C, H, W = x.shape
    kh, kw = kernel
    P = convolution_output(H, kh, stride[0], pad[0], dilation[0])
    Q = convolution_output(W, kw, stride[1], pad[1], dilation[1])
    padded = np.zeros((C, H + 2 * pad[0], W + 2 * pad[1]), x.dtype)
    patches = col.reshape(C, kh, kw, P, Q)
    for r in range(kh):
        for q in range(kw):
            top, left = r * dilation[0], q * dilation[1]
            padded[
                :, top : top + stride[0] * P : stride[0], left : left + stride[1] * Q : stride[1]
            ] += patches[:, r, q]
    x[...] = padded[:, pad[0] : pad[0] + H, pad[1] : pad[1] + W]


# --- convolution by lowering and GEMM ---


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


# --- convolution with sparse weights, for inference ---


def lower_columns(
    x: Array, columns: Array, kernel: Pair, stride: Pair, pad: Pair, dilation: Pair, col: Array
) -> None:
    """Lower only some columns of the weight matrix: the rows ``columns`` of :func:`im2col`.

    Parameters
    ----------
    x : (C, H, W)
    columns : integers, (c * kh + r) * kw + q each
    col : (len(columns), P * Q), written
    """
    whole = np.empty((x.shape[0] * kernel[0] * kernel[1], col.shape[1]), x.dtype)
    im2col(x, kernel, stride, pad, dilation, whole)
    col[...] = whole[columns]


def conv_csrmm(
    x: Array,
    values: Array,
    columns: Array,
    row_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution with the weight matrix in compressed sparse rows (LOWERED_CSRMM).

    y[n, f] = b[f] + sum over the non-zeros j of filter f of values[j] * col[columns[j]].

    Parameters
    ----------
    values, columns : non-zeros filter by filter; columns count within the conv group
    row_start : (F + 1,), where each filter's non-zeros begin
    """
    N, C = x.shape[:2]
    F, P, Q = y.shape[1:]
    channels, filters = C // groups, F // groups
    col = np.empty((channels * kernel[0] * kernel[1], P * Q), x.dtype)
    for n in range(N):
        for g in range(groups):
            im2col(x[n, g * channels : (g + 1) * channels], kernel, stride, pad, dilation, col)
            for f in range(g * filters, (g + 1) * filters):
                own = slice(row_start[f], row_start[f + 1])
                y[n, f] = (values[own] @ col[columns[own]] + b[f]).reshape(P, Q)
    if relu:
        relu_forward(y, 0.0, y)


def csr_times_dense(values: Array, columns: Array, row_start: Array, x: Array, y: Array) -> None:
    """Sparse times dense: Y = A @ x, with A (F, K) in compressed sparse rows.

    Parameters
    ----------
    values, columns : non-zeros of A row by row, and their columns
    row_start : (F + 1,), where each row's non-zeros begin
    x : (K, n)
    y : (F, n), written
    """
    shape = len(row_start) - 1, x.shape[0]
    y[...] = csr_array((values, columns.astype(np.int64), row_start), shape=shape) @ x


def conv_ccnmm(
    x: Array,
    values: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution with the kept rows and columns concatenated (LOWERED_CCNMM, SSL paper, 3.3).

    For each conv group: lower its kept columns, multiply by its packed matrix, scatter to its kept
    rows. Removed rows are their bias. See :class:`minissl.conv_modes.lowered_ccnmm.LoweredCcnmm`
    for the layout.
    """
    N, C = x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    P, Q = y.shape[2:]
    y[...] = b[:, None, None]
    for n in range(N):
        start = 0
        for g in range(groups):
            kept_rows = rows[row_start[g] : row_start[g + 1]]
            kept_columns = columns[column_start[g] : column_start[g + 1]]
            size = len(kept_rows) * len(kept_columns)
            packed = values[start : start + size].reshape(len(kept_rows), len(kept_columns))
            start += size
            col = np.empty((len(kept_columns), P * Q), x.dtype)
            image = x[n, g * channels : (g + 1) * channels]
            lower_columns(image, kept_columns, kernel, stride, pad, dilation, col)
            y[n, kept_rows] += (packed @ col).reshape(-1, P, Q)
    if relu:
        relu_forward(y, 0.0, y)


def conv_ccnmm_backward_weights(
    x: Array,
    d_y: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    d_values: Array,
) -> None:
    """Gradient of the packed matrices of :func:`conv_ccnmm`, overwritten.

    For each conv group: d_packed = sum over images of d_y[kept rows] @ col[kept columns]^T.
    """
    N, C = x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    pixels = d_y.shape[2] * d_y.shape[3]
    d_values[...] = 0
    start = 0
    for g in range(groups):
        kept_rows = rows[row_start[g] : row_start[g + 1]]
        kept_columns = columns[column_start[g] : column_start[g + 1]]
        size = len(kept_rows) * len(kept_columns)
        d_packed = d_values[start : start + size].reshape(len(kept_rows), len(kept_columns))
        start += size
        for n in range(N):
            col = np.empty((len(kept_columns), pixels), x.dtype)
            image = x[n, g * channels : (g + 1) * channels]
            lower_columns(image, kept_columns, kernel, stride, pad, dilation, col)
            d_packed += d_y[n, kept_rows].reshape(-1, pixels) @ col.T


def conv_ccnmm_backward_input(
    d_y: Array,
    values: Array,
    rows: Array,
    row_start: Array,
    columns: Array,
    column_start: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    d_x: Array,
) -> None:
    """Gradient of the input of :func:`conv_ccnmm`: d_x = col2im(packed^T @ d_y[kept rows])."""
    N, C = d_x.shape[:2]
    groups = len(row_start) - 1
    channels = C // groups
    K = channels * kernel[0] * kernel[1]
    pixels = d_y.shape[2] * d_y.shape[3]
    start = 0
    for g in range(groups):
        kept_rows = rows[row_start[g] : row_start[g + 1]]
        kept_columns = columns[column_start[g] : column_start[g + 1]]
        size = len(kept_rows) * len(kept_columns)
        packed = values[start : start + size].reshape(len(kept_rows), len(kept_columns))
        start += size
        for n in range(N):
            d_col = np.zeros((K, pixels), d_y.dtype)
            d_col[kept_columns] = packed.T @ d_y[n, kept_rows].reshape(-1, pixels)
            target = d_x[n, g * channels : (g + 1) * channels]
            col2im(d_col, kernel, stride, pad, dilation, target)


def conv_sconv(
    x: Array,
    values: Array,
    columns: Array,
    row_start: Array,
    b: Array,
    kernel: Pair,
    stride: Pair,
    pad: Pair,
    dilation: Pair,
    groups: int,
    y: Array,
    relu: bool = False,
) -> None:
    """Convolution by single weights, straight from the image, with no lowering (DIRECT_SCONV).

    y[n, f] = b[f] + sum over the non-zeros (c, r, q) of filter f of w[f, c, r, q] * x[n, c, moved].

    Parameters
    ----------
    values, columns, row_start : as :func:`conv_csrmm` takes them
    relu : bool
        Whether y is rectified.
    """
    F, P, Q = y.shape[1:]
    channels = x.shape[1] // groups
    padded = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    y[...] = b[:, None, None]
    for f in range(F):
        group = padded[:, f // (F // groups) * channels :]  # its channels come first
        for j in range(row_start[f], row_start[f + 1]):
            c, r, q = np.unravel_index(columns[j], (channels, *kernel))
            top, left = r * dilation[0], q * dilation[1]
            y[:, f] += (
                values[j]
                * group[
                    :,
                    c,
                    top : top + stride[0] * P : stride[0],
                    left : left + stride[1] * Q : stride[1],
                ]
            )
    if relu:
        relu_forward(y, 0.0, y)


# --- inner product ---


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


def inner_product_csr(
    x: Array, values: Array, columns: Array, row_start: Array, b: Array, y: Array
) -> None:
    """Inner product with the weight matrix in compressed sparse rows: Y = x @ W^T + b.

    x (N, K), y (N, F) and b (F,) as in :func:`inner_product_forward`; W as in
    :func:`csr_times_dense`, with the column numbers in any integer type.
    """
    csr_times_dense(values, columns, row_start, x.T, y.T)
    y += b


# --- pooling ---


def max_pool_forward(
    x: Array, kernel: Pair, stride: Pair, pad: Pair, y: Array, argmax: Array | None
) -> None:
    """Largest value of each window; ``argmax`` keeps where it was, as h * W + w.

    Windows are clipped to the image, so padding is never the largest. Of equal values the first in
    row-major order wins.

    Parameters
    ----------
    x : (N, C, H, W)
    y : (N, C, P, Q), written
    argmax : int32 (N, C, P, Q) or None, written; only the backward pass needs it
    """
    N, C, H, W = x.shape
    images, channels = np.ogrid[:N, :C]
    for p in range(y.shape[2]):
        for q in range(y.shape[3]):
            top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], H), min(left + kernel[1], W)
            top, left = max(top, 0), max(left, 0)
            window = x[:, :, top:bottom, left:right].reshape(N, C, -1)
            winner = window.argmax(axis=2)  # (N, C)
            y[:, :, p, q] = window[images, channels, winner]
            if argmax is not None:
                row, column = np.divmod(winner, right - left)
                argmax[:, :, p, q] = (top + row) * W + left + column


def max_pool_backward(
    d_y: Array, argmax: Array, kernel: Pair, stride: Pair, pad: Pair, d_x: Array
) -> None:
    """Send each gradient to the pixel that was the largest of its window.

    The geometry says which windows a pixel is in; whoever goes from window to pixel needs it not.
    """
    N, C = d_x.shape[:2]
    flat = d_x.reshape(N, C, -1)  # (N, C, H*W), a view
    flat[...] = 0
    images, channels = np.ogrid[:N, :C]
    for p in range(d_y.shape[2]):
        for q in range(d_y.shape[3]):
            # one window at a time: two windows may share their winner, one window never does
            flat[images, channels, argmax[:, :, p, q]] += d_y[:, :, p, q]


def ave_pool_forward(x: Array, kernel: Pair, stride: Pair, pad: Pair, y: Array) -> None:
    """Mean of each window, padding counted as zeros (Caffe's rule).

    The divisor is the window's area clipped at the padded border (H + pad), so only a last,
    partial window divides by less than kh * kw.
    """
    for p, q, area, (rows, columns) in _ave_windows(x.shape, kernel, stride, pad, y.shape):
        y[:, :, p, q] = x[:, :, rows, columns].sum(axis=(2, 3)) / area


def ave_pool_backward(d_y: Array, kernel: Pair, stride: Pair, pad: Pair, d_x: Array) -> None:
    """Adjoint of :func:`ave_pool_forward`: each gradient is spread evenly over its window."""
    d_x[...] = 0
    for p, q, area, (rows, columns) in _ave_windows(d_x.shape, kernel, stride, pad, d_y.shape):
        d_x[:, :, rows, columns] += (d_y[:, :, p, q] / area)[:, :, None, None]


def _ave_windows(x_shape: Any, kernel: Pair, stride: Pair, pad: Pair, y_shape: Any):
    """Yield (p, q, divisor, slices inside the image) of every window of average pooling."""
    H, W = x_shape[2:]
    for p in range(y_shape[2]):
        for q in range(y_shape[3]):
            top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
            bottom, right = min(top + kernel[0], H + pad[0]), min(left + kernel[1], W + pad[1])
            area = (bottom - top) * (right - left)
            inside = slice(max(top, 0), min(bottom, H)), slice(max(left, 0), min(right, W))
            yield p, q, area, inside


# --- local response normalization ---


def lrn_forward(
    x: Array,
    window: tuple[int, int, int],
    alpha: float,
    beta: float,
    k: float,
    scale: Array | None,
    y: Array,
) -> None:
    """Divide each value by a power of the energy around it.

    scale = k + alpha / |window| * sum of x^2 over the window; y = x * scale^-beta. The window is
    centred, and what it covers beyond the border counts as zeros: |window| is always the same.

    Parameters
    ----------
    x : (N, C, H, W)
    window : (channels, rows, columns), odd numbers
    scale : (N, C, H, W) or None, written; only the backward pass needs it
    y : (N, C, H, W), written
    """
    found = k + alpha / math.prod(window) * _window_sums(x * x, window)
    y[...] = x * found**-beta
    if scale is not None:
        scale[...] = found


def lrn_backward(
    x: Array,
    y: Array,
    scale: Array,
    d_y: Array,
    window: tuple[int, int, int],
    alpha: float,
    beta: float,
    d_x: Array,
) -> None:
    """Gradient of :func:`lrn_forward`; x_i stands in the scale of all its neighbours j.

    d_x_i = d_y_i * scale_i^-beta - 2 alpha beta / |window| * x_i * sum of d_y_j * y_j / scale_j.
    """
    shared = _window_sums(d_y * y / scale, window)
    factor = 2 * alpha * beta / math.prod(window)
    d_x[...] = d_y * scale**-beta - factor * x * shared


def _window_sums(v: Array, window: tuple[int, int, int]) -> Array:
    """Sum of v (N, C, H, W) over the window around each element, axis by axis."""
    for axis, length in enumerate(window, start=1):
        half = length // 2
        around = np.pad(v, [(half, half) if a == axis else (0, 0) for a in range(v.ndim)])
        v = np.lib.stride_tricks.sliding_window_view(around, length, axis).sum(axis=-1)
    return v


# --- batch normalization, and scales of channels ---


def channel_moments(x: Array, mean: Array, variance: Array) -> None:
    """Mean of every channel and the mean squared distance from it.

    Parameters
    ----------
    x : (N, C, S)
        Channels, with what comes before and behind them folded.
    mean, variance : (C,), written
    """
    mean[...] = x.mean(axis=(0, 2), dtype=np.float64)
    variance[...] = np.square(x - mean[:, None]).mean(axis=(0, 2), dtype=np.float64)


def batch_norm_forward(x: Array, mean: Array, variance: Array, eps: float, y: Array) -> None:
    """Y = (x - mean) / sqrt(variance + eps), channel by channel of (N, C, S); y may be x itself."""
    inverse = 1 / np.sqrt(variance + variance.dtype.type(eps))
    y[...] = (x - mean[:, None]) * inverse[:, None]


def batch_norm_backward(
    x: Array, mean: Array, variance: Array, eps: float, d_y: Array, d_x: Array
) -> None:
    """Gradient of :func:`batch_norm_forward` where mean and variance are those of x.

    With m = N * S values in a channel and x^ = (x - mean) / sqrt(variance + eps),

    d_x = (d_y - sum(d_y) / m - x^ * sum(d_y * x^) / m) / sqrt(variance + eps).

    d_x may be d_y itself.
    """
    inverse = 1 / np.sqrt(variance + variance.dtype.type(eps))
    normalized = (x - mean[:, None]) * inverse[:, None]
    common = d_y.mean(axis=(0, 2), dtype=np.float64)
    slope = (d_y * normalized).mean(axis=(0, 2), dtype=np.float64)
    shared = common[:, None] + slope[:, None] * normalized
    d_x[...] = (d_y - shared.astype(x.dtype)) * inverse[:, None]


def norm_scale_forward(
    x: Array,
    mean: Array,
    variance: Array,
    eps: float,
    scale: Array,
    bias: Array | None,
    y: Array,
    relu: bool = False,
) -> None:
    """:func:`batch_norm_forward`, :func:`channel_scale` and a ReLU, one after the other."""
    batch_norm_forward(x, mean, variance, eps, y)
    channel_scale(y, scale, bias, y)
    if relu:
        relu_forward(y, 0.0, y)


def norm_scale_backward(
    x: Array,
    y: Array,
    mean: Array,
    variance: Array,
    eps: float,
    scale: Array,
    d_y: Array,
    d_scale: Array,
    d_bias: Array | None,
    d_x: Array,
    relu: bool = False,
) -> None:
    """Gradient of :func:`norm_scale_forward` where mean and variance are those of x.

    With g = d_y, 0 where y is not positive if there is a ReLU: d_bias += sum of g, d_scale += sum
    of g * x^, and d_x is the gradient of the normalization for scale * g. d_x may be d_y itself.
    """
    g = np.where(y > 0, d_y, 0) if relu else d_y
    normalized = np.empty_like(x)
    batch_norm_forward(x, mean, variance, eps, normalized)
    channel_scale_gradient(normalized, g, d_scale)
    if d_bias is not None:
        d_bias += g.sum(axis=(0, 2), dtype=np.float64).astype(x.dtype)
    batch_norm_backward(x, mean, variance, eps, g * scale[:, None], d_x)


def channel_scale(x: Array, scale: Array, bias: Array | None, y: Array) -> None:
    """Y = scale[c] * x + bias[c] for every channel c of (N, C, S); y may be x itself."""
    y[...] = x * scale[:, None]
    if bias is not None:
        y += bias[:, None]


def channel_scale_gradient(x: Array, d_y: Array, d_scale: Array) -> None:
    """d_scale += sum of d_y * x over every channel of (N, C, S)."""
    d_scale += (d_y * x).sum(axis=(0, 2), dtype=np.float64).astype(x.dtype)


# --- activations ---


def relu_forward(x: Array, negative_slope: float, y: Array) -> None:
    """Y = x where x > 0, negative_slope * x elsewhere; y may be x itself."""
    y[...] = np.where(x > 0, x, x * x.dtype.type(negative_slope))


def relu_backward(x: Array, d_y: Array, negative_slope: float, d_x: Array) -> None:
    """d_x = d_y where x > 0, negative_slope * d_y elsewhere; x may be the layer's own output."""
    d_x[...] = np.where(x > 0, d_y, d_y * d_y.dtype.type(negative_slope))


def weighted_sum(
    a: Array, alpha: float, b: Array, beta: float, y: Array, relu: bool = False
) -> None:
    """Y = alpha * a + beta * b, rectified if asked for; y may be a or b itself."""
    number = a.dtype.type
    y[...] = number(alpha) * a + number(beta) * b
    if relu:
        relu_forward(y, 0.0, y)


def sum_relu_backward(y: Array, d_y: Array, d_a: Array, d_b: Array) -> None:
    """Gradient of y = max(a + b, 0): both get d_y where y > 0, else 0; d_a may be d_y itself."""
    d_a[...] = np.where(y > 0, d_y, 0)
    d_b[...] = d_a


def softmax_forward(x: Array, y: Array) -> None:
    """Y = exp(x - max) / sum exp(x - max) over the middle axis of (outer, classes, inner)."""
    np.exp(x - x.max(axis=1, keepdims=True), out=y)
    y /= y.sum(axis=1, keepdims=True)


def softmax_backward(y: Array, d_y: Array, d_x: Array) -> None:
    """d_x = y * (d_y - sum over classes of d_y * y), all (outer, classes, inner)."""
    d_x[...] = y * (d_y - (d_y * y).sum(axis=1, keepdims=True))


def read_labels(
    values: Array,
    classes: int,
    ignore_label: int | None,
    labels: Array,
    valid: Array,
    status: Array,
) -> None:
    """Read labels as whole numbers and find which of them count.

    Parameters
    ----------
    values : floating-point numbers, 0 .. classes - 1 each, or ``ignore_label``
    labels : int64, written
        Ignored positions hold class 0, so that the array can be used as an index.
    valid : bool, written
        False where the label is ``ignore_label``.
    status : float64 (2,)
        Becomes (1, label) where a label is no class; else left as it is.
    """
    valid[...] = True if ignore_label is None else values != ignore_label
    # written so that NaN counts as bad
    good = (values >= 0) & (values < classes) & (values == np.floor(values))
    bad = valid & ~good
    if bad.any():
        status[...] = 1, values[bad][0]
    labels[...] = np.where(valid & good, values, 0)


def label_loss(
    p: Array,
    labels: Array,
    valid: Array,
    least: float,
    normalizer: int | None,
    loss: Array,
    count: Array,
) -> None:
    """Mean negative log-probability of labels: loss = -1/n * sum of log max(p[label], least).

    Parameters
    ----------
    p : (outer, classes, inner)
    labels, valid : (outer, inner), see :func:`read_labels`
    normalizer : int or None
        n; None for the number of valid positions. At least 1 in any case.
    loss : (), written
    count : float64 (), written
        n as it was used.
    """
    p_label = np.take_along_axis(p, labels[:, None, :], axis=1)[:, 0, :]  # (outer, inner)
    log_p = np.log(np.maximum(p_label, least))
    count[...] = max(1, int(valid.sum()) if normalizer is None else normalizer)
    loss[...] = -(log_p * valid).sum(dtype="float64") / count


def label_loss_backward(
    p: Array, labels: Array, valid: Array, weight: Array, count: Array, d_x: Array
) -> None:
    """Gradient of :func:`label_loss` where p is a softmax of x.

    d_x = weight / count * (p - 1 at the label), 0 where the position does not count.

    Parameters
    ----------
    weight, count : ()
        Gradient of the loss, and its n.
    """
    outer, _, inner = p.shape
    d_x[...] = p
    d_x[np.arange(outer)[:, None], labels, np.arange(inner)[None, :]] -= 1
    d_x *= valid[:, None, :]
    d_x *= float(weight) / float(count)


# --- regularization ---


def tile_square_sums(w: Array, ydim: int, xdim: int, sums: Array) -> None:
    """Sum of squares of every tile of ydim rows by xdim columns: ||w_g||^2 of each group.

    Parameters
    ----------
    w : (R, C)
    sums : float64 (R/ydim, C/xdim), written; double, so that tiny float32 weights do not underflow
    """
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    np.square(tiles, dtype=np.float64).sum(axis=(1, 3), out=sums)


def tile_add_scaled(w: Array, factors: Array, ydim: int, xdim: int, d_w: Array) -> None:
    """d_w += factors[tile] * w, one float64 factor for each tile (ydim rows, xdim columns)."""
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    d_tiles = d_w.reshape(tiles.shape)
    d_tiles += (factors[:, None, :, None] * tiles).astype(w.dtype)


def tile_scale(factors: Array, ydim: int, xdim: int, w: Array) -> None:
    """``w *= factors[tile]``, one float64 factor for each tile; a factor of 0 leaves exactly +0."""
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    by_tile = factors[:, None, :, None]
    tiles[...] = np.where(by_tile == 0, 0.0, by_tile * tiles)


def add_l2(w: Array, strength: float, multiplier: Array | None, d_w: Array) -> None:
    """d_w += strength * multiplier * w (multiplier: one number per weight, None for 1)."""
    decay = w.dtype.type(strength) * w
    d_w += decay if multiplier is None else decay * multiplier


def add_l1(w: Array, strength: float, multiplier: Array | None, d_w: Array) -> None:
    """d_w += strength * multiplier * sign(w), with sign(0) = 0."""
    decay = w.dtype.type(strength) * np.sign(w)
    d_w += decay if multiplier is None else decay * multiplier


def sum_of_squares(w: Array, multiplier: Array | None = None) -> float:
    """Sum of multiplier * w^2, accumulated in float64."""
    squares = np.square(w, dtype=np.float64)
    return float(squares.sum() if multiplier is None else (squares * multiplier).sum())


def sum_of_magnitudes(w: Array, multiplier: Array | None = None) -> float:
    """Sum of |multiplier * w|, accumulated in float64."""
    values = w if multiplier is None else w * multiplier
    return float(np.abs(values).sum(dtype=np.float64))


# --- update ---


def sgd_update(d_w: Array, history: Array, rate: float, momentum: float) -> None:
    """H = momentum * h + rate * d_w; the step, left in d_w, is h."""
    history *= d_w.dtype.type(momentum)
    history += d_w.dtype.type(rate) * d_w
    d_w[...] = history


def nesterov_update(d_w: Array, history: Array, rate: float, momentum: float) -> None:
    """h_new = momentum * h + rate * d_w; the step is (1 + momentum) * h_new - momentum * h."""
    momentum = d_w.dtype.type(momentum)
    previous = history.copy()
    history *= momentum
    history += d_w.dtype.type(rate) * d_w
    d_w[...] = (1 + momentum) * history - momentum * previous


def adam_update(
    d_w: Array, m: Array, v: Array, rate: float, beta1: float, beta2: float, delta: float
) -> None:
    """m, v: running means of d_w and d_w^2; the step is rate * m / (sqrt(v) + delta).

    ``rate`` already holds the bias correction sqrt(1 - beta2^t) / (1 - beta1^t).
    """
    one, b1, b2 = d_w.dtype.type(1), d_w.dtype.type(beta1), d_w.dtype.type(beta2)
    m *= b1
    m += (one - b1) * d_w
    v *= b2
    v += (one - b2) * d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * m / (np.sqrt(v) + d_w.dtype.type(delta))


def adagrad_update(d_w: Array, history: Array, rate: float, delta: float) -> None:
    """H = h + d_w^2; the step is rate * d_w / (sqrt(h) + delta)."""
    history += d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * d_w / (np.sqrt(history) + d_w.dtype.type(delta))


def rmsprop_update(d_w: Array, history: Array, rate: float, decay: float, delta: float) -> None:
    """h: running mean of d_w^2; the step is rate * d_w / (sqrt(h) + delta)."""
    one, decay = d_w.dtype.type(1), d_w.dtype.type(decay)
    history *= decay
    history += (one - decay) * d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * d_w / (np.sqrt(history) + d_w.dtype.type(delta))


def adadelta_update(
    d_w: Array, squares: Array, steps: Array, rate: float, decay: float, delta: float
) -> None:
    """squares, steps: running means of d_w^2 and of u^2; the step is rate * u.

    u = d_w * sqrt((steps + delta) / (squares + delta)), with the new ``squares`` and the old
    ``steps``.
    """
    one, decay, delta = d_w.dtype.type(1), d_w.dtype.type(decay), d_w.dtype.type(delta)
    squares *= decay
    squares += (one - decay) * d_w * d_w
    d_w *= np.sqrt((steps + delta) / (squares + delta))
    steps *= decay
    steps += (one - decay) * d_w * d_w
    d_w *= d_w.dtype.type(rate)


def apply_update(w: Array, d_w: Array, mask: Array | None) -> None:
    """``d_w *= mask`` (frozen weights do not move), then ``w -= d_w``."""
    if mask is not None:
        d_w *= mask
    w -= d_w


def zero_out(w: Array, threshold: float) -> None:
    """Set every weight with -threshold < w < threshold to exactly 0 (strict)."""
    limit = w.dtype.type(threshold)
    w[(w < limit) & (w > -limit)] = 0


def sgd_step(
    w: Array,
    d_w: Array,
    history: Array,
    average: float,
    decay: tuple[str, float] | None,
    multiplier: Array | None,
    groups: Sequence[tuple[int, int, float]],
    rate: float,
    momentum: float,
    nesterov: bool,
    mask: Array | None,
    threshold: float,
) -> None:
    """Run the whole update of a parameter: the single steps, one after the other.

    ``d_w *= average``, weight decay, group lasso, momentum, mask, ``w -= d_w``, zero-out.

    Parameters
    ----------
    w, d_w, history : arrays of one shape, changed
    decay : ("L1" or "L2", strength) or None
    multiplier, mask : arrays or None
    groups : sequence of (rows, columns, strength)
        Tiles of the weights seen as a matrix (rows = ``shape[0]``).
    threshold : float
        Of the zero-out; 0 for none.
    """
    d_w *= d_w.dtype.type(average)
    if decay:
        kind, strength = decay
        (add_l1 if kind == "L1" else add_l2)(w, strength, multiplier, d_w)
    matrix, d_matrix = (a.reshape(w.shape[0] if w.ndim else 1, -1) for a in (w, d_w))  # (R, C)
    for ydim, xdim, strength in groups:
        sums = np.empty((matrix.shape[0] // ydim, matrix.shape[1] // xdim))
        tile_square_sums(matrix, ydim, xdim, sums)
        some = sums != 0
        factors = np.where(some, strength / np.sqrt(np.where(some, sums, 1.0)), 0.0)
        tile_add_scaled(matrix, factors, ydim, xdim, d_matrix)
    (nesterov_update if nesterov else sgd_update)(d_w, history, rate, momentum)
    apply_update(w, d_w, mask)
    if threshold:
        zero_out(w, threshold)


def all_finite(w: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(w).all())


def are_finite(arrays: Any) -> bool:
    """Whether no element of any array is NaN or infinite."""
    return all(all_finite(array) for array in arrays)


# --- what a backend says of itself ---

#: whether results are there when a function returns; a device computes them later
WAITS = True


class Timer:
    """Measure the time between two points; a device does so by its own clock."""

    def start(self) -> None:
        """Mark the beginning."""
        self.begin = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since then."""
        return time.perf_counter() - self.begin


def at_once(check: Any) -> None:
    """Run a check that reads results, unless that would mean to wait for them.

    A backend that does not wait leaves it to :meth:`minissl.net.Net.check`.
    """
    check()
