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

#: larger windows and strides would make long code; there plain loops do
MOST_PIXELS, MOST_STRIDE = 8, 4


def applies(dtype: np.dtype, kernel: tuple[int, int], stride: tuple[int, int]) -> bool:
    """Whether there are vectors, and tiles for these windows."""
    fits = max(kernel) <= MOST_PIXELS and max(stride) <= MOST_STRIDE
    return fits and dtype == np.float32 and isa.chosen() is not None


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
    _run(x, y, beside, sizes, pool_tile.compiled(tile).address)


def _pool_back(d_y, beside, d_x, kernel, stride, pad, tile: Any) -> None:
    sizes = (*d_x.shape[2:], *d_y.shape[2:], kernel[0], stride[0], *pad)
    _run_back(d_y, beside, d_x, sizes, pool_tile.compiled(tile).address)


@parallel_kernel
def _run(x, y, beside, sizes, tile):
    """Pool all planes; ``beside`` has a plane for each of y, or one for all."""
    H, W, P, Q = sizes[:4]
    own = 4 * P * Q if beside.size == y.size else 0
    for index in prange(y.size // (P * Q)):
        plane = np.int64(index)  # prange counts in unsigned numbers
        source, out = address_of(x) + 4 * plane * H * W, address_of(y) + 4 * plane * P * Q
        call(tile, (source, out, address_of(beside) + plane * own, *sizes))


@parallel_kernel
def _run_back(d_y, beside, d_x, sizes, tile):
    """The gradient of all planes; ``beside`` has a plane for each of d_y, or one for all."""
    H, W, P, Q = sizes[:4]
    own = 4 * P * Q if beside.size == d_y.size else 0
    for index in prange(d_y.size // (P * Q)):
        plane = np.int64(index)  # prange counts in unsigned numbers
        source, out = address_of(d_y) + 4 * plane * P * Q, address_of(d_x) + 4 * plane * H * W
        call(tile, (source, address_of(beside) + plane * own, out, *sizes))
