"""Direct convolution with sparse weights in plain loops (DIRECT_SCONV, after SkimCaffe).

Nothing is lowered: each non-zero (c, r, q) of a filter is one offset into the padded image, known
before the loops begin, and adds ``value * row`` to a row of outputs. This path takes any stride,
pad, dilation and number type; :mod:`minissl.kernels.cpu.micro` has the fast one.

Filters are laid out along a line, each as long as its non-zeros, image after image, and every
thread takes an equal piece of it: conv groups of unlike sparsity are shared fairly.

Dimensions: N images, C channels, F filters, P x Q output pixels, H' x W' the padded image.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import config, kernel, parallel_kernel, prange, scratch, unsigned


@kernel
def pad_image(x, at, C, H, W, ph, pw, padded):
    """Copy image x[at:] (flat) into the middle of padded (C * H' * W', flat); zeros around it."""
    height, width = H + 2 * ph, W + 2 * pw
    padded[:] = 0
    for row in range(C * H):
        source = unsigned(at + row * W)
        target = unsigned((row // H * height + ph + row % H) * width + pw)
        for i in range(unsigned(W)):
            padded[target + i] = x[source + i]


@kernel
def sparse_output_row(padded, at, values, offsets, first, last, step, out, target, Q):
    """out[target + j] += sum over k of values[k] * padded[at + offsets[k] + j * step], j < Q."""
    target, stride = unsigned(target), unsigned(step)
    for k in range(first, last):
        value, source = values[k], unsigned(at + offsets[k])
        if step == 1:
            for j in range(unsigned(Q)):
                out[target + j] += value * padded[source + j]
        else:
            for j in range(unsigned(Q)):
                out[target + j] += value * padded[source + j * stride]


@parallel_kernel
def _sconv(x, values, offsets, row_start, b, sizes, stride, pad, line, threads, padded, relu, y):
    """Run all images; x and y are flat, ``line`` says where each filter begins on the line."""
    N, C, H, W, F, P, Q = sizes
    row = (W + 2 * pad[1]) * stride[0]
    whole = line[F]
    for index in prange(threads):
        part = np.int64(index)  # prange counts in unsigned numbers
        begin, end = part * whole * N // threads, (part + 1) * whole * N // threads
        image = padded[part]
        for n in range(begin // whole, -(-end // whole)):
            first = np.searchsorted(line[:-1], begin - n * whole)
            last = np.searchsorted(line[:-1], end - n * whole)
            if first < last:
                pad_image(x, n * C * H * W, C, H, W, pad[0], pad[1], image)
            for f in range(first, last):
                start, stop = row_start[f], row_start[f + 1]
                out = (n * F + f) * P * Q
                y[out : out + P * Q] = b[f]
                for p in range(P):
                    sparse_output_row(
                        image, p * row, values, offsets, start, stop, stride[1], y, out + p * Q, Q
                    )
                if relu:
                    for i in range(out, out + P * Q):
                        if y[i] < 0:
                            y[i] = 0


def conv_sconv(
    x, values, columns, row_start, b, kernel, stride, pad, dilation, groups, y, relu=False
) -> None:
    """Convolve by single weights, straight from the image; see the reference."""
    (N, C, H, W), (F, P, Q) = x.shape, y.shape[1:]
    height, width = H + 2 * pad[0], W + 2 * pad[1]
    columns, row_start = np.asarray(columns, np.int64), np.asarray(row_start, np.int64)
    c, r, q = (
        columns // (kernel[0] * kernel[1]),
        columns // kernel[1] % kernel[0],
        columns % kernel[1],
    )
    group = np.repeat(np.arange(F) // (F // groups), np.diff(row_start))
    channel = group * (C // groups) + c
    offsets = (channel * height + r * dilation[0]) * width + q * dilation[1]
    line = np.concatenate([[0], np.cumsum(np.diff(row_start) + 1)])
    padded = scratch("padded", (config.NUMBA_NUM_THREADS, C * height * width), x.dtype)
    sizes = (N, C, H, W, F, P, Q)
    threads = get_num_threads()
    flat = np.ascontiguousarray(x).reshape(-1)
    _sconv(
        flat, values, offsets, row_start, b, sizes, stride, pad, line, threads, padded, relu,
        y.reshape(-1),
    )  # fmt: skip
