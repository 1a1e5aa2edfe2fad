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
def lower_row(plane, top, left, stride, out):
    """One row of the lowered matrix: the plane (H, W) shifted by (top, left), out is (P, Q)."""
    H, W = plane.shape
    P, Q = out.shape
    first_p, last_p = valid_range(H, P, stride[0], top)
    first, last = valid_range(W, Q, stride[1], left)
    if last - first < Q or last_p - first_p < P:
        out[:, :] = 0
    if first >= last:
        return
    start = first * stride[1] + left
    for p in range(first_p, last_p):
        source = plane[p * stride[0] + top]
        if stride[1] == 1:
            out[p, first:last] = source[start : start + last - first]
        else:
            for s in range(first, last):
                out[p, s] = source[s * stride[1] + left]


@kernel
def lower_image(x, kernel, stride, pad, dilation, col):
    """X (C, H, W) -> col (C*kh*kw, P, Q): see :func:`minissl.kernels.reference.im2col`."""
    kh, kw = kernel
    for row in range(col.shape[0]):
        c, r, q = row // (kh * kw), row // kw % kh, row % kw
        lower_row(x[c], r * dilation[0] - pad[0], q * dilation[1] - pad[1], stride, col[row])


@kernel
def lower_columns_of(x, columns, kernel, stride, pad, dilation, col):
    """Only the kept columns: x (C, H, W) -> col (len(columns), P, Q)."""
    kh, kw = kernel
    for row in range(columns.size):
        k = columns[row]
        c, r, q = k // (kh * kw), k // kw % kh, k % kw
        lower_row(x[c], r * dilation[0] - pad[0], q * dilation[1] - pad[1], stride, col[row])


@kernel
def raise_image(col, kernel, stride, pad, dilation, x):
    """Col (C*kh*kw, P, Q) -> x (C, H, W), the adjoint of :func:`lower_image`."""
    C, H, W = x.shape
    P, Q = col.shape[1:]
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
    lower_image(x, kernel, stride, pad, dilation, col.reshape(-1, P, Q))


def col2im(col, kernel, stride, pad, dilation, x) -> None:
    """Adjoint of :func:`im2col`; see the reference."""
    P = convolution_output(x.shape[1], kernel[0], stride[0], pad[0], dilation[0])
    Q = convolution_output(x.shape[2], kernel[1], stride[1], pad[1], dilation[1])
    raise_image(col.reshape(-1, P, Q), kernel, stride, pad, dilation, x)


def lower_columns(x, columns, kernel, stride, pad, dilation, col) -> None:
    """Lower only some columns; see the reference."""
    P = convolution_output(x.shape[1], kernel[0], stride[0], pad[0], dilation[0])
    x = np.ascontiguousarray(x)
    lower_columns_of(x, columns, kernel, stride, pad, dilation, col.reshape(len(columns), P, -1))
