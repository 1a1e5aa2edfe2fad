"""Lowering: a convolution's image as the matrix its weights are multiplied with."""

from __future__ import annotations

import numpy as np

from minissl.kernels.geometry import convolution_output
from minissl.kernels.reference.types import Array, Pair


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
