"""Direct dense convolution over the kept rows and columns (LOWERED_CCNMM, DIRECT_DCONV).

The rows and columns that are not zero are packed densely, one matrix for each conv group, and
multiplied straight from the input, without lowering (see the picture of
:mod:`minissl.kernels.cpu.micro.dense_tile`). With all rows and columns this is the dense
convolution.

    for each few images                            inputs that fit the second-level cache
        for each block of filters                  its weights stay in that cache
            for each image and output row p
                leave out the kernel rows r that lie above or below the image
                for each tile of pixels of row p
                    tile = bias + all columns; rectify if asked; write to y

Threads share the output rows of all filter blocks, each row as long as its multiplications, by
cutting that line into equal pieces. Every tile is computed by one of them and as a whole, so
results do not depend on the number of threads.

Dimensions: N images, C channels, F filters, G conv groups, P x Q output pixels, V vectors of
filters in a block.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import aligned, kernel, parallel_kernel, prange
from minissl.kernels.cpu.micro import dense_tile
from minissl.kernels.cpu.micro.dense_tile import RELU, DenseTile
from minissl.kernels.cpu.micro.isa import CHAINS, Isa
from minissl.kernels.cpu.micro.tiles import address_of, call, one_row, ready

#: Bytes of the images that all filter blocks pass over together: half a common second-level cache.
IMAGE_BYTES = 512 * 1024
#: The last filters of a group, where they fit into half a long vector, in place of a number of
#: vectors: a block of one vector of so many lanes.
HALF, LEAST_LANES = 0, 8
#: Cycles in which one vector of filters is transposed and written.
END = 100


class Tiling(NamedTuple):
    """How blocks of filters and tiles of pixels cover a layer.

    Attributes
    ----------
    vectors : int
        V of all blocks of a conv group but the last ones, which have what is left.
    cuts : dict of int to list of int
        For each V that occurs, and ``HALF``: where the tiles of an output row begin, and Q.
    cost, ends : float
        Cycles of one output row of all groups, about, and how many of them go into the ends of
        tiles.
    """

    vectors: int
    cuts: dict[int, list[int]]
    cost: float
    ends: float


def column_cost(vectors: int, pixels: int) -> float:
    """Cycles of a column in a tile: multiply-adds, or loads where these are more, or waiting."""
    if vectors == HALF:
        return max(pixels, CHAINS) / 2
    return max(vectors * pixels, vectors + pixels + 1, CHAINS)


def end_cost(vectors: int, pixels: int, lanes: int) -> float:
    """Cycles in which a tile is transposed and written."""
    if vectors == HALF:
        return END / 2 * -(-pixels // (lanes // 2))
    return END * vectors * -(-pixels // lanes)


def block_kinds(filters: int, vectors: int, lanes: int) -> list[int]:
    """Vectors of the blocks that some filters are divided into, or ``HALF``."""
    full, rest = divmod(filters, lanes)
    half = lanes == 2 * LEAST_LANES and 0 < rest <= LEAST_LANES
    whole, left = divmod(full + (rest > 0 and not half), vectors)
    return [vectors] * whole + [left] * bool(left) + [HALF] * half


def pixel_cuts(isa: Isa, vectors: int, Q: int) -> list[int]:
    """Where the tiles of an output row begin, and Q; none where registers do not suffice."""
    vectors = max(vectors, 1)
    most = (isa.registers - 1 - vectors) // vectors  # one register holds a pixel
    if most < 1:
        return []
    count = -(-Q // most)
    return [i * Q // count for i in range(count + 1)]


def best_tiling(isa: Isa, rows: list[int], columns: list[int], Q: int) -> Tiling:
    """Choose the blocks that cover the rows of all groups, and Q pixels, in least time."""
    best = None
    cuts, column, end = {}, {}, {}
    for vectors in (HALF, *range(1, 9)):
        cuts[vectors] = pixel_cuts(isa, vectors, Q)
        if not cuts[vectors]:
            break
        lengths = [b - a for a, b in pairwise(cuts[vectors])]
        column[vectors] = sum(column_cost(vectors, length) for length in lengths)
        end[vectors] = sum(end_cost(vectors, length, isa.lanes) for length in lengths)
        if vectors == HALF:
            continue
        kinds = [block_kinds(kept, vectors, isa.lanes) for kept in rows]
        ends = sum(end[v] for own in kinds for v in own)
        cost = ends + sum(K * column[v] for own, K in zip(kinds, columns, strict=True) for v in own)
        if best is None or cost < best.cost:
            best = Tiling(vectors, {v: cuts[v] for own in kinds for v in own}, cost, ends)
    assert best is not None
    return best


class Block(NamedTuple):
    """A block of filters of one conv group, in arrays of which every block has a row.

    Attributes
    ----------
    group : int
    vectors : int
    weight : int
        Where its weights begin, in floats.
    row : int
        Where its rows begin, in ``lines`` and ``bias``.
    filters : int
        How many of its filters exist.
    cost : int
        Of one output row, for the shares of the threads.
    """

    group: int
    vectors: int
    weight: int
    row: int
    filters: int
    cost: int


class DenseConvolution:
    """A convolution with packed rows and columns, ready to run on any batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    values, rows, row_start, columns, column_start, b
        The packed matrices, as in :func:`minissl.kernels.reference.sparse_convolution.conv_ccnmm`.
    """

    def __init__(self, isa: Isa, shape: Any, values, rows, row_start, columns, column_start, b):
        self.bias = np.zeros(shape.filters, np.float32) if b is None else np.asarray(b)
        self.shape = shape = one_row(shape)
        kept = np.diff(row_start).tolist(), np.diff(column_start).tolist()
        self.tiling = best_tiling(isa, *kept, shape.output[1])
        wanted = sum(row * column for row, column in zip(*kept, strict=True))
        wanted *= shape.output[1] / isa.lanes
        #: share of the multiply-adds that is wanted; those in lanes without a filter are not
        self.efficiency = wanted / (self.tiling.cost - self.tiling.ends) if wanted else 1.0
        self.lanes = isa.lanes
        self._pack_columns(columns, column_start)
        self._pack_rows(values, rows, row_start, column_start)
        removed = np.ones(shape.filters, bool)
        removed[rows] = False
        self.removed = np.flatnonzero(removed)
        # what the loops want to know, in their order
        s = shape
        self.sizes = s.channels, s.filters, s.groups, *s.size, *s.output
        self.arrays = (
            (s.kernel[0], s.stride[0], s.pad[0], s.dilation[0], s.stride[1], s.pad[1]),
            (self.offsets, self.starts, self.group_offset),
            (self.blocks, self.weights, self.block_bias, self.lines),
        )

    def _pack_columns(self, columns: np.ndarray, column_start: np.ndarray) -> None:
        """Sort the columns of each group by (q, r, c), and find what each reads.

        Sets ``order`` (into the columns as given), ``offsets`` in bytes, and ``starts`` (G, kw, kh
        + 1): where the columns with kernel column q and row r begin within their group.
        """
        s = self.shape
        kh, kw = s.kernel
        H, W = s.size
        c, r, q = columns // (kh * kw), columns // kw % kh, columns % kw
        group = np.repeat(np.arange(s.groups), np.diff(column_start))
        self.order = np.lexsort((c, r, q, group))
        moved = (c * H + r * s.dilation[0]) * W + q * s.dilation[1]
        self.offsets = (4 * moved[self.order]).astype(np.int32)
        counts = np.bincount((group * kw + q) * kh + r, minlength=s.groups * kw * kh)
        counts = counts.reshape(s.groups, kw * kh)
        before = np.cumsum(counts, axis=1) - counts
        starts = np.empty((s.groups, kw, kh + 1), np.int32)
        starts[:, :, :-1] = before.reshape(s.groups, kw, kh)
        starts[:, :, -1] = (before + counts).reshape(s.groups, kw, kh)[:, :, -1]
        self.starts = starts
        self.group_offset = np.asarray(column_start[:-1], np.int64)

    def _pack_rows(self, values, rows, row_start, column_start) -> None:
        """Cut the rows of each group into blocks: weights by (block, column, filter)."""
        P, Q = self.shape.output
        blocks, weights, lines, bias = [], [], [], []
        value, weight, row = 0, 0, 0
        for g in range(self.shape.groups):
            kept = rows[row_start[g] : row_start[g + 1]]
            K = int(column_start[g + 1] - column_start[g])
            matrix = values[value : value + kept.size * K].reshape(kept.size, K)
            value += matrix.size
            matrix = matrix[:, self.order[column_start[g] : column_start[g + 1]] - column_start[g]]
            first = 0
            for vectors in block_kinds(kept.size, self.tiling.vectors, self.lanes):
                size = vectors * self.lanes or LEAST_LANES
                part = kept[first : first + size]
                packed = np.zeros((K, size), np.float32)
                packed[:, : part.size] = matrix[first : first + size].T
                own_bias = np.zeros(size, np.float32)
                own_bias[: part.size] = self.bias[part]
                own_lines = np.zeros(size, np.int64)
                own_lines[: part.size] = 4 * P * Q * part
                lengths = np.diff(self.tiling.cuts[vectors]).tolist()
                cost = sum(
                    K * column_cost(vectors, n) + end_cost(vectors, n, self.lanes) for n in lengths
                )
                blocks.append(Block(g, vectors, weight, row, part.size, int(cost)))
                # what follows stays aligned to the longest vectors
                room = -(-packed.size // self.lanes) * self.lanes
                weights.append(np.pad(packed.reshape(-1), (0, room - packed.size)))
                bias.append(np.pad(own_bias, (0, -size % self.lanes)))
                lines.append(np.pad(own_lines, (0, -size % self.lanes)))
                first, weight, row = first + size, weight + room, row + lines[-1].size
        self.blocks = np.array(blocks, np.int64).reshape(-1, len(Block._fields))
        self.weights = aligned(np.concatenate([*weights, np.zeros(1, np.float32)]))
        self.block_bias = aligned(np.concatenate([*bias, np.zeros(1, np.float32)]))
        self.lines = np.concatenate([*lines, np.zeros(1, np.int64)])

    def _tile(self, vectors: int, begin: int, pixels: int) -> DenseTile:
        """Return the tile at a place of the output rows, with what it may read there."""
        s = self.shape
        W, stride, pad = s.size[1], s.stride[1], s.pad[1]
        taps = []
        for q in range(s.kernel[1]):
            # input column of output column j: j * stride + shift
            shift = q * s.dilation[1] - pad
            first = -(shift // stride) - begin
            last = (W - 1 - shift) // stride + 1 - begin
            first = min(max(first, 0), pixels)
            taps.append((first, min(max(last, first), pixels)))
        lanes = LEAST_LANES if vectors == HALF else self.lanes
        return DenseTile(lanes, max(vectors, 1), pixels, stride, tuple(taps))

    @cached_property
    def tiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Addresses of the compiled tiles by V and place, and the first pixel of each; -1 ends."""
        cuts = self.tiling.cuts
        size = self.tiling.vectors + 1, max(map(len, cuts.values()), default=1)
        addresses, begins = np.zeros(size, np.int64), np.full(size, -1, np.int64)
        for vectors, bounds in cuts.items():
            for i, (first, last) in enumerate(pairwise(bounds)):
                tile = self._tile(vectors, first, last - first)
                addresses[vectors, i], begins[vectors, i] = dense_tile.compiled(tile).address, first
        return addresses, begins

    def run(self, x: np.ndarray, y: np.ndarray, relu: bool = False) -> None:
        """Convolve x (N, C, H, W) into y (N, F, P, Q), rectified if asked."""
        x, out = ready(x, y)
        _convolve(
            x.reshape(-1),
            out.reshape(-1),
            (len(x), *self.sizes),
            *self.arrays,
            self.tiles,
            (self.removed, self.bias),
            get_num_threads(),
            RELU if relu else 0,
        )
        if out is not y:
            y[...] = out

    def images_per_chunk(self, _N: int) -> int:
        """Return how many images must stay together for bitwise the same results: each is alone."""
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return int(self.weights.nbytes + self.offsets.nbytes + self.starts.nbytes)


