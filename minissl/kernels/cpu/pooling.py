"""Max and average pooling; a thread owns whole planes (one channel of one image).

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import kernel, parallel_kernel, prange, unsigned


@kernel
def largest(image, W, top, bottom, left, right):
    """Index and value of the largest pixel of a window; ``image`` is a flat plane of width W."""
    index = unsigned(top * W + left)
    best = image[index]
    for h in range(top, bottom):
        row = unsigned(h * W)
        for w in range(unsigned(left), unsigned(right)):
            value = image[row + w]
            larger = value > best
            best = value if larger else best
            index = row + w if larger else index
    return index, best


@parallel_kernel
def _max_pool_halves(x, y, argmax):
    """Windows of 2 x 2 that lie side by side, the usual case: no bounds, no inner loops."""
    N, C, _, W = x.shape
    P, Q = unsigned(y.shape[2]), unsigned(y.shape[3])
    W = unsigned(W)
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        for p in range(P):
            top = unsigned(2) * p * W
            for q in range(Q):
                at = top + unsigned(2) * q
                a, b = image[at], image[at + unsigned(1)]
                c_, d = image[at + W], image[at + W + unsigned(1)]
                best, index = a, at
                index = at + unsigned(1) if b > best else index
                best = b if b > best else best
                index = at + W if c_ > best else index
                best = c_ if c_ > best else best
                index = at + W + unsigned(1) if d > best else index
                best = d if d > best else best
                out[p * Q + q] = best
                where[p * Q + q] = index


@parallel_kernel
def _max_pool_forward(x, kernel, stride, pad, y, argmax):
    """Find the winner of every window of every plane; x is C-contiguous."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c].reshape(-1), y[n, c], argmax[n, c]
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H)
            top = max(top, 0)
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W)
                index, best = largest(image, W, top, bottom, max(left, 0), right)
                out[p, q] = best
                where[p, q] = index


def max_pool_forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was; see the reference."""
    whole = 2 * y.shape[2] <= x.shape[2] and 2 * y.shape[3] <= x.shape[3]
    if tuple(kernel) == tuple(stride) == (2, 2) and tuple(pad) == (0, 0) and whole:
        _max_pool_halves(np.ascontiguousarray(x), y, argmax)
        return
    _max_pool_forward(np.ascontiguousarray(x), kernel, stride, pad, y, argmax)


@parallel_kernel
def _max_pool_backward(d_y, argmax, d_x):
    N, C = d_x.shape[:2]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        target = d_x[n, c].reshape(-1)
        source, where = d_y[n, c].reshape(-1), argmax[n, c].reshape(-1)
        target[:] = 0
        for i in range(source.size):
            target[where[i]] += source[i]


@parallel_kernel
def _ave_pool_forward(x, kernel, stride, pad, y):
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out = x[n, c], y[n, c]
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H + pad[0])
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W + pad[1])
                area = (bottom - top) * (right - left)
                total = image[0, 0] * 0
                for h in range(max(top, 0), min(bottom, H)):
                    for w in range(max(left, 0), min(right, W)):
                        total += image[h, w]
                out[p, q] = total / area


@parallel_kernel
def _ave_pool_backward(d_y, kernel, stride, pad, d_x):
    N, C, H, W = d_x.shape
    P, Q = d_y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        target, source = d_x[n, c], d_y[n, c]
        target[:, :] = 0
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H + pad[0])
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W + pad[1])
                share = source[p, q] / ((bottom - top) * (right - left))
                for h in range(max(top, 0), min(bottom, H)):
                    for w in range(max(left, 0), min(right, W)):
                        target[h, w] += share


def max_pool_backward(d_y, argmax, d_x) -> None:
    """Send each gradient to the winner of its window; see the reference."""
    _max_pool_backward(np.ascontiguousarray(d_y), argmax, d_x)


def ave_pool_forward(x, kernel, stride, pad, y) -> None:
    """Mean of each window; see the reference."""
    _ave_pool_forward(np.ascontiguousarray(x), kernel, stride, pad, y)


def ave_pool_backward(d_y, kernel, stride, pad, d_x) -> None:
    """Spread each gradient evenly over its window; see the reference."""
    _ave_pool_backward(np.ascontiguousarray(d_y), kernel, stride, pad, d_x)
