"""im2col, its adjoint, and lowering of kept columns, for any number of images at a time.

Dimensions: B images, C channels, H x W pixels, P x Q output pixels; ``columns`` count within a conv
group of ``channels`` channels that begins at ``first``.
"""

from __future__ import annotations

from typing import Any

import cupy

from minissl.kernels.geometry import convolution_output
from minissl.kernels.gpu.raw import THREADS, blocks, each


def lower(x, columns, rows, first, geometry, size, col) -> None:
    """Lower images x (B, C, H, W) into col (rows, B * P * Q).

    Row i is column columns[i] of the weight matrix, or column i where ``columns`` is None.
    ``geometry`` is (kernel, stride, pad, dilation), ``size`` (P, Q).
    """
    B, C, H, W = x.shape
    kernel, stride, pad, dilation = geometry
    P, Q = size
    blocks(
        "lowering", "lower_images", x, rows * -(-B * P * Q // THREADS),
        x, columns, B, first, C, H, W, *kernel, *stride, *pad, *dilation, P, Q, col,
    )  # fmt: skip


def raise_(col, place, first, channels, geometry, size, x) -> None:
    """Adjoint of :func:`lower`: overwrite some channels of x (B, C, H, W).

    Column k of the group is row place[k] of ``col``, none where that is -1; row k where ``place``
    is None.
    """
    B, C, H, W = x.shape
    kernel, stride, pad, dilation = geometry
    P, Q = size
    each(
        "lowering", "raise_images", x, B * channels * H * W,
        col, place, B, channels, first, C, H, W, *kernel, *stride, *pad, *dilation, P, Q, x,
    )  # fmt: skip


def places(kept: Any, count: int, like: Any) -> Any:
    """Return where each of 0 .. count - 1 stands in the rising list ``kept``, -1 for nowhere."""
    place = cupy.empty(count, "int32")
    each("lowering", "find_places", like, count, kept, kept.size, count, place)
    return place


def _size(x, geometry):
    return tuple(
        convolution_output(length, *axis)
        for length, axis in zip(x.shape[-2:], zip(*geometry, strict=True), strict=True)
    )


def im2col(x, kernel, stride, pad, dilation, col) -> None:
    """Lower one image; see the reference."""
    geometry = kernel, stride, pad, dilation
    x = cupy.ascontiguousarray(x)[None]
    lower(x, None, col.shape[0], 0, geometry, _size(x, geometry), col)


def lower_columns(x, columns, kernel, stride, pad, dilation, col) -> None:
    """Lower only some columns; see the reference."""
    geometry = kernel, stride, pad, dilation
    x = cupy.ascontiguousarray(x)[None]
    columns = columns.astype("int64", copy=False)
    lower(x, columns, col.shape[0], 0, geometry, _size(x, geometry), col)


def col2im(col, kernel, stride, pad, dilation, x) -> None:
    """Adjoint of :func:`im2col`; see the reference."""
    geometry = kernel, stride, pad, dilation
    col = cupy.ascontiguousarray(col)
    raise_(col, None, 0, x.shape[0], geometry, _size(x, geometry), x[None])
