r"""The gradient of a convolution's weights, and of its bias, by register tiles.

    d_w[f, k]  +=  sum over images and output pixels of  d_y[f, pixel] * x[pixel moved by k]
    d_b[f]     +=  sum over images and output pixels of  d_y[f, pixel]

The sum over images is cut into a fixed number of parts, which the threads share and which are added
in their order: results do not depend on the number of threads.

    for each part
        for each few images                            planes and panels fit the L2 cache
            make the planes of x, and transpose d_y to panels of filters
            for each band                              about BAND pixels: panels fit the L1 cache
                for each block of filters
                    for each tile of columns
                        partial sums += tile over the pixels of the band
    d_w += all parts

The tiles are in :mod:`minissl.kernels.cpu.micro.gradient_tile`, planes in
:mod:`minissl.kernels.cpu.micro.windows`.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minissl.kernels.cpu.convolution import accumulate
from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    get_thread_id,
    parallel_kernel,
    prange,
    scratch,
)
from minissl.kernels.cpu.micro import gradient_tile
from minissl.kernels.cpu.micro.correlation import FLOAT32, lengths, make_planes, pieces
from minissl.kernels.cpu.micro.gradient_tile import UNROLLED, GradientTile, PanelTile
from minissl.kernels.cpu.micro.isa import CHAINS, Isa
from minissl.kernels.cpu.micro.tiles import address_of, call
from minissl.kernels.cpu.micro.windows import Source, forward_axis

#: Pixels of a band: a panel of 16 filters takes half a first-level cache.
BAND = 256
#: Columns of a tile, at most: as many addresses as there are registers for them.
MOST_COLUMNS = 8
#: In multiply-adds: beginning a tile, adding one of its vectors to the sums before, and the
#: transposition of a vector.
BEGIN, ADD, TURN = 40, 4, 4


class Cover(NamedTuple):
    """How tiles cover the filters and columns of a conv group.

    Attributes
    ----------
    filters : list of int
        Vectors of each block of filters.
    columns : list of list of int
        For each block: where tiles of columns begin, and the end.
    lanes : int
        Length of the vectors.
    cost : float
        Multiply-adds of vectors that take as long, of one image and conv group.
    """

    filters: list[int]
    columns: list[list[int]]
    lanes: int
    cost: float


def best_cover(isa: Isa, shape: Any, pixels: int) -> Cover:
    """Choose the tiles that take least time for a band of some pixels."""
    best = None
    P, Q = shape.output
    for lanes in sorted({isa.lanes, min(isa.lanes, 8)}):
        vectors = -(-shape.rows // lanes)
        for most in range(1, min(vectors, 4) + 1):
            filters = [b - a for a, b in pairwise(pieces(vectors, most))]
            columns, cost = [], 0.0
            for block in filters:
                room = min((isa.registers - 1 - block) // block, MOST_COLUMNS)
                columns.append(pieces(shape.columns, room))
                for length, count in lengths(columns[-1]):
                    one = pixels * max(block * length, block + length, CHAINS)
                    cost += count * (one + BEGIN + ADD * block * length)
            cost = cost * P * Q / pixels + TURN * vectors * P * Q
            if best is None or cost < best.cost:
                best = Cover(filters, columns, lanes, cost)
    assert best is not None
    return best


class WeightGradient:
    """The gradient of the weights of one layer, for any batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    """

    #: name of this way of computing a pass
    way = "direct"

    def __init__(self, isa: Isa, shape: Any):
        self.shape = shape
        P, Q = shape.output
        #: images, and rows of an image, of a band
        self.images, self.rows = max(1, BAND // (P * Q)), min(P, max(1, BAND // Q))
        if self.images == 1:
            self.rows = -(-P // -(-P // self.rows))
        axes = forward_axis(shape, 0), forward_axis(shape, 1)
        self.tiling = best_cover(isa, shape, self.images * self.rows * Q)
        self.lanes = self.tiling.lanes
        self.source = Source(shape.channels, shape.size, axes, self.lanes)
        own, taps = shape.channels // shape.groups, (axes[0].taps[0], axes[1].taps[0])
        # by (channel, row, column), as the weights lie
        found = [
            self.source.offsets(range(g, g + own), *taps) for g in range(0, shape.channels, own)
        ]
        self.offsets = np.concatenate([one.swapaxes(0, 1).reshape(-1) for one in found])
        self._plan()

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image, with its planes."""
        return self.shape.groups * self.tiling.cost + self.source.cost

    def _plan(self) -> None:
        """Set ``blocks`` and ``jobs``; see :func:`_gradient`."""
        s, K = self.shape, self.shape.columns
        blocks, jobs, tiles = [], [], []
        vectors = sums = 0  # so far
        for g in range(s.groups):
            first = 0
            for count, cuts in zip(self.tiling.filters, self.tiling.columns, strict=True):
                filters = min(count * self.lanes, s.rows - first)
                blocks.append((g * s.rows + first, filters, count, vectors, sums))
                for k, k_end in pairwise(cuts):
                    tiles.append((count, k_end - k))
                    jobs.append((len(blocks) - 1, 4 * (g * K + k), 4 * k * count * self.lanes))
                first += filters
                vectors += count
                sums += K * count * self.lanes
        self.blocks = np.array(blocks, np.int64)
        self.jobs = np.array(jobs, np.int64)
        self.tiles = tiles
        self.vectors, self.sums = vectors, sums

    @cached_property
    def addresses(self) -> np.ndarray:
        """Addresses of the compiled tiles, for each job."""
        found = [gradient_tile.compiled(GradientTile(self.lanes, *tile)) for tile in self.tiles]
        return np.array([tile.address for tile in found], np.int64)

    @cached_property
    def turns(self) -> np.ndarray:
        """Addresses of the transpositions, by the number of filters."""
        found = np.zeros(self.lanes + 1, np.int64)
        lasts = {(filters - 1) % self.lanes + 1 for _, filters, *_ in self.blocks.tolist()}
        for filters in {self.lanes, *lasts}:
            found[filters] = gradient_tile.compiled(PanelTile(self.lanes, filters)).address
        return found

    def run(self, x: np.ndarray, d_y: np.ndarray, d_w: np.ndarray, d_b: np.ndarray | None) -> None:
        """Add to d_w (F, C/G, kh, kw) and, if given, to d_b (F,), from x and d_y."""
        x, d_y = np.ascontiguousarray(x), np.ascontiguousarray(d_y)
        threads = config.NUMBA_NUM_THREADS
        source, (P, Q), N = self.source, self.shape.output, len(x)
        room = self.images * source.floats + source.slack
        memory = scratch("planes", (threads, -(-room // 16) * 16), FLOAT32)
        lanes = self.vectors * self.lanes
        panels = scratch("panels", (threads, self.images * P * Q * lanes), FLOAT32)
        parts = min(PARTS, N)
        partial = scratch("partial", (parts, self.sums + lanes), FLOAT32)
        _gradient(
            x.reshape(-1),
            d_y.reshape(-1),
            (N, self.shape.filters, P, Q, self.images, self.rows, self.lanes, source.floats),
            tuple(source.planes),
            source.slots,
            source.copy,
            (self.blocks, self.jobs, self.addresses, self.turns, self.offsets),
            memory,
            panels,
            partial,
        )
        add_parts(partial)
        bias = d_w.reshape(-1)[:0] if d_b is None else d_b
        _scatter(partial[0], self.blocks, self.lanes, self.sums, d_w.reshape(len(d_w), -1), bias)


@parallel_kernel
def _gradient(x, d_y, sizes, geometry, slots, copy, work, memory, panels, partial):
    """Compute all parts; see the module's picture.

    Parameters
    ----------
    work : (blocks, jobs, addresses, turns, offsets)
        A block of filters: the first, how many, vectors, and how many vectors and sums come before.
        A job is a tile of columns: its block, and where its offsets and sums begin, in bytes.
    partial : (parts, sums of all blocks by (column, filter), and sums of d_y)
    """
    blocks, jobs, addresses, turns, offsets = work
    N, F, P, Q, together, R, lanes, floats = sizes
    parts = len(partial)
    pixels = P * Q
    all_vectors = panels.shape[1] // (together * pixels * lanes)
    totals = partial.shape[1] - all_vectors * lanes
    for index in prange(parts):
        part = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own, panel, sums = memory[thread], panels[thread], partial[part]
        sums[:] = 0
        end = (part + 1) * N // parts
        for first in range(part * N // parts, end, together):
            images = min(together, end - first)
            for i in range(images):
                make_planes(x, first + i, geometry, slots, copy, own, i * floats)
            for b in range(len(blocks)):
                filter, filters, vectors = blocks[b, 0], blocks[b, 1], blocks[b, 2]
                for i in range(images):
                    begin = (blocks[b, 3] * together + i * vectors) * pixels * lanes
                    for v in range(vectors):
                        source = ((first + i) * F + filter + v * lanes) * pixels
                        call(
                            turns[min(lanes, filters - v * lanes)],
                            (
                                address_of(d_y) + 4 * source,
                                4 * pixels,
                                pixels,
                                address_of(panel) + 4 * (begin + v * lanes),
                                4 * vectors * lanes,
                                address_of(sums) + 4 * (totals + (blocks[b, 3] + v) * lanes),
                            ),
                        )
            for row in range(0, P, R):
                rows = min(R, P - row)
                for j in range(len(jobs)):
                    b = jobs[j, 0]
                    begin = (blocks[b, 3] * together * pixels + row * Q * blocks[b, 2]) * lanes
                    call(
                        addresses[j],
                        (
                            address_of(own) + 4 * row * geometry[6],
                            4 * geometry[6],
                            address_of(offsets) + jobs[j, 1],
                            address_of(panel) + 4 * begin,
                            Q // UNROLLED,
                            Q % UNROLLED,
                            rows,
                            images,
                            4 * floats,
                            address_of(sums) + 4 * blocks[b, 4] + jobs[j, 2],
                        ),
                    )


#: numbers that are added together by one thread
PIECE = 1024


@parallel_kernel
def add_parts(partial):
    """Add all parts to the first, in their order."""
    parts, size = partial.shape
    for piece in prange(-(-size // PIECE)):
        first = np.int64(piece) * PIECE
        last = min(first + PIECE, size)
        for part in range(1, parts):
            accumulate(partial[part, first:last], partial[0, first:last])


@parallel_kernel
def _scatter(sums, blocks, lanes, totals, d_w, d_b):
    """Add the sums of blocks by (column, filter) to d_w (F, K), and those of d_y to d_b (F,)."""
    K = d_w.shape[1]
    for index in prange(len(d_w)):
        f = np.int64(index)
        b = 0
        while f >= blocks[b, 0] + blocks[b, 1]:
            b += 1
        own = f - blocks[b, 0]
        width = blocks[b, 2] * lanes
        for k in range(K):
            d_w[f, k] += sums[blocks[b, 4] + k * width + own]
        if d_b.size:
            d_b[f] += sums[totals + blocks[b, 3] * lanes + own]
