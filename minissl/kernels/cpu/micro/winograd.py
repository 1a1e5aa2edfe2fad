r"""Convolutions of 3 x 3 and 5 x 5 weights by Winograd's formula.

The formula, and what it costs in exactness, is in :mod:`minissl.kernels.winograd`. Here
channels lie in the lanes of vectors, and a few images (or a band of a large one) at a time stay in
the second-level cache through all steps:

    for each few images, or band of an image          shared by the threads
        turn x to pixels of vectors of channels       with zeros around
        v[place, tile, channel] = B^T X B
        for each of the 36 places
            m[tile, filter] = v[tile, channel] @ u[channel, filter]
        A^T M A + b, turned back, to y

The gradient of the input is the same with turned weights; that of the weights is in
:mod:`minissl.kernels.cpu.micro.winograd_gradient`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import (
    aligned,
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
    OutputTiles,
    ProductTile,
    TransformTiles,
    TurnIn,
    TurnOut,
)
from minissl.kernels.winograd import PLACES, Winograd, covers

FLOAT32 = np.dtype(np.float32)
#: Tiles of a unit of work, at most, and the bytes of what is transformed: half a common
#: second-level cache.
MOST_TILES, UNIT_BYTES = 64, 640 * 1024
#: Bytes of the transformed filters, at most: every unit passes over them in the second-level cache.
FILTER_BYTES = 1280 * 1024
#: In multiply-adds of vectors: turning a vector of pixels, transforming a tile, beginning and
#: ending a block of a product.
TURN, TRANSFORM, BEGIN = 16, 250, 60


def applies(isa: Isa, shape: Any) -> bool:
    """Whether the formula covers a convolution, and it has not too many weights to be fast."""
    sides = shape.channels, shape.filters
    channels, filters = (-(-n // isa.lanes) * isa.lanes for n in sides)
    return covers(shape) and 4 * PLACES * channels * filters <= FILTER_BYTES


class Side(NamedTuple):
    """The pixels that a pass reads or writes, as vectors of channels.

    Attributes
    ----------
    channels, blocks : int
        Channels, and how many vectors they fill.
    height, width : int
        Pixels.
    above : int
        Rows of zeros before the first.
    reach : int
        Rows that tiles depend on beyond their own.
    pitch, rows : int
        Pixels of a row of the turned image of a unit, and rows.
    places : (height * width,)
        Bytes from the first vector of a block to that of each pixel.
    """

    channels: int
    blocks: int
    height: int
    width: int
    above: int
    reach: int
    pitch: int
    rows: int
    places: np.ndarray

    def floats(self, lanes: int) -> int:
        """Numbers of a turned image."""
        return self.blocks * self.rows * self.pitch * lanes


class Pass:
    """What the three passes share: sizes, and how the work is cut into units.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    gradient : bool
        Whether d_y is read and d_x is written, in place of x and y.
    """

    way = "winograd"

    def __init__(self, isa: Isa, shape: Any, gradient: bool = False):
        self.shape, self.lanes, self.formula = shape, isa.lanes, Winograd(shape.kernel[0])
        self.filters = self.formula.filters.astype(np.float32)  # (36, r * r)
        reach = shape.kernel[0] - 1
        sides = (shape.channels, shape.size), (shape.filters, shape.output)
        pad = shape.pad
        if gradient:
            sides, pad = sides[::-1], (reach - pad[0], reach - pad[1])
        (self.C, size), (self.F, output) = sides
        self.c_room, self.f_room = (-(-n // self.lanes) * self.lanes for n in (self.C, self.F))
        self.high, self.wide = (self.formula.tiles(n) for n in output)
        tile_bytes = 4 * PLACES * (self.c_room + self.f_room)
        tiles = min(MOST_TILES, UNIT_BYTES // tile_bytes)
        #: images, and rows of tiles, of a unit
        self.images = max(1, tiles // (self.high * self.wide))
        self.rows = min(self.high, max(1, tiles // self.wide))
        self.tiles = self.images * self.rows * self.wide
        self.source = self._side(self.C, size, pad, reach)
        self.target = self._side(self.F, output, (0, 0), 0)

    def _side(self, channels: int, size: tuple[int, int], pad: tuple[int, int], reach: int) -> Side:
        height, width = size
        tile = self.formula.tile
        pitch, rows = tile * self.wide + reach, tile * self.rows + reach
        pixel = np.arange(height * width, dtype=np.int64)
        places = (pixel // width + pad[0]) * pitch + pixel % width + pad[1]
        blocks = -(-channels // self.lanes)
        return Side(
            channels, blocks, height, width, pad[0], reach, pitch, rows, 4 * self.lanes * places
        )

    @property
    def unit(self) -> tuple[int, int]:
        """Images that a unit of work has together, and units that an image is cut into."""
        return self.images, -(-self.high // self.rows)

    @property
    def tiling(self) -> tuple[int, ...]:
        """What the loops want to know about tiles and units."""
        blocks = self.block(self.f_room // self.lanes)
        return self.lanes, self.formula.tile, self.high, self.wide, self.images, self.rows, *blocks

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image, about."""
        tiles, L = self.high * self.wide, self.lanes
        pixels = self.source.height * self.source.width
        moved = (self.c_room + self.f_room) / L
        blocks = PLACES * self.c_room * self.f_room * tiles / (L * L * self.length)
        products = blocks * (L * self.length + BEGIN)
        return products + moved * (tiles * TRANSFORM + pixels * TURN)

    @property
    def length(self) -> int:
        """Terms of a sum in a block of a product."""
        return self.c_room

    def block(self, vectors: int) -> tuple[int, int]:
        """Return the rows and vectors of the blocks of a product of so many vectors in a row.

        A block has as many vectors as one has lanes: half the registers, and enough multiply-adds
        under way at once.
        """
        wide = next(n for n in (4, 2, 1) if vectors % n == 0 and n * n <= self.lanes)
        return self.lanes // wide, wide

    def turns(self, channels: int) -> np.ndarray:
        """Addresses of the tiles that turn full and last vectors of channels in."""
        last = (channels - 1) % self.lanes + 1
        return addresses_of([TurnIn(self.lanes, self.lanes), TurnIn(self.lanes, last)])


