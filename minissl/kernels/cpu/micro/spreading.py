r"""The gradient of the input by spreading: for convolutions without stride and padding.

    d_x[c, p + r d, j + q d]  +=  sum over f of  w[f, c, r, q] * d_y[f, p, j]

for each image                                  shared by the threads
    d_x = 0
    for each kernel position (r, q)
        for each block of channels              neighbours go to other planes, so that nothing
            for each few rows of d_y            waits for what was just added
                tile: all filters of the conv group, added to d_x

An image is computed by one thread, in this order, so results do not depend on how many there are.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from minissl.kernels.cpu.jit import parallel_kernel, prange, scratch
from minissl.kernels.cpu.micro import spread_tile
from minissl.kernels.cpu.micro.correlation import FLOAT32, pack, pieces, tile_cost
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.spread_tile import SpreadTile
from minissl.kernels.cpu.micro.tiles import address_of, call, ready

#: in multiply-adds: what adding a run of a row to d_x costs
ADD = 4
#: vectors of pixels of a tile, at most
MOST = 4


def applies(isa: Isa, shape: Any) -> bool:
    """Whether a convolution spreads: no stride, no padding, and rows that a tile can hold."""
    plain = shape.stride == (1, 1) and shape.pad == (0, 0)
    return plain and shape.output[1] <= MOST * isa.lanes


class SpreadGradient:
    """The gradient of the input, ready for any weights and batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    """

    #: name of this way of computing a pass
    way = "direct"

    def __init__(self, isa: Isa, shape: Any):
        self.shape, self.lanes = shape, isa.lanes
        P, Q = shape.output
        self.rows = pieces(P, MOST * isa.lanes // Q)
        vectors = max(tile.vectors for tile in self._tiles(1))
        most = (isa.registers - 1 - vectors) // vectors
        self.blocks = pieces(shape.channels // shape.groups, most)
        self._plan()

    def _tiles(self, channels: int) -> list[SpreadTile]:
        """Return the tiles of so many channels for all rows of d_y."""
        Q = self.shape.output[1]
        return [SpreadTile(self.lanes, channels, b - a, Q) for a, b in pairwise(self.rows)]

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image."""
        s = self.shape
        taps, filters = s.kernel[0] * s.kernel[1], s.filters // s.groups
        total = 0.0
        for c, c_end in pairwise(self.blocks):
            for tile in self._tiles(c_end - c):
                runs = sum(len(tile.runs(number)) for number in range(tile.vectors))
                total += tile_cost(tile.channels, tile.vectors, filters)
                total += ADD * runs * tile.channels
        return s.groups * taps * total

    def _plan(self) -> None:
        """Set ``jobs``, ``tiles`` and ``pick``; see :func:`_spread`."""
        s, G = self.shape, self.shape.groups
        H, W = s.size
        P, Q = s.output
        own, filters = s.channels // G, s.filters // G
        index = np.arange(s.filters * s.columns).reshape(G, filters, own, *s.kernel)
        jobs, pick = [], []
        self.tiles: list[SpreadTile] = []
        pick_at = 0
        for g in range(G):
            for r in range(s.kernel[0]):
                for q in range(s.kernel[1]):
                    for c, c_end in pairwise(self.blocks):
                        target = (g * own + c) * H * W + r * s.dilation[0] * W + q * s.dilation[1]
                        for p, tile in zip(self.rows, self._tiles(c_end - c), strict=False):
                            self.tiles.append(tile)
                            source = (g * filters * P + p) * Q
                            jobs.append((4 * source, 4 * pick_at, 4 * (target + p * W)))
                        pick.append(index[g, :, c:c_end, r, q].reshape(-1))
                        pick_at += pick[-1].size
        self.jobs = np.array(jobs, np.int64)
        #: where each packed weight comes from in (F, C/G, kh, kw)
        self.pick = np.concatenate(pick).astype(np.int32)

    @cached_property
    def addresses(self) -> np.ndarray:
        """Addresses of the compiled tiles, for each job."""
        return np.array([spread_tile.compiled(tile).address for tile in self.tiles], np.int64)

    def run(self, d_y: np.ndarray, w: np.ndarray, _bias: None, d_x: np.ndarray) -> None:
        """Compute d_x from d_y and w."""
        d_y, out = ready(d_y, d_x)
        packed = scratch("packed weights", (self.pick.size,), FLOAT32)
        pack(w.reshape(-1), self.pick, packed)
        filters = self.shape.filters // self.shape.groups
        _spread(d_y, packed, self.jobs, self.addresses, filters, out)
        if out is not d_x:
            d_x[...] = out


@parallel_kernel
def _spread(d_y, weights, jobs, addresses, filters, d_x):
    """Run all images.

    Parameters
    ----------
    jobs : (jobs, 3)
        For each tile, in bytes: where its rows of d_y begin in an image, where its weights begin,
        and where its first pixel goes to in d_x.
    """
    N, C, H, W = d_x.shape
    F, P, Q = d_y.shape[1:]
    for index in prange(N):
        n = np.int64(index)  # prange counts in unsigned numbers
        d_x[n] = 0
        source = address_of(d_y) + 4 * n * F * P * Q
        target = address_of(d_x) + 4 * n * C * H * W
        for i in range(len(jobs)):
            call(
                addresses[i],
                (
                    source + jobs[i, 0],
                    4 * P * Q,
                    address_of(weights) + jobs[i, 1],
                    filters,
                    target + jobs[i, 2],
                    4 * H * W,
                    4 * W,
                ),
            )
