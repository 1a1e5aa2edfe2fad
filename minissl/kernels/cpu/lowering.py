"""im2col and col2im of one image, compiled; used by the convolution kernels and on their own.

C channels, H x W input pixels, kh x kw kernel, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import kernel
from minissl.kernels.geometry import convolution_output


@kernel
def valid_range(size, length, stride, offset):
    """Outputs first..last-1 whose input ``p * stride + offset`` lies inside 0..size-1."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(length, (size - offset + stride - 1) // stride) if offset < size else 0
    return min(first, length), max(last, min(first, length))


@kernel
def lower_image(x, kernel, stride, pad, dilation, P, Q, col):
    """X (C, H, W) -> col (C*kh*kw, P, Q): see :func:`minissl.kernels.reference.im2col`."""
    C, H, W = x.shape
    kh, kw = kernel
    row = 0
    for c in range(C):
        for r in range(kh):
            top = r * dilation[0] - pad[0]
            first_p, last_p = valid_range(H, P, stride[0], top)
            for q in range(kw):
                left = q * dilation[1] - pad[1]
                first, last = valid_range(W, Q, stride[1], left)
                out = col[row]
                row += 1
                if last - first < Q or last_p - first_p < P:
                    out[:, :] = 0
                if first >= last:
                    continue
                start = first * stride[1] + left
                if stride[1] == 1:
                    for p in range(first_p, last_p):
                        source = x[c, p * stride[0] + top]
                        out[p, first:last] = source[start : start + last - first]
                else:
                    for p in range(first_p, last_p):
                        source = x[c, p * stride[0] + top]
                        for s in range(first, last):
                            out[p, s] = source[s * stride[1] + left]


@kernel
def raise_image(col, kernel, stride, pad, dilation, P, Q, x):
    """Col (C*kh*kw, P, Q) -> x (C, H, W), the adjoint of :func:`lower_image`."""
    C, H, W = x.shape
    kh, kw = kernel
    x[:, :, :] = 0
    row = 0
    for c in range(C):
        for r in range(kh):
            top = r * dilation[0] - pad[0]
            first_p, last_p = valid_range(H, P, stride[0], top)
            for q in range(kw):
                left = q * dilation[1] - pad[1]
                first, last = valid_range(W, Q, stride[1], left)
                source = col[row]
                row += 1
                if first >= last:
                    continue
                start = first * stride[1] + left
                if stride[1] == 1:
                    for p in range(first_p, last_p):
                        target = x[c, p * stride[0] + top]
                        target[start : start + last - first] += source[p, first:last]
                else:
                    for p in range(first_p, last_p):
                        target = x[c, p * stride[0] + top]
                        for s in range(first, last):
                            target[s * stride[1] + left] += source[p, s]


def im2col(x, kernel, stride, pad, dilation, col) -> None:
    """Lower one image; see the reference."""
    P = convolution_output(x.shape[1], kernel[0], stride[0], pad[0], dilation[0])
    Q = convolution_output(x.shape[2], kernel[1], stride[1], pad[1], dilation[1])
    x = np.ascontiguousarray(x)
    lower_image(x, kernel, stride, pad, dilation, P, Q, col.reshape(-1, P, Q))


def col2im(col, kernel, stride, pad, dilation, x) -> None:
    """Adjoint of :func:`im2col`; see the reference."""
    P = convolution_output(x.shape[1], kernel[0], stride[0], pad[0], dilation[0])
    Q = convolution_output(x.shape[2], kernel[1], stride[1], pad[1], dilation[1])
    raise_image(col.reshape(-1, P, Q), kernel, stride, pad, dilation, P, Q, x)
