r"""Register tiles of Winograd's convolution: the lanes of a vector are channels (or filters).

==============  ===================================================================================
TurnIn          pixels of some channels, channel by channel -> pixel by pixel
TransformTiles  B^T X B of a row of tiles, or A d_Y A^T
ProductTile     a block of the product of two matrices
OutputTiles     A^T M A + bias of a row of tiles
TurnOut         pixel by pixel -> channel by channel
==============  ===================================================================================

The transforms have the numbers 0, 1, 2, 4, 5 and 8 only, and pairs of lines that differ in a sign:
what follows are their sums with what is common computed once. The matrices, and the formula, are in
:mod:`minissl.kernels.winograd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted
from minissl.kernels.winograd import PLACES, READ

Line = Callable[[Sequence[Value]], list[Value]]


def input_line(v: Vectors, d: Sequence[Value]) -> list[Value]:
    """B^T d, 6 numbers from 6."""
    even, odd = v.times(-4, d[2], d[4]), v.times(-4, d[1], d[3])
    far, near = v.minus(d[4], d[2]), v.minus(d[3], d[1])
    return [
        v.times(4, d[0], v.times(-5, d[2], d[4])),
        v.plus(even, odd),
        v.minus(even, odd),
        v.times(2, near, far),
        v.times(-2, near, far),
        v.times(4, d[1], v.times(-5, d[3], d[5])),
    ]


def output_line(v: Vectors, tile: int, m: Sequence[Value]) -> list[Value]:
    """A^T m: 4 numbers, or 2, from 6."""
    even, odd = v.plus(m[1], m[2]), v.minus(m[1], m[2])
    far_even, far_odd = v.plus(m[3], m[4]), v.minus(m[3], m[4])
    first = v.plus(m[0], v.plus(even, far_even))
    if tile == 2:
        return [first, v.times(2, far_odd, v.plus(odd, m[5]))]
    return [
        first,
        v.times(2, far_odd, odd),
        v.times(4, far_even, even),
        v.times(8, far_odd, v.plus(odd, m[5])),
    ]


def gradient_line(v: Vectors, tile: int, y: Sequence[Value]) -> list[Value]:
    """A y: 6 numbers from 4, or from 2."""
    if tile == 2:
        even, odd, far_even, far_odd = y[0], y[1], y[0], v.plus(y[1], y[1])
    else:
        even, odd = v.plus(y[0], y[2]), v.plus(y[1], y[3])
        far_even = v.times(4, y[2], y[0])
        far_odd = v.times(8, y[3], v.plus(y[1], y[1]))
    return [
        y[0],
        v.plus(even, odd),
        v.minus(even, odd),
        v.plus(far_even, far_odd),
        v.minus(far_even, far_odd),
        y[-1],
    ]


def both_axes(square: Sequence[Sequence[Value]], line: Line) -> list[list[Value]]:
    """Transform the columns of a square, then its rows."""
    columns = [line(column) for column in zip(*square, strict=True)]
    return [line(row) for row in zip(*columns, strict=True)]


class TransformTiles(NamedTuple):
    """B^T X B of neighbouring tiles, or A d_Y A^T of those of a gradient.

    Attributes
    ----------
    lanes : int
    tile : int
        m, the pixels from tile to tile.
    gradient : bool
    """

    lanes: int
    tile: int
    gradient: bool

    def emit(
        self,
        v: Vectors,
        source: Value,
        pitch: Value,
        count: Value,
        target: Value,
        step: Value,
        plane: Value,
    ) -> None:
        """Transform some tiles.

        Parameters
        ----------
        source : address
            Of the first pixel that the first tile reads; pixels are vectors side by side.
        pitch : bytes
            From row to row of the source.
        count : int
        target : address
            Of the first tile at the first of the 36 places.
        step, plane : bytes
            From tile to tile of the target, and from place to place.
        """
        side = self.tile if self.gradient else READ
        line = partial(gradient_line, v, self.tile) if self.gradient else partial(input_line, v)

        def one(at: Value, places: list[Value]) -> list[Value]:
            row, out = places
            next_row, next_out = v.add(row, self.tile * v.bytes), v.builder.add(out, step)
            square = []
            for _ in range(side):
                square.append([v.load(v.add(row, j * v.bytes)) for j in range(side)])
                row = v.builder.add(row, pitch)
            for values in both_axes(square, line):
                for value in values:
                    v.store(value, out)
                    out = v.builder.add(out, plane)
            return [next_row, next_out]

        v.loop(ir.Constant(I64, 0), count, 1, [source, target], one)


class OutputTiles(NamedTuple):
    """A^T M A + bias of neighbouring tiles.

    Attributes
    ----------
    lanes : int
    tile : int
        m, the pixels from tile to tile.
    rectifies : bool
        Whether negative outputs become zero.
    """

    lanes: int
    tile: int
    rectifies: bool

    def emit(
        self,
        v: Vectors,
        source: Value,
        step: Value,
        plane: Value,
        count: Value,
        bias: Value,
        target: Value,
        pitch: Value,
    ) -> None:
        """Transform some tiles.

        Parameters
        ----------
        source : address
            Of the first tile at the first of the 36 places.
        step, plane : bytes
            From tile to tile of the source, and from place to place.
        count : int
        bias : address
        target : address
            Of the first pixel of the first tile; pixels are vectors side by side.
        pitch : bytes
            From row to row of the target.
        """
        added = v.load(bias)

        def one(at: Value, places: list[Value]) -> list[Value]:
            tile, row = places
            next_tile, next_row = v.builder.add(tile, step), v.add(row, self.tile * v.bytes)
            found = []
            for _ in range(PLACES):
                found.append(v.load(tile))
                tile = v.builder.add(tile, plane)
            square = [found[i : i + READ] for i in range(0, PLACES, READ)]
            for values in both_axes(square, partial(output_line, v, self.tile)):
                for j, value in enumerate(values):
                    out = v.plus(value, added)
                    v.store(v.positive(out) if self.rectifies else out, v.add(row, j * v.bytes))
                row = v.builder.add(row, pitch)
            return [next_tile, next_row]

        v.loop(ir.Constant(I64, 0), count, 1, [source, target], one)


class ProductTile(NamedTuple):
    """out[i] = sum over l of a[i, l] * b[l], or the same added to it; b and out are vectors.

    Attributes
    ----------
    lanes : int
    rows, vectors : int
        Of the block.
    row_step : int
        Bytes from a[i, l] to a[i + 1, l].
    adds : bool
    """

    lanes: int
    rows: int
    vectors: int
    row_step: int
    adds: bool

    def emit(
        self,
        v: Vectors,
        a: Value,
        a_step: Value,
        b: Value,
        b_step: Value,
        count: Value,
        out: Value,
        out_step: Value,
    ) -> None:
        """Compute a block.

        Parameters
        ----------
        a, b : addresses
            Of a[0, 0] and b[0].
        a_step, b_step : bytes
            From l to l + 1.
        count : int
            How many l there are.
        out, out_step : address and bytes
            Of out[0], and to the next row.
        """
        places, place = [], out
        for _ in range(self.rows):
            places += [v.add(place, j * v.bytes) for j in range(self.vectors)]
            place = v.builder.add(place, out_step)
        sums = [v.load(place) for place in places] if self.adds else [v.zero] * len(places)

        def one(at: Value, carried: list[Value]) -> list[Value]:
            a, b, *sums = carried
            columns = [v.load(v.add(b, j * v.bytes)) for j in range(self.vectors)]
            for i in range(self.rows):
                number = v.broadcast(v.add(a, i * self.row_step))
                for j, column in enumerate(columns):
                    at_ij = i * self.vectors + j
                    sums[at_ij] = v.fma(number, column, sums[at_ij])
            return [v.builder.add(a, a_step), v.builder.add(b, b_step), *sums]

        _, _, *sums = v.loop(ir.Constant(I64, 0), count, 1, [a, b, *sums], one)
        for value, place in zip(sums, places, strict=True):
            v.store(value, place)


class TurnIn(NamedTuple):
    """Bring pixels of some channels into vectors of channels, zero in lanes without a channel.

    Attributes
    ----------
    lanes, channels : int
    """

    lanes: int
    channels: int

    def emit(
        self, v: Vectors, source: Value, pitch: Value, count: Value, target: Value, places: Value
    ) -> None:
        """Turn up to ``lanes`` pixels.

        Parameters
        ----------
        source, pitch : address and bytes
            Of the first pixel of the first channel, and to the next channel.
        count : int
            Pixels.
        target : address
        places : address of int64
            Bytes from the target to the vector of each pixel.
        """
        mask = v.between(ir.Constant(I64, 0), count)
        rows = []
        for _ in range(self.channels):
            rows.append(v.load_some(source, mask))
            source = v.builder.add(source, pitch)
        rows += [v.zero] * (self.lanes - self.channels)

        def place(lane: int) -> Value:
            return v.builder.add(target, v.long(places, lane))

        v.store_transposed(rows, place, count)


class TurnOut(NamedTuple):
    """Bring vectors of channels out, channel by channel.

    Attributes
    ----------
    lanes, pixels : int
        Pixels are at most ``lanes``.
    """

    lanes: int
    pixels: int

    def emit(
        self, v: Vectors, source: Value, places: Value, target: Value, pitch: Value, count: Value
    ) -> None:
        """Turn some pixels.

        Parameters
        ----------
        source : address
        places : address of int64
            Bytes from the source to the vector of each pixel.
        target, pitch : address and bytes
            Of the first pixel of the first channel, and to the next channel.
        count : int
            Channels.
        """
        vectors = [
            v.load(v.builder.add(source, v.long(places, pixel))) for pixel in range(self.pixels)
        ]

        def line(channel: int) -> Value:
            return v.builder.add(target, v.builder.mul(pitch, ir.Constant(I64, channel)))

        v.store_transposed(vectors, line, count)


def compiled(tile: Any) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    return _compiled(tile.__class__, tile)  # tuples of two kinds with the same numbers are equal


@cache
def _compiled(_kind: Any, tile: Any) -> Any:
    constant = Constant(tile)

    def five(a, b, c, d, e):
        emitted(constant, (a, b, c, d, e))

    def six(a, b, c, d, e, f):
        emitted(constant, (a, b, c, d, e, f))

    def seven(a, b, c, d, e, f, g):
        emitted(constant, (a, b, c, d, e, f, g))

    taken = tile.emit.__code__.co_argcount - 2  # without self and v
    function: Any = {5: five, 6: six, 7: seven}[taken]
    return c_function(function, f"a tile of Winograd's convolution, {tile}")
