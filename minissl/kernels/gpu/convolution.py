"""Convolution by lowering and cuBLAS, forward and both gradients, a chunk of images at a time.

    forward        out  = W[g]   @ col[g]      (F/G, K)     @ (K, B*P*Q), then scattered to y
    weights        dW  += dY[g]  @ col[g]^T    (F/G, B*P*Q) @ (B*P*Q, K)
    input          dcol = W[g]^T @ dY[g]       (K, F/G)     @ (F/G, B*P*Q), then raised to d_x

The products of all conv groups are one strided-batched GEMM. One chunk follows another on the same
stream, so sums have a fixed order and results repeat bitwise.

Dimensions: N images in chunks of B, C channels, F filters, G conv groups, K = C/G * kh * kw,
P x Q output pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import cupy

from minissl.kernels.cpu.stages import ALL, LOWER, MULTIPLY, SCATTER
from minissl.kernels.gpu.lowering import lower, raise_
from minissl.kernels.gpu.products import multiply
from minissl.kernels.gpu.raw import blocks, each, threads_for

#: bytes of a chunk's lowered matrix
CHUNK_BYTES = 512 * 1024 * 1024


def images_per_chunk(N: int, K: int, pixels: int, itemsize: int) -> int:
    """Return how many images fit a chunk whose matrices have K rows in all; see the reference."""
    return max(1, min(N, CHUNK_BYTES // max(1, K * pixels * itemsize)))


def images_per_panel(N: int, K: int, pixels: int, itemsize: int) -> int:
    """As :func:`images_per_chunk`, of compressed rows."""
    return images_per_chunk(N, K, pixels, itemsize)


def chunks(N: int, rows: int, pixels: int, itemsize: int) -> Iterator[slice]:
    """Divide a batch into chunks."""
    B = images_per_chunk(N, rows, pixels, itemsize)
    return (slice(first, min(N, first + B)) for first in range(0, N, B))


def scatter(out, place, b, relu, y) -> None:
    """Bring products out (rows, B * P*Q) to y (B, F, P, Q), with bias; see filters.cu."""
    B, F, P, Q = y.shape
    each("filters", "scatter_filters", y, y.size, out, place, b, int(relu), B, F, P * Q, y)


def gather(d_y, kept, rows, out) -> None:
    """Bring gradients d_y (B, F, P, Q) of some filters to out (rows, B * P*Q)."""
    B, F, P, Q = d_y.shape
    each("filters", "gather_filters", d_y, out.size, d_y, kept, rows, B, F, P * Q, out)


def conv_forward(x, w, b, stride, pad, dilation, groups, y, relu=False, stages=ALL) -> None:
    """Convolve by lowering and GEMM; see the reference."""
    (N, F, P, Q), kernel = y.shape, w.shape[2:]
    x = cupy.ascontiguousarray(x)
    weights = w.reshape(groups, F // groups, -1)  # (G, F/G, K)
    rows = groups * weights.shape[2]
    geometry = kernel, stride, pad, dilation
    for images in chunks(N, rows + F, P * Q, x.itemsize):
        B = images.stop - images.start
        col = cupy.empty((groups, rows // groups, B * P * Q), x.dtype)  # (G, K, B*P*Q)
        out = cupy.empty((groups, F // groups, B * P * Q), x.dtype)
        if stages & LOWER:
            lower(x[images], None, rows, 0, geometry, (P, Q), col)
        if stages & MULTIPLY:
            multiply(weights, col, out)  # (F/G, K) @ (K, B*P*Q), for each group
        if stages & SCATTER:
            scatter(out, None, b, relu, y[images])


def conv_backward_weights(x, d_y, stride, pad, dilation, groups, d_w) -> None:
    """Gradient of the weights; see the reference."""
    N, F, P, Q = d_y.shape
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    d_weights = d_w.reshape(groups, F // groups, -1)  # (G, F/G, K), a view
    rows = groups * d_weights.shape[2]
    geometry = d_w.shape[2:], stride, pad, dilation
    for images in chunks(N, rows + F, P * Q, x.itemsize):
        B = images.stop - images.start
        col = cupy.empty((groups, rows // groups, B * P * Q), x.dtype)
        d_out = cupy.empty((groups, F // groups, B * P * Q), x.dtype)
        lower(x[images], None, rows, 0, geometry, (P, Q), col)
        gather(d_y[images], None, F, d_out)
        multiply(d_out, col, d_weights, transpose_b=True, accumulate=True)


def conv_backward_input(d_y, w, stride, pad, dilation, groups, d_x) -> None:
    """Gradient of the input; see the reference."""
    N, F, P, Q = d_y.shape
    d_y = cupy.ascontiguousarray(d_y)
    weights = w.reshape(groups, F // groups, -1)  # (G, F/G, K)
    rows = groups * weights.shape[2]
    geometry = w.shape[2:], stride, pad, dilation
    for images in chunks(N, rows + F, P * Q, d_y.itemsize):
        B = images.stop - images.start
        d_col = cupy.empty((groups, rows // groups, B * P * Q), d_y.dtype)
        d_out = cupy.empty((groups, F // groups, B * P * Q), d_y.dtype)
        gather(d_y[images], None, F, d_out)
        multiply(weights, d_out, d_col, transpose_a=True)
        raise_(d_col, None, 0, d_x.shape[1], geometry, (P, Q), d_x[images])


def conv_backward_bias(d_y, d_b) -> None:
    """Gradient of the bias; see the reference."""
    N, F, P, Q = d_y.shape
    threads = threads_for(N * P * Q)
    d_y = cupy.ascontiguousarray(d_y)
    blocks("bias", "bias_gradient", d_y, F, d_y, N, F, P * Q, d_b, threads=threads)