@kernel
def _share(begin, end, at, cost, count):
    """Which of ``count`` things, each of a cost and laid on a line from ``at``, begin in a part."""
    first = min(max(-((at - begin) // cost), 0), count)
    last = min(max(-((at - end) // cost), 0), count)
    return first, last


@parallel_kernel
def _convolve(x, y, sizes, axes, columns, filters, tiling, left_out, threads, flags):
    """Run the layer; see the module's picture. ``axes``: height, and stride and pad of width."""
    N, C, F, G, H, W, P, Q = sizes
    kh, stride, pad, dilation, stride_w, pad_w = axes
    offsets, starts, group_offset = columns
    blocks, weights, bias, lines = filters
    tiles, begins = tiling
    removed, all_bias = left_out
    together = min(N, max(1, IMAGE_BYTES // (4 * C * H * W)))
    whole = 0
    for i in range(len(blocks)):
        whole += blocks[i, 5] * P
    for index in prange(threads):
        part = np.int64(index)  # prange counts in unsigned numbers
        begin, end = part * whole * N // threads, (part + 1) * whole * N // threads
        for first_image in range(0, N, together):
            images = min(together, N - first_image)
            at = first_image * whole
            for i in range(len(blocks)):
                group, vectors, weight = blocks[i, 0], blocks[i, 1], blocks[i, 2]
                row, count, cost = blocks[i, 3], blocks[i, 4], blocks[i, 5]
                first, last = _share(begin, end, at, cost, images * P)
                at += cost * images * P
                start = address_of(starts) + 4 * group * starts.shape[1] * starts.shape[2]
                for job in range(first, last):
                    n, p = first_image + job // P, job % P
                    top = p * stride - pad
                    r_first = min(max(-(top // dilation), 0), kh)
                    r_last = max(r_first, min(kh, (H - 1 - top) // dilation + 1))
                    line = ((n * G + group) * (C // G) * H + top) * W - pad_w
                    for t in range(begins.shape[1]):
                        first_pixel = begins[vectors, t]
                        if first_pixel < 0:
                            break
                        call(
                            tiles[vectors, t],
                            (
                                address_of(x) + 4 * (line + first_pixel * stride_w),
                                address_of(offsets) + 4 * group_offset[group],
                                address_of(weights) + 4 * weight,
                                start + 4 * r_first,
                                start + 4 * r_last,
                                4 * (kh + 1),
                                address_of(bias) + 4 * row,
                                flags,
                                address_of(y) + 4 * ((n * F * P + p) * Q + first_pixel),
                                address_of(lines) + 8 * row,
                                count,
                            ),
                        )
        jobs = N * len(removed)
        for job in range(part * jobs // threads, (part + 1) * jobs // threads):
            n, f = job // len(removed), removed[job % len(removed)]
            value = max(all_bias[f], np.float32(0)) if flags & RELU else all_bias[f]
            y[(n * F + f) * P * Q : (n * F + f + 1) * P * Q] = value
