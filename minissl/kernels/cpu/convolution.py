"""Convolution by lowering and GEMM, forward and both gradients, parallel over chunks of images.

A chunk is a few images whose lowered matrix fits the second-level cache, or, forward, some output
rows of one image; each is lowered into the scratch memory of its thread and multiplied by a
single-threaded GEMM:

    forward        Y[g]   = W[g]   @ col        (F/G, K)   @ (K, B*P*Q)
    weights        dW[g] += dY[g]  @ col^T      (F/G, B*P*Q) @ (B*P*Q, K)
    input          dcol   = W[g]^T @ dY[g]      (K, F/G)   @ (F/G, B*P*Q), then col2im

Dimensions: N images in chunks of B, C channels, F filters, G conv groups, K = C/G * kh * kw,
P x Q output pixels, P in bands of R rows.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.activations import rectified
from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    scratch,
    step,
)
from minissl.kernels.cpu.lowering import lower_image, raise_image
from minissl.kernels.cpu.stages import ALL, LOWER, MULTIPLY, SCATTER

#: bytes of a chunk's lowered matrix: half of a common second-level cache
CHUNK_BYTES = 512 * 1024


def images_per_chunk(N: int, K: int, pixels: int, itemsize: int) -> int:
    """Number of images B lowered together, from shapes alone (never from the threads)."""
    return max(1, min(N, CHUNK_BYTES // max(1, K * pixels * itemsize)))


def rows_per_chunk(K: int, P: int, Q: int, itemsize: int) -> int:
    """Number of output rows R lowered together: all P, or bands of an image that is too large."""
    most = max(1, CHUNK_BYTES // max(1, K * Q * itemsize))
    return step(P, -(-P // most))


@kernel
def chunks_of(N, P, cut):
    """Number of chunks; ``cut`` is (B, R, Q)."""
    return -(-N // cut[0]) * -(-P // cut[1])


@kernel
def chunk_at(index, N, P, cut):
    """Return first image, number of images, first row, and first pixel and last of a chunk."""
    B, R, Q = cut
    bands = -(-P // R)
    number = np.int64(index)  # prange counts in unsigned numbers
    first, row = number // bands * B, number % bands * R
    return first, min(B, N - first), row, row * Q, min(P, row + R) * Q


@kernel
def every(K):
    """All columns; within a parallel kernel ``arange`` would be a parallel loop of its own."""
    return np.arange(K)


@kernel
def lower_chunk(x, columns, first, images, channel, channels, geometry, row, Q, pixels, col):
    """Lower some images of one conv group side by side: col is (len(columns), images * pixels).

    The pixels are those from output row ``row`` on. ``geometry`` is explained in
    :mod:`minissl.kernels.cpu.lowering`.
    """
    for i in range(images):
        image = x[first + i, channel : channel + channels]
        lower_image(image, columns, geometry, row, Q, pixels, col, i * pixels)


@kernel
def add_bias(source, bias, relu, target):
    """target = source + bias, rectified where ``relu`` says so, along one run of pixels."""
    if relu:
        for j in range(source.size):
            target[j] = rectified(source[j] + bias)
    else:
        for j in range(source.size):
            target[j] = source[j] + bias


@kernel
def copy(source, target):
    """target = source, along one run."""
    for j in range(source.size):
        target[j] = source[j]


@kernel
def accumulate(source, target):
    """target += source, along one run."""
    for j in range(source.size):
        target[j] += source[j]


@kernel
def run_sum(run):
    """Sum of a run, in four interleaved parts that do not wait for each other."""
    a = b = c = d = run[0] * 0
    whole = run.size // 4 * 4
    for j in range(0, whole, 4):
        a += run[j]
        b += run[j + 1]
        c += run[j + 2]
        d += run[j + 3]
    for j in range(whole, run.size):
        a += run[j]
    return (a + b) + (c + d)


@kernel
def gather(d_y, first, images, filter, filters, pixels, d_out):
    """Bring the gradients of a chunk into one matrix: d_out is (F/G, images * P*Q)."""
    for f in range(filters):
        for i in range(images):
            copy(d_y[first + i, filter + f], d_out[f][i * pixels : (i + 1) * pixels])


@parallel_kernel
def _forward(x, w, b, geometry, cut, cols, outs, relu, y, stages):
    """Run all chunks; w is (G, F/G, K), b is (F,), y is (N, F, P*Q); cols and outs hold scratch."""
    N, C = x.shape[:2]
    G, filters, K = w.shape
    channels = C // G
    Q = cut[2]
    P = y.shape[2] // Q
    columns = every(K)
    for chunk in prange(chunks_of(N, P, cut)):
        thread = get_thread_id()
        first, images, row, begin, end = chunk_at(chunk, N, P, cut)
        pixels = end - begin
        width = images * pixels
        col = cols[thread, : K * width].reshape(K, width)
        out = outs[thread, : filters * width].reshape(filters, width)
        for g in range(G):
            if stages & LOWER:
                lower_chunk(
                    x, columns, first, images, g * channels, channels, geometry, row, Q, pixels, col
                )
            if stages & MULTIPLY:
                np.dot(w[g], col, out)
            if stages & SCATTER:
                for i in range(images):
                    for f in range(filters):
                        source = out[f][i * pixels : (i + 1) * pixels]
                        filter = g * filters + f
                        add_bias(source, b[filter], relu, y[first + i, filter, begin:end])


@parallel_kernel
def _backward_weights(x, d_y, geometry, B, Q, cols, outs, partial):
    """Part p of the sum takes chunks p, p + PARTS, ...; partial is (PARTS, G, F/G, K)."""
    N, C = x.shape[:2]
    parts, G, filters, K = partial.shape
    channels = C // G
    pixels = d_y.shape[2]
    columns = every(K)
    for part in prange(parts):
        thread = get_thread_id()
        product = outs[thread, filters * B * pixels :][: filters * K].reshape(filters, K)
        partial[part] = 0
        for chunk in range(part, (N + B - 1) // B, parts):
            first = chunk * B
            images = min(B, N - first)
            width = images * pixels
            col = cols[thread, : K * width].reshape(K, width)
            d_out = outs[thread, : filters * width].reshape(filters, width)
            for g in range(G):
                lower_chunk(
                    x, columns, first, images, g * channels, channels, geometry, 0, Q, pixels, col
                )
                gather(d_y, first, images, g * filters, filters, pixels, d_out)
                np.dot(d_out, col.T, product)
                accumulate(product.reshape(-1), partial[part, g].reshape(-1))


@parallel_kernel
def _backward_input(d_y, w, geometry, B, Q, cols, outs, d_x):
    """See the module's picture; w is (G, F/G, K), d_y is (N, F, P*Q)."""
    N, C = d_x.shape[:2]
    G, filters, K = w.shape
    channels = C // G
    pixels = d_y.shape[2]
    columns = every(K)
    for chunk in prange((N + B - 1) // B):
        thread = get_thread_id()
        first = chunk * B
        images = min(B, N - first)
        width = images * pixels
        d_col = cols[thread, : K * width].reshape(K, width)
        d_out = outs[thread, : filters * width].reshape(filters, width)
        for g in range(G):
            gather(d_y, first, images, g * filters, filters, pixels, d_out)
            np.dot(w[g].T, d_out, d_col)
            for i in range(images):
                target = d_x[first + i, g * channels : (g + 1) * channels]
                raise_image(d_col, columns, i * pixels, geometry, Q, pixels, target)


@parallel_kernel
def _add_partial(partial, d_w):
    """d_w += sum of the parts, in their order; partial (PARTS, rows, K), d_w (rows, K)."""
    for row in prange(d_w.shape[0]):
        for part in range(partial.shape[0]):
            accumulate(partial[part, row], d_w[row])


@parallel_kernel
def _backward_bias(d_y, d_b):
    """One thread owns a filter; d_y is (N, F, P*Q), summed image by image."""
    for f in prange(d_b.shape[0]):
        total = 0.0
        for n in range(d_y.shape[0]):
            total += run_sum(d_y[n, f])
        d_b[f] += total


def chunk_buffers(chunk: int, K: int, filters: int, pixels: int, dtype: np.dtype, extra: int = 0):
    """Scratch of every thread: the lowered matrix, and outputs (plus ``extra`` elements)."""
    threads = config.NUMBA_NUM_THREADS
    cols = scratch("lowered", (threads, K * chunk * pixels), dtype)
    outs = scratch("outputs", (threads, filters * chunk * pixels + extra), dtype)
    return cols, outs


def conv_forward(x, w, b, stride, pad, dilation, groups, y, relu=False, stages=ALL) -> None:
    """Convolution forward; see the reference. ``stages``: see :mod:`minissl.kernels.cpu.stages`."""
    (N, F, P, Q), kernel = y.shape, w.shape[2:]
    w = w.reshape(groups, F // groups, -1)  # (G, F/G, K)
    K = w.shape[2]
    cut = images_per_chunk(N, K, P * Q, x.itemsize), rows_per_chunk(K, P, Q, x.itemsize), Q
    cols, outs = chunk_buffers(cut[0], K, F // groups, cut[1] * Q, x.dtype)
    b = np.zeros(F, x.dtype) if b is None else b
    geometry = (*kernel, *stride, *pad, *dilation)
    x, y = np.ascontiguousarray(x), y.reshape(N, F, P * Q)
    _forward(x, w, b, geometry, cut, cols, outs, relu, y, stages)


def conv_backward_weights(x, d_y, stride, pad, dilation, groups, d_w) -> None:
    """Gradient of the weights; see the reference."""
    (N, F, P, Q), kernel = d_y.shape, d_w.shape[2:]
    K = d_w.size // F
    B = images_per_chunk(N, K, P * Q, x.itemsize)
    filters = F // groups
    cols, outs = chunk_buffers(B, K, filters, P * Q, x.dtype, extra=filters * K)
    parts = min(PARTS, -(-N // B))
    partial = scratch("partial", (parts, groups, filters, K), x.dtype)
    geometry = (*kernel, *stride, *pad, *dilation)
    d_y = d_y.reshape(N, F, P * Q)
    _backward_weights(np.ascontiguousarray(x), d_y, geometry, B, Q, cols, outs, partial)
    _add_partial(partial.reshape(parts, F, K), d_w.reshape(F, K))


def conv_backward_input(d_y, w, stride, pad, dilation, groups, d_x) -> None:
    """Gradient of the input; see the reference."""
    (N, F, P, Q), kernel = d_y.shape, w.shape[2:]
    w = w.reshape(groups, F // groups, -1)  # (G, F/G, K)
    K = w.shape[2]
    B = images_per_chunk(N, K, P * Q, d_x.itemsize)
    cols, outs = chunk_buffers(B, K, F // groups, P * Q, d_x.dtype)
    geometry = (*kernel, *stride, *pad, *dilation)
    _backward_input(d_y.reshape(N, F, P * Q), w, geometry, B, Q, cols, outs, d_x)


def conv_backward_bias(d_y, d_b) -> None:
    """Gradient of the bias; see the reference."""
    N, F = d_y.shape[:2]
    _backward_bias(d_y.reshape(N, F, -1), d_b)
