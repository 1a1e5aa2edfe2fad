"""Convolution and pooling by their definition, one multiplication at a time.

Slow on purpose: even the NumPy reference is tested against these loops.
"""

import itertools

import numpy as np


def convolve(x, w, b, stride, pad, dilation, groups):
    """y[n, f, p, s] = b[f] + sum over c, r, q of w[f, c, r, q] * x[n, ...]."""
    N, _, H, W = x.shape
    F, channels, kh, kw = w.shape
    P = (H + 2 * pad[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    Q = (W + 2 * pad[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((N, F, P, Q), x.dtype)
    for n, f, p, s in itertools.product(range(N), range(F), range(P), range(Q)):
        first = f // (F // groups) * channels
        total = 0.0 if b is None else b[f]
        for c, r, q in itertools.product(range(channels), range(kh), range(kw)):
            h = p * stride[0] + r * dilation[0] - pad[0]
            v = s * stride[1] + q * dilation[1] - pad[1]
            if 0 <= h < H and 0 <= v < W:
                total += w[f, c, r, q] * x[n, first + c, h, v]
        y[n, f, p, s] = total
    return y


def normalize(x, window, alpha, beta, k):
    """y = x / (k + alpha / |window| * sum of x^2 over the window around it)^beta."""
    C, H, W = x.shape[1:]
    depth, height, width = (length // 2 for length in window)
    y = np.zeros_like(x)
    for n, c, h, v in np.ndindex(x.shape):
        energy = 0.0
        for i, j, m in itertools.product(
            range(c - depth, c + depth + 1),
            range(h - height, h + height + 1),
            range(v - width, v + width + 1),
        ):
            if 0 <= i < C and 0 <= j < H and 0 <= m < W:
                energy += x[n, i, j, m] ** 2
        y[n, c, h, v] = x[n, c, h, v] / (k + alpha / np.prod(window) * energy) ** beta
    return y


def pool(x, kernel, stride, pad, P, Q, method):
    """Maximum or mean of each window, Caffe's rules."""
    N, C, H, W = x.shape
    y = np.zeros((N, C, P, Q), x.dtype)
    for n, c, p, q in itertools.product(range(N), range(C), range(P), range(Q)):
        top, left = p * stride[0] - pad[0], q * stride[1] - pad[1]
        bottom, right = min(top + kernel[0], H + pad[0]), min(left + kernel[1], W + pad[1])
        inside = [
            x[n, c, h, v]
            for h in range(max(top, 0), min(bottom, H))
            for v in range(max(left, 0), min(right, W))
        ]
        area = (bottom - top) * (right - left)
        y[n, c, p, q] = max(inside) if method == "max" else sum(inside) / area
    return y
