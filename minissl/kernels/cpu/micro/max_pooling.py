"""Max pooling, and its gradient, by the tiles of :mod:`.pool_tile`; threads share the planes.

N images, C channels, H x W input pixels, P x Q output pixels.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import parallel_kernel, prange
from minissl.kernels.cpu.micro import isa, pool_tile
from minissl.kernels.cpu.micro.pool_tile import MaxPoolTile, MaxSpreadTile
from minissl.kernels.cpu.micro.tiles import address_of, call

#: larger windows and strides would make long code; there plain loops do
MOST_PIXELS, MOST_STRIDE = 8, 4


def applies(dtype: np.dtype, kernel: tuple[int, int], stride: tuple[int, int]) -> bool:
    """Whether there are vectors, and tiles for these windows."""
    fits = max(kernel) <= MOST_PIXELS and max(stride) <= MOST_STRIDE
    return fits and dtype == np.float32 and isa.chosen() is not None


def forward(x, kernel, stride, pad, y, argmax) -> None:
    """Largest value of each window, and where it was unless ``argmax`` is None; contiguous."""
    vectors = isa.chosen()
    assert vectors is not None
    tile = MaxPoolTile(vectors.lanes, kernel[1], stride[1], argmax is not None)
    windows = kernel[0], stride[0], *pad
    places = y if argmax is None else argmax
    _forward(x, pool_tile.pooling(tile).address, windows, y, places)


def backward(d_y, argmax, kernel, stride, pad, d_x) -> None:
    """Send each gradient to the winner of its window; contiguous."""
    vectors = isa.chosen()
    assert vectors is not None
    tile = MaxSpreadTile(vectors.lanes, kernel[1], stride[1], stride[0])
    _backward(d_y, argmax, pool_tile.spreading(tile).address, (kernel[0], *pad), d_x)


@parallel_kernel
def _forward(x, tile, windows, y, places):
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    height, stride, top, left = windows
    for index in prange(N * C):
        plane = np.int64(index)  # prange counts in unsigned numbers
        out = 4 * plane * P * Q
        call(
            tile,
            (
                address_of(x) + 4 * plane * H * W,
                H,
                W,
                height,
                stride,
                top,
                left,
                P,
                Q,
                address_of(y) + out,
                address_of(places) + out,
            ),
        )


@parallel_kernel
def _backward(d_y, argmax, tile, windows, d_x):
    N, C, H, W = d_x.shape
    P, Q = d_y.shape[2:]
    height, top, left = windows
    for index in prange(N * C):
        plane = np.int64(index)  # prange counts in unsigned numbers
        out = 4 * plane * P * Q
        target = address_of(d_x) + 4 * plane * H * W
        source = address_of(d_y) + out
        where = address_of(argmax) + out
        call(tile, (source, where, P, Q, height, top, left, H, W, target))
