"""im2col and col2im of one image, compiled; used by the convolution kernels and on their own.

C channels, H x W input pixels, kh x kw kernel, P x Q output pixels. ``geometry`` is the flat tuple
(kh, kw, stride, stride, pad, pad, dilation, dilation), height before width: inside parallel loops
Numba takes no tuples of tuples.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import kernel, unsigned
from minissl.kernels.geometry import convolution_output


@kernel
def valid_range(size, length, stride, offset):
    """Outputs first..last-1 whose input ``p * stride + offset`` lies inside 0..size-1."""
    first = 0 if offset >= 0 else (-offset + stride - 1) // stride
    last = min(length, (size - offset + stride - 1) // stride) if offset < size else 0
    return min(first, length), max(last, min(first, length))


@kernel
def lower_row(x, plane, H, W, top, left, sh, sw, Q, pixels, col, at):
    """One row of the lowered matrix: col[at : at + P*Q] = the plane shifted by (top, left).

    ``x`` and ``col`` are flat and the indices unsigned, so that the innermost loop compiles to
    vector code: a signed index could be negative, and would be checked for it.

    Parameters
    ----------
    x : 1-D
        The plane is x[plane : plane + H * W].
    """
    P = pixels // Q
    first_p, last_p = valid_range(H, P, sh, top)
    first, last = valid_range(W, Q, sw, left)
    if last - first < Q or last_p - first_p < P:
        start = unsigned(at)
        for i in range(unsigned(pixels)):
            col[start + i] = 0
    length = unsigned(last - first)
    stride = unsigned(sw)
    for p in range(first_p, last_p):
        source = unsigned(plane + (p * sh + top) * W + first * sw + left)
        target = unsigned(at + p * Q + first)
        if sw == 1:
            for i in range(length):
                col[target + i] = x[source + i]
        else:
            for i in range(length):
                col[target + i] = x[source + i * stride]


@kernel
def raise_row(col, at, H, W, top, left, sh, sw, Q, pixels, x, plane):
    """Add one row of the lowered matrix back to its plane, the adjoint of :func:`lower_row`."""
    P = pixels // Q
    first_p, last_p = valid_range(H, P, sh, top)
    first, last = valid_range(W, Q, sw, left)
    length = unsigned(last - first)
    stride = unsigned(sw)
    for p in range(first_p, last_p):
        target = unsigned(plane + (p * sh + top) * W + first * sw + left)
        source = unsigned(at + p * Q + first)
        if sw == 1:
            for i in range(length):
                x[target + i] += col[source + i]
        else:
            for i in range(length):
                x[target + i * stride] += col[source + i]


@kernel
def lower_image(x, columns, geometry, row, Q, pixels, col, first):
    """Some columns k of the weight matrix: x (C, H, W) -> rows of col (len(columns), width).

    Written to col[:, first : first + pixels]: the outputs from row ``row`` on. ``first`` leaves
    room for images beside this one.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    H, W = x.shape[1:]
    width = col.shape[1]
    flat, flat_col = x.reshape(-1), col.reshape(-1)
    for i in range(columns.size):
        k = columns[i]
        c, r, q = k // (kh * kw), k // kw % kh, k % kw
        top, left = r * dh - ph + row * sh, q * dw - pw
        at = i * width + first
        lower_row(flat, c * H * W, H, W, top, left, sh, sw, Q, pixels, flat_col, at)


@kernel
def raise_image(col, columns, first, geometry, Q, pixels, x):
    """Add col[:, first : first + P*Q] back to x (C, H, W), overwritten; adjoint of lowering.

    Row i of ``col`` belongs to column ``columns[i]`` of the weight matrix.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    H, W = x.shape[1:]
    width = col.shape[1]
    flat, flat_col = x.reshape(-1), col.reshape(-1)
    flat[:] = 0
    for i in range(columns.size):
        k = columns[i]
        c, r, q = k // (kh * kw), k // kw % kh, k % kw
        top, left = r * dh - ph, q * dw - pw
        at = i * width + first
        raise_row(flat_col, at, H, W, top, left, sh, sw, Q, pixels, flat, c * H * W)


def _output_width(x, kernel, stride, pad, dilation) -> int:
    return convolution_output(x.shape[2], kernel[1], stride[1], pad[1], dilation[1])


def im2col(x, kernel, stride, pad, dilation, col) -> None:
    """Lower one image; see the reference."""
    lower_columns(x, np.arange(col.shape[0]), kernel, stride, pad, dilation, col)


def lower_columns(x, columns, kernel, stride, pad, dilation, col) -> None:
    """Lower only some columns; see the reference."""
    Q = _output_width(x, kernel, stride, pad, dilation)
    x = np.ascontiguousarray(x)
    lower_image(x, columns, (*kernel, *stride, *pad, *dilation), 0, Q, col.shape[1], col, 0)


def col2im(col, kernel, stride, pad, dilation, x) -> None:
    """Adjoint of :func:`im2col`; see the reference."""
    Q = _output_width(x, kernel, stride, pad, dilation)
    col = np.ascontiguousarray(col)
    every = np.arange(col.shape[0])
    raise_image(col, every, 0, (*kernel, *stride, *pad, *dilation), Q, col.shape[1], x)
