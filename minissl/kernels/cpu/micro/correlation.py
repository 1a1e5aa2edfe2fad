r"""Convolutions whose weights change from call to call: forward, and the gradient of the input.

Both are sums over columns (source channel, kernel row, kernel column) of weights times moved
planes, computed by the tiles of :mod:`minissl.kernels.cpu.micro.pixel_tile`:

    forward    y[f]    = b[f] + sum over c, r, q of  w[f, c, r, q] * x[c] moved
    input      d_x[c]  =        sum over f, r, q of  w[f, c, r, q] * d_y[f] moved

Where rows are shorter than vectors, planes apart make the outputs of an image one flat run. With a
stride, forward reads phases of x and the gradient computes phases of d_x, which are put
together afterwards (:mod:`minissl.kernels.cpu.micro.windows`).

    for each image                                 shared by the threads
        make the planes of the source
        for each phase of the outputs
            for each block of filters              its weights stay in the first-level cache
                for each tile of pixels
                    tile = bias + all columns; write to y

Every tile is computed as a whole, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minissl.kernels.cpu.jit import config, get_thread_id, kernel, parallel_kernel, prange, scratch
from minissl.kernels.cpu.micro import pixel_tile
from minissl.kernels.cpu.micro.isa import CHAINS, Isa
from minissl.kernels.cpu.micro.pixel_tile import JoinTile, PixelTile
from minissl.kernels.cpu.micro.planes import make_plane
from minissl.kernels.cpu.micro.tiles import address_of, call, ready
from minissl.kernels.cpu.micro.windows import (
    Source,
    Tap,
    forward_axis,
    gradient_axis,
    is_flat,
    may_be_apart,
)

FLOAT32 = np.dtype(np.float32)
#: In multiply-adds: what a load of a vector costs that may cross a cache line, beginning a tile,
#: writing one of its vectors, and putting a vector of outputs together from their phases.
CROSSING, BEGIN, WRITE, JOIN = 1.5, 40, 2, 8


class Cover(NamedTuple):
    """How tiles cover the pixels and the filters of one phase of the outputs.

    Attributes
    ----------
    rows, vectors, filters : list of int
        Where tiles begin along each, and the end.
    cost : float
        Multiply-adds of vectors that take as long, of one image and conv group.
    """

    rows: list[int]
    vectors: list[int]
    filters: list[int]
    cost: float


def pieces(length: int, most: int) -> list[int]:
    """Cut a length into the fewest pieces of at most ``most``, as equal as they can be."""
    count = max(1, -(-length // most))
    return [i * length // count for i in range(count + 1)]


def lengths(cuts: list[int]) -> list[tuple[int, int]]:
    """Return each length that occurs between cuts, and how often."""
    found = [b - a for a, b in pairwise(cuts)]
    return [(length, found.count(length)) for length in sorted(set(found))]


def tile_cost(filters: int, vectors: int, columns: int) -> float:
    """Multiply-adds that take as long as a tile: its own, or loads where these are more."""
    column = max(filters * vectors, filters + CROSSING * vectors, CHAINS)
    return columns * column + BEGIN + WRITE * filters * vectors


def best_cover(
    isa: Isa, lanes: int, filters: int, size: tuple[int, int], columns: Callable[..., int]
) -> Cover:
    """Choose the tiles that compute an image in least time.

    Parameters
    ----------
    columns : callable
        Gives how many columns a tile walks through, from its first row, row behind the last, first
        vector and vector behind the last.
    """
    P, Q = size
    width = -(-Q // lanes)
    best = None
    for wide in range(1, min(width, 4) + 1):
        for high in range(1, min(P, 4 // wide) + 1):
            most = (isa.registers - 1 - wide * high) // (wide * high)
            rows, vectors, blocks = pieces(P, high), pieces(width, wide), pieces(filters, most)
            places = Counter(
                ((r_end - r) * (v_end - v), columns(r, r_end, v, v_end))
                for r, r_end in pairwise(rows)
                for v, v_end in pairwise(vectors)
            )
            cost = sum(
                count * count_f * tile_cost(f, size, K)
                for (size, K), count in places.items()
                for f, count_f in lengths(blocks)
            )
            if best is None or cost < best.cost:
                best = Cover(rows, vectors, blocks, cost)
    assert best is not None
    return best


class Correlation:
    """One of the two directions, ready for any weights and batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    gradient : bool
        Whether this is the gradient of the input.
    """

    #: name of this way of computing a pass
    way = "direct"

    def __init__(self, isa: Isa, shape: Any, gradient: bool):
        self.isa, self.shape, self.gradient = isa, shape, gradient
        axis = gradient_axis if gradient else forward_axis
        axes = axis(shape, 0), axis(shape, 1)
        self.height, self.width = axes
        inputs, outputs = (shape.channels, shape.size), (shape.filters, shape.output)
        (channels, size), (self.filters, self.size) = (
            (outputs, inputs) if gradient else (inputs, outputs)
        )
        self.stride = len(self.height.taps), len(self.width.taps)
        self.is_strided = self.stride != (1, 1)
        best = None
        for lanes in (self.isa.lanes, 8):
            for apart in (False, True)[: 1 + may_be_apart(axes)]:
                self.lanes, self.is_flat = lanes, apart or is_flat(axes)
                self.source = Source(channels, size, axes, lanes, apart)
                cost = self.cost()
                if best is None or cost < best[0]:
                    best = cost, lanes, self.is_flat, self.source
        assert best is not None
        _, self.lanes, self.is_flat, self.source = best
        self._plan(channels)

    def _phases(self) -> list[tuple[int, int]]:
        """List the phases of the outputs that have any pixels."""
        return [
            (a, b)
            for a, P in enumerate(self.height.outputs)
            for b, Q in enumerate(self.width.outputs)
            if P > 0 and Q > 0
        ]

    def _per_tap(self, phase: tuple[int, int]) -> int:
        """Columns of the weights for one kernel row."""
        channels = self.shape.filters if self.gradient else self.shape.channels
        return channels // self.shape.groups * len(self.width.taps[phase[1]])

    def _size(self, phase: tuple[int, int]) -> tuple[int, int]:
        """Rows and pixels of a phase of the outputs, as tiles see it."""
        P, Q = self.height.outputs[phase[0]], self.width.outputs[phase[1]]
        return (1, P * Q) if self.is_flat else (P, Q)

    def cover(self, phase: tuple[int, int]) -> Cover:
        """Return the tiles of one phase of the outputs."""

        def columns(*place: int) -> int:
            begin, end = self._reached(phase, *place)
            return end - begin

        filters = self.filters // self.shape.groups
        return best_cover(self.isa, self.lanes, filters, self._size(phase), columns)

    def _reached(
        self, phase: tuple[int, int], r: int, r_end: int, v: int, v_end: int
    ) -> tuple[int, int]:
        """Range of columns that read something but padding for the outputs of a tile."""
        if self.is_flat:
            Q = self.width.outputs[phase[1]]
            r = v * self.lanes // Q
            r_end = min(-(-v_end * self.lanes // Q), self.height.outputs[phase[0]])
        begin, end = self.height.reached(phase[0], r, r_end)
        return self._per_tap(phase) * begin, self._per_tap(phase) * end

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image."""
        tiles = sum(self.cover(phase).cost for phase in self._phases())
        P, Q = self.size
        joined = self.filters * P * -(-Q // self.lanes) if self.is_strided else 0
        return self.shape.groups * tiles + self.source.cost + JOIN * joined

    @cached_property
    def joined(self) -> tuple[int, int]:
        """Rows and pitch of a phase of the outputs that waits to be joined with the others."""
        return max(self.height.outputs), max(self.width.outputs)

    def _plan(self, channels: int) -> None:
        """Set ``jobs``, ``places``, ``offsets`` and ``pick``; see :func:`_correlate`."""
        G = self.shape.groups
        own, filters = channels // G, self.filters // G
        P, Q = self.joined
        jobs, offsets, pick = [], [], []
        places: list[tuple[int, int, int, int]] = []
        tiles: list[PixelTile] = []
        offset_at = pick_at = 0
        for phase in self._phases():
            out = (phase[0] * self.stride[1] + phase[1]) * self.filters * P * Q
            cover = self.cover(phase)
            first_place, kinds = len(places), []
            width = self._size(phase)[1]
            for v, v_end in pairwise(cover.vectors):
                last = min(self.lanes, width - (v_end - 1) * self.lanes)
                for r, r_end in pairwise(cover.rows):
                    x = r * self.source.planes.pitch + v * self.lanes
                    reached = self._reached(phase, r, r_end, v, v_end)
                    places.append((4 * x, 4 * (r * Q + v * self.lanes), *reached))
                    kinds.append((r_end - r, v_end - v, last))
            for g in range(G):
                taps = self.height.taps[phase[0]], self.width.taps[phase[1]]
                found = self.source.offsets(range(g * own, (g + 1) * own), *taps).reshape(-1)
                weights = self._weights(g, *taps)
                for f, f_end in pairwise(cover.filters):
                    pick.append(weights[f:f_end].T.reshape(-1))
                    jobs.append(
                        (
                            len(tiles),
                            first_place,
                            len(places),
                            4 * offset_at,
                            4 * pick_at,
                            4 * (f_end - f),
                            4 * (g * filters + f),
                            4 * (out + (g * filters + f) * P * Q),
                        )
                    )
                    tiles += [PixelTile(self.lanes, f_end - f, *kind) for kind in kinds]
                    pick_at += pick[-1].size
                offsets.append(found)
                offset_at += len(found)
        self.jobs = np.array(jobs, np.int64)
        self.places = np.array(places, np.int64)
        self.tiles = tiles
        self.offsets = np.concatenate([*offsets, np.zeros(1, np.int32)]).astype(np.int32)
        #: where each packed weight comes from in (F, C/G, kh, kw)
        self.pick = np.concatenate([*pick, np.zeros(0, np.int64)]).astype(np.int32)

    def _weights(self, group: int, rows: list[Tap], columns: list[Tap]) -> np.ndarray:
        """Return places in the weights (F, C/G, kh, kw): (filters of the group, columns)."""
        s = self.shape
        index = np.arange(s.filters * s.columns).reshape(s.groups, s.rows, -1, *s.kernel)[group]
        if self.gradient:
            index = index.swapaxes(0, 1)  # (C/G, F/G, kh, kw)
        index = index[:, :, [tap.position for tap in rows]]
        index = index[..., [tap.position for tap in columns]]
        return index.swapaxes(1, 2).reshape(len(index), -1)  # by (row, channel, column)

    @cached_property
    def addresses(self) -> np.ndarray:
        """Addresses of the compiled tiles, for each job and place."""
        found = [pixel_tile.compiled(tile) for tile in self.tiles]
        return np.array([tile.address for tile in found], np.int64)

    @cached_property
    def join(self) -> int:
        """Address of what joins the phases of an output row."""
        if not self.is_strided:
            return 0
        return pixel_tile.joining(JoinTile(self.lanes, self.stride[1])).address

    def run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
        """Compute y (N, F, P, Q) from x and w; from d_y, w and no bias, d_x."""
        x, out = ready(x, y)
        threads = config.NUMBA_NUM_THREADS
        source = self.source
        memory = scratch("planes", (threads, source.floats + source.slack), FLOAT32)
        P, Q = self.joined
        size = self.stride[0] * self.stride[1] * self.filters * P * Q + self.lanes
        phases = scratch("phases", (threads, size if self.is_strided else 1), FLOAT32)
        packed = scratch("packed weights", (self.pick.size + 1,), FLOAT32)
        bias = b if b is not None else _zeros(self.filters)
        pack(w.reshape(-1), self.pick, packed)
        _correlate(
            x.reshape(-1),
            out.reshape(-1),
            (len(x), self.filters, *self.size, *self.stride, P, Q),
            tuple(source.planes),
            source.slots,
            (source.copy, self.join),
            (self.jobs, self.places, self.addresses),
            (self.offsets, packed, bias),
            memory,
            phases,
        )
        if out is not y:
            y[...] = out


def _zeros(count: int) -> np.ndarray:
    zeros = scratch("zeros", (count,), FLOAT32)
    zeros[:] = 0
    return zeros


#: weights that are packed together by one thread
PIECE = 4096


@parallel_kernel
def pack(w, pick, packed):
    """Packed weights: those at the places ``pick``."""
    for piece in prange(-(-pick.size // PIECE)):
        first = np.int64(piece) * PIECE
        for i in range(first, min(first + PIECE, pick.size)):
            packed[i] = w[pick[i]]


@kernel
def make_planes(x, image, geometry, slots, copy, memory, at):
    """Make all planes of one image, in memory[at:] (flat)."""
    size = geometry[5] * geometry[6]
    for i in range(len(slots)):
        own = (*geometry[:8], slots[i, 3])  # with the plane's lead
        make_plane(x, image, 1, 1, slots[i, :3], own, copy, memory, at + i * size)


@kernel
def _join(phases, join, sizes, out):
    """Put the phases of the outputs of an image together, at an address."""
    _, F, P, Q, sh, sw, rows, pitch = sizes
    size = 4 * F * rows * pitch
    for a in range(sh):
        for f in range(F):
            call(
                join,
                (
                    phases + a * sw * size + 4 * f * rows * pitch,
                    size,
                    4 * pitch,
                    (P - a + sh - 1) // sh,
                    out + 4 * (f * P + a) * Q,
                    4 * sh * Q,
                    Q,
                ),
            )


@parallel_kernel
def _correlate(x, y, sizes, geometry, slots, helpers, work, numbers, memory, phases):
    """Run all images; see the module's picture.

    Parameters
    ----------
    sizes
        N, F, P, Q of the outputs, their phases, and rows and pitch of a phase.
    helpers
        Addresses of what fills a plane and joins phases.
    work : (jobs, places, addresses)
        A job is a block of filters of one phase: its first tile, its places, then, in bytes, where
        its offsets and weights begin, the weights of a column, and where bias and outputs are. A
        place is where a tile begins, in source and outputs, and the columns that it walks through.
    """
    jobs, places, addresses = work
    offsets, weights, bias = numbers
    copy, join = helpers
    N, F, P, Q, sh, sw, rows, pitch = sizes
    is_strided = sh * sw > 1
    for index in prange(N):
        n = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own = memory[thread]
        make_planes(x, n, geometry, slots, copy, own, 0)
        image = address_of(y) + 4 * n * F * P * Q
        out = image
        if is_strided:
            out = address_of(phases) + 4 * np.int64(thread) * phases.shape[1]
        for i in range(len(jobs)):
            tile = jobs[i, 0]
            for place in range(jobs[i, 1], jobs[i, 2]):
                begin = places[place, 2]
                call(
                    addresses[tile + place - jobs[i, 1]],
                    (
                        address_of(own) + places[place, 0],
                        4 * geometry[6],
                        address_of(offsets) + jobs[i, 3] + 4 * begin,
                        address_of(weights) + jobs[i, 4] + jobs[i, 5] * begin,
                        places[place, 3] - begin,
                        address_of(bias) + jobs[i, 6],
                        out + jobs[i, 7] + places[place, 1],
                        4 * rows * pitch,
                        4 * pitch,
                    ),
                )
        if is_strided:
            _join(out, join, sizes, image)
