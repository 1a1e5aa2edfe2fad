"""Max and average pooling, and their gradients, by the tiles of :mod:`.pool_tile`.

Threads share the planes. N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.kernels.cpu.jit import parallel_kernel, prange
from minissl.kernels.cpu.micro import isa, pool_tile
from minissl.kernels.cpu.micro.pool_tile import (
    MaxGradientTile,
    MaxPoolTile,
    MeanGradientTile,
    MeanPoolTile,
)
from minissl.kernels.cpu.micro.tiles import address_of, call

#: longer sides of windows, and larger strides, would make long code; there plain loops do
MOST_LENGTH, MOST_STRIDE = 8, 4


def applies(kernel: tuple[int, int], stride: tuple[int, int], *arrays: Any, places: Any) -> bool:
    """Whether there are vectors, and tiles for these windows and arrays.

    Parameters
    ----------
    arrays : arrays
        Must be float32, and one run of memory.
    places : array or None
        Must be int32, and one run of memory.
    """
    fits = max(kernel) <= MOST_LENGTH and max(stride) <= MOST_STRIDE
    fits = fits and all(one.flags.c_contiguous and one.dtype == np.float32 for one in arrays)
    if places is not None:
        fits = fits and places.flags.c_contiguous and places.dtype == np.int32
    return fits and isa.chosen() is not None


def max_forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was unless ``argmax`` is None; contiguous."""
    tile = MaxPoolTile(_lanes(y.shape[3]), kernel[1], stride[1], argmax is not None)
    _pool(x, y, y if argmax is None else argmax, kernel, stride, pad, tile)


def max_backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; contiguous."""
    tile = MaxGradientTile(_lanes(d_y.shape[3]), kernel[1], stride[1], stride[0])
    _pool_back(d_y, argmax, d_x, kernel, stride, pad, tile)


def mean_forward(x, kernel, stride, pad, areas, y) -> None:
    """Sum of each window / its area, of ``areas`` (P, Q); contiguous."""
    tile = MeanPoolTile(_lanes(y.shape[3]), kernel[1], stride[1])
    _pool(x, y, areas, kernel, stride, pad, tile)


def mean_backward(d_y, kernel, stride, pad, areas, d_x) -> None:
    """Spread each gradient / the area of its window over that; contiguous."""
    tile = MeanGradientTile(_lanes(d_y.shape[3]), kernel[1], stride[1], stride[0])
    _pool_back(d_y, 1 / areas, d_x, kernel, stride, pad, tile)


def _lanes(windows: int) -> int:
    """Numbers in a vector; short ones for short rows."""
    vectors = isa.chosen()
    assert vectors is not None
    return 8 if windows <= 8 else vectors.lanes


def _pool(x, y, beside, kernel, stride, pad, tile: Any) -> None:
    sizes = (*x.shape[2:], *y.shape[2:], kernel[0], stride[0], *pad)
    _run(x, y, beside, beside.ndim > 2, sizes, pool_tile.compiled(tile).address)


def _pool_back(d_y, beside, d_x, kernel, stride, pad, tile: Any) -> None:
    sizes = (*d_x.shape[2:], *d_y.shape[2:], kernel[0], stride[0], *pad)
    _run(d_y, d_x, beside, beside.ndim > 2, sizes, pool_tile.compiled(tile).address)


@parallel_kernel
def _run(source, target, beside, has_planes, sizes, tile):
    """Run all planes; ``beside`` has one for each as well, or one for all."""
    N, C = source.shape[:2]
    source_size = source.shape[2] * source.shape[3]
    target_size = target.shape[2] * target.shape[3]
    own = sizes[2] * sizes[3] if has_planes else 0
    for index in prange(N * C):
        plane = np.int64(index)  # prange counts in unsigned numbers
        call(
            tile,
            (
                address_of(source) + 4 * plane * source_size,
                address_of(target) + 4 * plane * target_size,
                address_of(beside) + 4 * plane * own,
                *sizes,
            ),
        )
