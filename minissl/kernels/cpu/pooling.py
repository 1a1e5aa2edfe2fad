"""Max and average pooling; a thread owns whole planes (one channel of one image).

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

from minissl.kernels.cpu.jit import parallel_kernel, prange


@parallel_kernel
def max_pool_forward(x, kernel, stride, pad, y, argmax):
    """Largest value of each window, and where it was; see the reference."""
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, out, where = x[n, c], y[n, c], argmax[n, c]
        for p in range(P):
            top = p * stride[0] - pad[0]
            bottom = min(top + kernel[0], H)
            top = max(top, 0)
            for q in range(Q):
                left = q * stride[1] - pad[1]
                right = min(left + kernel[1], W)
                left = max(left, 0)
                best = image[top, left]
                index = top * W + left
                for h in range(top, bottom):
                    for w in range(left, right):
                        if image[h, w] > best:
                            best = image[h, w]
                            index = h * W + w
                out[p, q] = best
                where[p, q] = index


@parallel_kernel
def max_pool_backward(d_y, argmax, d_x):
    """Send each gradient to the winner of its window; see the reference."""
    N, C, _, W = d_x.shape
    P, Q = d_y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        target, source, where = d_x[n, c], d_y[n, c], argmax[n, c]
        target[:, :] = 0
        for p in range(P):
            for q in range(Q):
                index = where[p, q]
                target[index // W, index % W] += source[p, q]


@parallel_kernel
def ave_pool_forward(x, kernel, stride, pad, y):
    """Mean of each window; see the reference."""
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
def ave_pool_backward(d_y, kernel, stride, pad, d_x):
    """Spread each gradient evenly over its window; see the reference."""
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
