"""The register tile of a gradient of the input that spreads: d_y is added where it goes.

For one kernel position (r, q), every pixel of d_y sends to the pixel of d_x that lies r rows below
and q columns beside it. C channels times the pixels of some rows of d_y stay in registers while the
filters are walked through; then each run of a row is added to d_x:

    rows of d_y, 8 wide: two in a vector
    [ a a a a a a a a | b b b b b b b b ]       sum[c] = sum over f of  w[f, c, r, q] * d_y[f]
                                d_x[c, p + r,     q ... q + 7] += a
                                d_x[c, p + r + 1, q ... q + 7] += b

Nothing is padded: where the padding of a convolution is small, gathering
(:mod:`minissl.kernels.cpu.micro.correlation`) multiplies many zeros around d_y.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import I1, I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted


class SpreadTile(NamedTuple):
    """What a tile knows at compile time.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    channels, rows, width : int
        Channels of d_x, rows of d_y, and pixels in each.
    """

    lanes: int
    channels: int
    rows: int
    width: int

    @property
    def vectors(self) -> int:
        """Vectors that hold the pixels."""
        return -(-self.rows * self.width // self.lanes)

    def runs(self, vector: int) -> list[tuple[int, int, int]]:
        """Return first and last lane + 1 of each row that a vector has a part of, and the row."""
        begin, end = vector * self.lanes, min((vector + 1) * self.lanes, self.rows * self.width)
        found = []
        while begin < end:
            row = begin // self.width
            stop = min(end, (row + 1) * self.width)
            found.append((begin - vector * self.lanes, stop - vector * self.lanes, row))
            begin = stop
        return found

    def emit(
        self,
        v: Vectors,
        source: Value,
        plane_bytes: Value,
        weights: Value,
        filters: Value,
        out: Value,
        channel_bytes: Value,
        row_bytes: Value,
    ) -> None:
        """Add one kernel position's part of some channels.

        Parameters
        ----------
        source : address
            The rows of d_y of the first filter.
        plane_bytes : int
            From there to the next filter.
        weights, filters : address, int
            ``channels`` numbers for each filter, and how many filters.
        out : address
            Where the first pixel of d_y goes to in the first channel of d_x.
        channel_bytes, row_bytes : int
            From one channel of d_x to the next, and from one row to the next.
        """
        b = v.builder
        pixels = self.rows * self.width
        kept = [
            ir.Constant(
                ir.VectorType(I1, self.lanes),
                [number * self.lanes + lane < pixels for lane in range(self.lanes)],
            )
            for number in range(self.vectors)
        ]

        def one(_: Value, state: list[Value]) -> list[Value]:
            line, own, *sums = state
            d_y = [
                v.load(v.add(line, number * v.bytes), aligned=False)
                if (number + 1) * self.lanes <= pixels
                else v.load_some(v.add(line, number * v.bytes), kept[number])
                for number in range(self.vectors)
            ]
            found = []
            for c in range(self.channels):
                weight = v.broadcast(v.add(own, 4 * c))
                for number, vector in enumerate(d_y):
                    found.append(v.fma(weight, vector, sums[c * self.vectors + number]))
            return [b.add(line, plane_bytes), v.add(own, 4 * self.channels), *found]

        zeros = [v.zero] * (self.channels * self.vectors)
        _, _, *sums = v.loop(ir.Constant(I64, 0), filters, 1, [source, weights, *zeros], one)
        lines = [b.mul(row_bytes, ir.Constant(I64, row)) for row in range(self.rows)]
        for c in range(self.channels):
            for number in range(self.vectors):
                vector = sums[c * self.vectors + number]
                for first, last, row in self.runs(number):
                    column = number * self.lanes + first - row * self.width
                    place = v.add(b.add(out, lines[row]), 4 * column)
                    v.add_lanes(vector, first, last, place)
            out = b.add(out, channel_bytes)


@cache
def compiled(tile: SpreadTile) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(tile)

    def spread_tile(source, plane_bytes, weights, filters, out, channel_bytes, row_bytes):
        emitted(constant, (source, plane_bytes, weights, filters, out, channel_bytes, row_bytes))

    size = f"{tile.channels} channels by {tile.rows} x {tile.width} pixels"
    return c_function(spread_tile, f"a gradient tile of {size}")
