r"""Convolutions of 3 x 3 weights in training, by Winograd's F(4 x 4, 3 x 3).

The formula, and what it costs in exactness, are in :mod:`minissl.kernels.reference.winograd`. Here
channels lie in the lanes of vectors, and a few images (or a band of a large one) at a time stay in
the second-level cache through all steps:

    for each few images, or band of an image          shared by the threads
        turn x to pixels of vectors of channels       with zeros around
        v[place, tile, channel] = B^T X B
        for each of the 36 places
            m[tile, filter] = v[tile, channel] @ u[channel, filter]
        A^T M A + b, turned back, to y

The gradient of the input is the same with turned weights. That of the weights transforms d_y as
well, and multiplies over the tiles, ``d_u[channel, filter] += v^T @ z``; the sum over images is cut
into a fixed number of parts, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.convolution import conv_backward_bias
from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    get_thread_id,
    kernel,
    parallel_kernel,
    prange,
    scratch,
)
from minissl.kernels.cpu.micro import winograd_tile
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.tiles import address_of, call, ready
from minissl.kernels.cpu.micro.winograd_tile import (
    GradientTiles,
    InputTiles,
    OutputTiles,
    ProductTile,
    TurnIn,
    TurnOut,
)
from minissl.kernels.reference.winograd import FILTER, PLACES, TILE, tiles_of

FLOAT32 = np.dtype(np.float32)
#: Tiles of a unit of work, at most, and the bytes of what is transformed: half a common
#: second-level cache.
MOST_TILES, UNIT_BYTES = 64, 640 * 1024
#: Units of work of a part of the sum over images, at least.
UNITS = 4
#: Bytes of the transformed filters, at most: every unit passes over them in the second-level cache.
FILTER_BYTES = 1280 * 1024
#: Lanes -> vectors of a block of a product: multiply-adds that are under way at once.
BLOCK = {16: 16, 8: 8}
#: In multiply-adds of vectors: turning a vector of pixels, and transforming a tile.
TURN, TRANSFORM = 16, 250


def applies(isa: Isa, shape: Any) -> bool:
    """Whether a convolution has 3 x 3 weights, not too many, and outputs as large as its inputs."""
    s, one = shape, (1, 1)
    channels, filters = (-(-n // isa.lanes) * isa.lanes for n in (s.channels, s.filters))
    is_small = 4 * PLACES * channels * filters <= FILTER_BYTES
    same = s.kernel == (3, 3) and s.stride == s.pad == s.dilation == one
    return same and s.groups == 1 and is_small


class Side(NamedTuple):
    """The pixels of one side of the layer, as vectors of channels.

    Attributes
    ----------
    channels, blocks : int
        Channels, and how many vectors they fill.
    around : int
        Pixels of zeros before the first one, along both axes.
    pitch, rows : int
        Pixels of a row of the turned image, and rows.
    places : (H * W,)
        Bytes from the first vector of a block to that of each pixel.
    """

    channels: int
    blocks: int
    around: int
    pitch: int
    rows: int
    places: np.ndarray


class Pass:
    """What the three passes share: sizes, and how the work is cut into units.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    C, F : int
        Channels that are read and written by the pass.
    """

    way = "winograd"

    def __init__(self, isa: Isa, shape: Any, C: int, F: int):
        self.isa, self.shape, self.lanes = isa, shape, isa.lanes
        H, W = shape.size
        self.high, self.wide = tiles_of(H), tiles_of(W)
        self.C, self.F = C, F
        self.c_room, self.f_room = (-(-n // self.lanes) * self.lanes for n in (C, F))
        tile_bytes = 4 * PLACES * (self.c_room + self.f_room)
        tiles = max(BLOCK[self.lanes], min(MOST_TILES, UNIT_BYTES // tile_bytes))
        #: images, and rows of tiles, of a unit
        self.images = max(1, tiles // (self.high * self.wide))
        self.rows = min(self.high, max(1, tiles // self.wide))
        self.tiles = self.images * self.rows * self.wide

    def side(self, channels: int, around: int) -> Side:
        """Describe the turned image of one side, of a unit's rows."""
        H, W = self.shape.size
        pitch, rows = TILE * self.wide + 2 * around, TILE * self.rows + 2 * around
        pixel = np.arange(H * W, dtype=np.int64)
        places = (pixel // W + around) * pitch + pixel % W + around
        blocks = -(-channels // self.lanes)
        return Side(channels, blocks, around, pitch, rows, 4 * self.lanes * places)

    @property
    def share(self) -> float:
        """Multiply-adds / those of the definition."""
        H, W = self.shape.size
        return PLACES * self.high * self.wide / (9 * H * W)

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image, about."""
        tiles, L = self.high * self.wide, self.lanes
        products = PLACES * tiles * self.c_room * self.f_room / L
        H, W = self.shape.size
        moved = (self.c_room + self.f_room) / L
        return products + moved * (tiles * TRANSFORM + H * W * TURN)

    def block(self, vectors: int) -> tuple[int, int]:
        """Return the rows and vectors of the blocks of a product of so many vectors in a row."""
        wide = next(n for n in (4, 2, 1) if vectors % n == 0 and n * n <= BLOCK[self.lanes])
        return BLOCK[self.lanes] // wide, wide

    def turns(self, channels: int) -> np.ndarray:
        """Addresses of the tiles that turn full and last vectors of channels in."""
        last = (channels - 1) % self.lanes + 1
        return _addresses([TurnIn(self.lanes, self.lanes), TurnIn(self.lanes, last)])


def _addresses(tiles: list[Any]) -> np.ndarray:
    return np.array([winograd_tile.compiled(tile).address for tile in tiles], np.int64)


class WinogradConvolution(Pass):
    """The forward pass or the gradient of the input, ready for any weights and batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
    gradient : bool
        Whether this is the gradient of the input.
    """

    def __init__(self, isa: Isa, shape: Any, gradient: bool):
        channels = shape.channels, shape.filters
        super().__init__(isa, shape, *(channels[::-1] if gradient else channels))
        self.gradient = gradient
        self.source, self.target = self.side(self.C, 1), self.side(self.F, 0)

    @cached_property
    def addresses(self) -> tuple[np.ndarray, ...]:
        """Addresses of the tiles: turning in; transforms; products by rows; turning out."""
        L = self.lanes
        rows, vectors = self.block(self.f_room // L)
        products = [
            ProductTile(L, n, vectors, 4 * self.c_room, adds=False) for n in range(1, rows + 1)
        ]
        return (
            self.turns(self.C),
            _addresses([InputTiles(L), OutputTiles(L)]),
            _addresses(products),
            _addresses([TurnOut(L, n) for n in range(1, L + 1)]),
        )

    def transformed(self, w: np.ndarray) -> np.ndarray:
        """Return G w G^T by (place, channel, filter), zero beyond the last of them."""
        w = w.reshape(*w.shape[:2], 9)
        w = w[:, :, ::-1] if self.gradient else w.swapaxes(0, 1)  # (C, F, 9) of this pass
        lines = scratch("winograd lines", (9, self.c_room, self.f_room), FLOAT32)
        lines[...] = 0
        lines[:, : self.C, : self.F] = np.moveaxis(w, 2, 0)
        u = scratch("winograd filters", (PLACES, self.c_room * self.f_room), FLOAT32)
        return np.dot(FILTER.astype(np.float32), lines.reshape(9, -1), out=u)

    def run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
        """Convolve x (N, C, H, W) into y (N, F, H, W); for the gradient they are d_y and d_x."""
        x, out = ready(x, y)
        u = self.transformed(np.asarray(w, np.float32))
        bias = scratch("winograd bias", (self.f_room,), FLOAT32)
        bias[:] = 0
        if b is not None:
            bias[: self.F] = b
        threads, room = config.NUMBA_NUM_THREADS, self.tiles + 1
        sizes = [s.blocks * s.rows * s.pitch * self.lanes for s in (self.source, self.target)]
        _convolve(
            x.reshape(-1),
            u.reshape(-1),
            bias,
            out.reshape(-1),
            (len(x), self.F, *self.shape.size, self.lanes),
            (self.high, self.wide, self.images, self.rows),
            self.source,
            self.target,
            self.block(self.f_room // self.lanes),
            self.addresses,
            scratch("winograd source", (threads, sizes[0]), FLOAT32),
            scratch("winograd v", (threads, PLACES, room * self.c_room), FLOAT32),
            scratch("winograd m", (threads, PLACES, room * self.f_room), FLOAT32),
            scratch("winograd target", (threads, sizes[1] // self.target.blocks), FLOAT32),
            get_num_threads(),
        )
        if out is not y:
            y[...] = out


@kernel
def _turn_in(x, n, side, sizes, turns, first_row, last_row, origin, own):
    """Turn rows first_row..last_row - 1 of image n; row ``origin`` is the first of ``own``."""
    H, W, L = sizes
    C, blocks, _, pitch, rows, places = side
    shift = origin * pitch * L * 4
    for block in range(blocks):
        target = address_of(own) + 4 * block * rows * pitch * L - shift
        begin = address_of(x) + 4 * (n * C + block * L) * H * W
        turn = turns[1 if block == blocks - 1 else 0]
        for pixel in range(first_row * W, last_row * W, L):
            count = min(L, last_row * W - pixel)
            call(
                turn,
                (
                    begin + 4 * pixel,
                    np.int64(4 * H * W),
                    count,
                    target,
                    address_of(places) + 8 * pixel,
                ),
            )


@kernel
def _transform(tile, own, side, L, rows, wide, first_tile, room, out):
    """Transform the tiles of an image (or band) into ``out`` (places, tiles, channels)."""
    _, blocks, _, pitch, all_rows, _ = side
    width = blocks * L
    for block in range(blocks):
        for row in range(rows):
            source = (block * all_rows + 4 * row) * pitch * L
            target = (first_tile + row * wide) * width + block * L
            call(
                tile,
                (
                    address_of(own) + 4 * source,
                    4 * pitch * L,
                    wide,
                    address_of(out) + 4 * target,
                    4 * width,
                    4 * room,
                ),
            )


@parallel_kernel
def _convolve(
    x, u, bias, y, sizes, tiling, source, target, blocks, addresses, turned, vs, ms, backs, threads
):
    """Run all units; see the module's picture."""
    N, F, H, W, L = sizes
    high, wide, together, band = tiling
    block_rows, block_vectors = blocks
    turns, transforms, products, outs = addresses
    c_room, f_room = source[1] * L, target[1] * L
    v_room, m_room = vs.shape[2], ms.shape[2]
    bands = -(-high // band)
    units = -(-N // together) * bands
    for index in prange(threads):
        part = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own, v, m, back = turned[thread], vs[thread], ms[thread], backs[thread]
        own[:] = 0
        for unit in range(part * units // threads, (part + 1) * units // threads):
            first, top = unit // bands * together, unit % bands * band
            images, rows = min(together, N - first), min(band, high - top)
            first_row, last_row = max(0, 4 * top - 1), min(H, 4 * (top + rows) + 1)
            for i in range(images):
                if bands > 1:
                    own[:] = 0
                _turn_in(x, first + i, source, (H, W, L), turns, first_row, last_row, 4 * top, own)
                _transform(transforms[0], own, source, L, rows, wide, i * rows * wide, v_room, v)
            tiles = images * rows * wide
            for place in range(PLACES):
                for f in range(0, f_room, block_vectors * L):
                    for tile in range(0, tiles, block_rows):
                        count = min(block_rows, tiles - tile)
                        call(
                            products[count - 1],
                            (
                                address_of(v) + 4 * (place * v_room + tile * c_room),
                                np.int64(4),
                                address_of(u) + 4 * (place * c_room * f_room + f),
                                4 * f_room,
                                c_room,
                                address_of(m) + 4 * (place * m_room + tile * f_room + f),
                                4 * f_room,
                            ),
                        )
            first_pixel, last_pixel = 4 * top * W, min(H, 4 * (top + rows)) * W
            pitch, places = target[3], target[5]
            shift = 4 * top * pitch * L * 4
            for i in range(images):
                for f in range(0, F, L):
                    for row in range(rows):
                        tile = (i * rows + row) * wide
                        call(
                            transforms[1],
                            (
                                address_of(m) + 4 * (tile * f_room + f),
                                4 * f_room,
                                4 * m_room,
                                wide,
                                address_of(bias) + 4 * f,
                                address_of(back) + 4 * (4 * row * pitch * L),
                                4 * pitch * L,
                            ),
                        )
                    out = ((first + i) * F + f) * H * W
                    for pixel in range(first_pixel, last_pixel, L):
                        count = min(L, last_pixel - pixel)
                        call(
                            outs[count - 1],
                            (
                                address_of(back) - shift,
                                address_of(places) + 8 * pixel,
                                address_of(y) + 4 * (out + pixel),
                                np.int64(4 * H * W),
                                min(L, F - f),
                            ),
                        )


class WinogradWeightGradient(Pass):
    """The gradient of the weights of one layer, for any batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
    """

    def __init__(self, isa: Isa, shape: Any):
        super().__init__(isa, shape, shape.channels, shape.filters)
        self.source, self.target = self.side(self.C, 1), self.side(self.F, 0)

    def parts(self, N: int) -> int:
        """Return into how many parts the sum over N images is cut.

        A part begins and ends with matrices as large as 36 / 9 of the weights, so it should have
        several units of work.
        """
        units = -(-N // self.images) * -(-self.high // self.rows)
        return max(1, min(PARTS, N, units // UNITS))

    @cached_property
    def addresses(self) -> tuple[np.ndarray, ...]:
        """Addresses of the tiles: turning in, of x and of d_y; transforms; the product."""
        L = self.lanes
        rows, vectors = self.block(self.f_room // L)
        return (
            self.turns(self.C),
            self.turns(self.F),
            _addresses([InputTiles(L), GradientTiles(L)]),
            _addresses([ProductTile(L, rows, vectors, 4, adds=True)]),
        )

    def run(self, x: np.ndarray, d_y: np.ndarray, d_w: np.ndarray, d_b: np.ndarray | None) -> None:
        """Add to d_w (F, C, 3, 3) and, if given, to d_b (F,), from x and d_y."""
        x, d_y = np.ascontiguousarray(x), np.ascontiguousarray(d_y)
        if d_b is not None:
            conv_backward_bias(d_y, d_b)
        threads, room = config.NUMBA_NUM_THREADS, self.tiles + 1
        sizes = [s.blocks * s.rows * s.pitch * self.lanes for s in (self.source, self.target)]
        parts = self.parts(len(x))
        partial = scratch("winograd partial", (parts, 9, self.c_room * self.f_room), FLOAT32)
        _gradient(
            x.reshape(-1),
            d_y.reshape(-1),
            FILTER.T.astype(np.float32),
            (len(x), *self.shape.size, self.lanes),
            (self.high, self.wide, self.images, self.rows),
            self.source,
            self.target,
            self.block(self.f_room // self.lanes),
            self.addresses,
            scratch("winograd source", (threads, sizes[0]), FLOAT32),
            scratch("winograd target", (threads, sizes[1]), FLOAT32),
            scratch("winograd v", (threads, PLACES, room * self.c_room), FLOAT32),
            scratch("winograd z", (threads, PLACES, room * self.f_room), FLOAT32),
            scratch("winograd gradient", (threads, PLACES, self.c_room * self.f_room), FLOAT32),
            partial,
        )
        total = partial.reshape(parts, 9, self.c_room, self.f_room)[:, :, : self.C, : self.F]
        d_w += total.sum(axis=0).transpose(2, 1, 0).reshape(d_w.shape)


@parallel_kernel
def _gradient(
    x, d_y, back, sizes, tiling, source, target, blocks, addresses, xs, ys, vs, zs, sums, partial
):
    """Compute all parts: ``partial`` (parts, 9, channels * filters)."""
    N, H, W, L = sizes
    high, wide, together, band = tiling
    block_rows, block_vectors = blocks
    turns_x, turns_y, transforms, products = addresses
    c_room, f_room = source[1] * L, target[1] * L
    v_room, z_room = vs.shape[2], zs.shape[2]
    bands = -(-high // band)
    parts = len(partial)
    for index in prange(parts):
        part = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own_x, own_y, v, z = xs[thread], ys[thread], vs[thread], zs[thread]
        d_u = sums[thread]
        own_x[:], own_y[:], d_u[:] = 0, 0, 0
        end = (part + 1) * N // parts
        for first in range(part * N // parts, end, together):
            images = min(together, end - first)
            for top in range(0, high, band):
                rows = min(band, high - top)
                first_row, last_row = max(0, 4 * top - 1), min(H, 4 * (top + rows) + 1)
                last_out = min(H, 4 * (top + rows))
                for i in range(images):
                    if bands > 1:
                        own_x[:], own_y[:] = 0, 0
                    at, tile = first + i, i * rows * wide
                    size = H, W, L
                    _turn_in(x, at, source, size, turns_x, first_row, last_row, 4 * top, own_x)
                    _transform(transforms[0], own_x, source, L, rows, wide, tile, v_room, v)
                    _turn_in(d_y, at, target, size, turns_y, 4 * top, last_out, 4 * top, own_y)
                    _transform(transforms[1], own_y, target, L, rows, wide, tile, z_room, z)
                for place in range(PLACES):
                    for f in range(0, f_room, block_vectors * L):
                        for c in range(0, c_room, block_rows):
                            call(
                                products[0],
                                (
                                    address_of(v) + 4 * (place * v_room + c),
                                    4 * c_room,
                                    address_of(z) + 4 * (place * z_room + f),
                                    4 * f_room,
                                    images * rows * wide,
                                    address_of(d_u) + 4 * ((place * c_room + c) * f_room + f),
                                    4 * f_room,
                                ),
                            )
        np.dot(back, d_u, partial[part])