def addresses_of(tiles: list[Any]) -> np.ndarray:
    """Return the addresses of some tiles, compiled."""
    return np.array([winograd_tile.compiled(tile).address for tile in tiles], np.int64)


class WinogradConvolution(Pass):
    """The forward pass or the gradient of the input, ready for any weights and batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
    gradient : bool
        Whether this is the gradient of the input.
    rectifies : bool
        Whether negative outputs become zero.
    """

    def __init__(self, isa: Isa, shape: Any, gradient: bool, rectifies: bool = False):
        super().__init__(isa, shape, gradient)
        self.gradient, self.rectifies = gradient, rectifies

    @cached_property
    def addresses(self) -> tuple[np.ndarray, ...]:
        """Addresses of the tiles: turning in; transforms; the product; turning out by pixels."""
        L, tile = self.lanes, self.formula.tile
        rows, vectors = self.block(self.f_room // L)
        outs = np.zeros(L, np.int64)
        counts = sorted(self._pixels_out())
        outs[np.array(counts) - 1] = addresses_of([TurnOut(L, count) for count in counts])
        output = OutputTiles(L, tile, self.rectifies)
        return (
            self.turns(self.C),
            addresses_of([TransformTiles(L, tile, gradient=False), output]),
            addresses_of([ProductTile(L, rows, vectors, 4 * self.c_room, adds=False)]),
            outs,
        )

    def _pixels_out(self) -> set[int]:
        """Return how many pixels are turned out at once: a vector, or the last of a band."""
        P, Q, tile = self.target.height, self.target.width, self.formula.tile
        found = set()
        for top in range(0, self.high, self.rows):
            pixels = (min(P, tile * min(top + self.rows, self.high)) - tile * top) * Q
            found |= {min(self.lanes, pixels), pixels % self.lanes or self.lanes}
        return found

    def transformed(self, w: np.ndarray) -> np.ndarray:
        """Return G w G^T by (place, channel, filter), zero beyond the last of them."""
        taps = self.formula.kernel**2
        w = w.reshape(*w.shape[:2], taps)
        w = w[:, :, ::-1] if self.gradient else w.swapaxes(0, 1)  # (C, F, taps) of this pass
        lines = scratch("winograd lines", (taps, self.c_room, self.f_room), FLOAT32)
        lines[...] = 0
        lines[:, : self.C, : self.F] = np.moveaxis(w, 2, 0)
        u = scratch("winograd filters", (PLACES, self.c_room * self.f_room), FLOAT32)
        with np.errstate(all="ignore"):  # a training that diverges is told of elsewhere
            return np.dot(self.filters, lines.reshape(taps, -1), out=u)

    def packed(self, w: np.ndarray) -> np.ndarray:
        """Return the same to keep, for :meth:`run_packed`."""
        return aligned(self.transformed(w).reshape(-1))

    def run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
        """Convolve x (N, C, H, W) into y (N, F, P, Q); for the gradient they are d_y and d_x."""
        self.run_packed(x, self.transformed(np.asarray(w, np.float32)).reshape(-1), b, y)

    def run_packed(self, x: np.ndarray, u: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
        """Run with weights that are transformed, and begin on a cache line."""
        x, out = ready(x, y)
        bias = scratch("winograd bias", (self.f_room,), FLOAT32)
        bias[:] = 0
        if b is not None:
            bias[: self.F] = b
        threads = config.NUMBA_NUM_THREADS
        # products come in whole blocks: what lies behind the last tile is computed and not read
        block_rows = self.block(self.f_room // self.lanes)[0]
        room = -(-self.tiles // block_rows) * block_rows + 1
        floats = self.target.floats(self.lanes) // self.target.blocks
        _convolve(
            x.reshape(-1),
            u,
            bias,
            out.reshape(-1),
            len(x),
            self.tiling,
            self.source,
            self.target,
            self.addresses,
            scratch("winograd source", (threads, self.source.floats(self.lanes)), FLOAT32),
            scratch("winograd v", (threads, PLACES, room * self.c_room), FLOAT32),
            scratch("winograd m", (threads, PLACES, room * self.f_room), FLOAT32),
            scratch("winograd target", (threads, floats), FLOAT32),
            get_num_threads(),
        )
        if out is not y:
            y[...] = out


@kernel
def turn_in(x, n, side, L, turns, first_row, rows, own):
    """Turn what some rows of outputs depend on, of image n, the first of them to row 0 of ``own``.

    Rows beyond the image are left as they are.
    """
    C, blocks, H, W, above, reach, pitch, all_rows, places = side
    shift = first_row * pitch * L * 4
    begin, end = max(0, first_row - above), min(H, first_row - above + rows + reach)
    for block in range(blocks):
        source = address_of(x) + 4 * (n * C + block * L) * H * W
        target = address_of(own) + 4 * block * all_rows * pitch * L - shift
        turn = turns[1 if block == blocks - 1 else 0]
        for pixel in range(begin * W, end * W, L):
            count = min(L, end * W - pixel)
            call(
                turn,
                (
                    source + 4 * pixel,
                    np.int64(4 * H * W),
                    count,
                    target,
                    address_of(places) + 8 * pixel,
                ),
            )


@kernel
def transform(code, own, side, L, tile, rows, wide, first, room, out):
    """Transform the tiles of an image (or band) into ``out`` (places, tiles, channels)."""
    blocks, pitch, all_rows = side[1], side[6], side[7]
    width = blocks * L
    for block in range(blocks):
        for row in range(rows):
            source = (block * all_rows + tile * row) * pitch * L
            target = (first + row * wide) * width + block * L
            call(
                code,
                (
                    address_of(own) + 4 * source,
                    4 * pitch * L,
                    wide,
                    address_of(out) + 4 * target,
                    4 * width,
                    4 * room,
                ),
            )


@kernel
def _transform_back(
    codes, outs, m, tiling, side, images, first_image, top, rows, room, bias, back, y
):
    """Transform the tiles of some images (or a band), and turn the outputs back into y."""
    L, tile, _, wide, _, _, _, _ = tiling
    F, blocks, P, Q, _, _, pitch, _, places = side
    width = blocks * L
    begin, end = tile * top * Q, min(P, tile * (top + rows)) * Q
    shift = tile * top * pitch * L * 4
    for i in range(images):
        for f in range(0, F, L):
            for row in range(rows):
                call(
                    codes[1],
                    (
                        address_of(m) + 4 * ((i * rows + row) * wide * width + f),
                        4 * width,
                        4 * room,
                        wide,
                        address_of(bias) + 4 * f,
                        address_of(back) + 4 * (tile * row * pitch * L),
                        4 * pitch * L,
                    ),
                )
            out = ((first_image + i) * F + f) * P * Q
            for pixel in range(begin, end, L):
                call(
                    outs[min(L, end - pixel) - 1],
                    (
                        address_of(back) - shift,
                        address_of(places) + 8 * pixel,
                        address_of(y) + 4 * (out + pixel),
                        np.int64(4 * P * Q),
                        min(L, F - f),
                    ),
                )


@parallel_kernel
def _convolve(x, u, bias, y, N, tiling, source, target, addresses, turned, vs, ms, backs, threads):
    """Run all units; see the module's picture."""
    L, size, high, wide, together, band, block_rows, block_vectors = tiling
    turns, transforms, products, outs = addresses
    c_room, f_room = source[1] * L, target[1] * L
    v_room, m_room = vs.shape[2], ms.shape[2]
    bands = -(-high // band)
    units = -(-N // together) * bands
    for index in prange(threads):
        part = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own, v, m = turned[thread], vs[thread], ms[thread]
        own[:] = 0
        for unit in range(part * units // threads, (part + 1) * units // threads):
            first, top = unit // bands * together, unit % bands * band
            images, rows = min(together, N - first), min(band, high - top)
            for i in range(images):
                if bands > 1:
                    own[:] = 0
                turn_in(x, first + i, source, L, turns, size * top, size * rows, own)
                tile = i * rows * wide
                transform(transforms[0], own, source, L, size, rows, wide, tile, v_room, v)
            tiles = images * rows * wide
            for place in range(PLACES):
                for f in range(0, f_room, block_vectors * L):
                    for tile in range(0, tiles, block_rows):
                        call(
                            products[0],
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
            _transform_back(
                transforms, outs, m, tiling, target, images, first, top, rows, m_room, bias,
                backs[thread], y,
            )  # fmt: skip
