r"""The register tile of a convolution whose weights change: pixels in the lanes.

F filters times V vectors of neighbouring output pixels, in R rows of the image, stay in registers
while the columns of the weight matrix are walked through:

                           R = 2 rows of one vector, F = 6 filters
    column k = (c, r, q):      x[row 0]  x[row 1]      (planes of channel c, moved by r and q)
                              +---------+---------+
    w[0, k] in all lanes      |   sum   |   sum   |
    w[1, k]                   |   sum   |   sum   |    12 sums, ymm0 .. ymm11
      ...                     |   ...   |   ...   |
    w[5, k]                   |   sum   |   sum   |
                              +---------+---------+
    2 loads + 6 broadcasts  ->  12 fused multiply-adds

The weights of a tile are F numbers for each column, side by side: to pack them is a copy, which an
iteration of a training can afford. Nothing has to be transposed when the outputs are written, so
that convolutions of few columns are fast as well. The input lies in planes with zeros around
(:mod:`minissl.kernels.cpu.micro.planes`): strides and padding are in the offsets of the columns.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted


class PixelTile(NamedTuple):
    """What a tile knows at compile time.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    filters, rows, vectors : int
        F, R, and vectors in each row.
    last : int
        Pixels of the last vector of a row that are put out.
    """

    lanes: int
    filters: int
    rows: int
    vectors: int
    last: int

    def emit(
        self,
        v: Vectors,
        source: Value,
        pitch: Value,
        offsets: Value,
        weights: Value,
        columns: Value,
        bias: Value,
        out: Value,
        filter_bytes: Value,
        row_bytes: Value,
    ) -> None:
        """Compute one tile.

        Parameters
        ----------
        source : address
            Of the planes, moved to the tile's first pixel.
        pitch : int
            Bytes from one row of a plane to the next.
        offsets : address of int32
            Bytes from there to the input, for each column.
        weights : address
            F numbers for each column.
        columns : int
            How many there are.
        bias : address
            F numbers, from which the sums begin.
        out : address
            Of the first pixel of the first filter.
        filter_bytes, row_bytes : int
            Bytes from the output of one filter, and one row, to the next.
        """
        size = self.rows * self.vectors

        def one(at: Value, sums: list[Value]) -> list[Value]:
            begin = v.builder.add(source, v.integer(v.builder.add(offsets, at)))
            # ``at`` counts 4 bytes for each column
            own = v.builder.add(weights, v.builder.mul(at, ir.Constant(I64, self.filters)))
            pixels = []
            for row in range(self.rows):
                line = v.builder.add(begin, v.builder.mul(pitch, ir.Constant(I64, row)))
                for number in range(self.vectors):
                    pixels.append(v.load(v.add(line, number * v.bytes), aligned=False))
            found = []
            for f in range(self.filters):
                weight = v.broadcast(v.add(own, 4 * f))
                for i, pixel in enumerate(pixels):
                    found.append(v.fma(weight, pixel, sums[f * size + i]))
            return found

        sums = []
        for f in range(self.filters):
            sums += [v.broadcast(v.add(bias, 4 * f))] * size
        four = ir.Constant(I64, 4)
        end = v.builder.mul(columns, four)
        sums = v.loop(ir.Constant(I64, 0), end, 4, sums, one)
        at = 0
        for _ in range(self.filters):
            line = out
            for _ in range(self.rows):
                for number in range(self.vectors):
                    count = self.last if number == self.vectors - 1 else self.lanes
                    v.store_first(sums[at], count, v.add(line, number * v.bytes))
                    at += 1
                line = v.builder.add(line, row_bytes)
            out = v.builder.add(out, filter_bytes)


class JoinTile(NamedTuple):
    """Puts rows together whose pixels were computed in phases.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    phases : int
        How many: output column ``phases * i + b`` is number i of phase b.
    """

    lanes: int
    phases: int

    def emit(
        self,
        v: Vectors,
        source: Value,
        phase_bytes: Value,
        pitch: Value,
        rows: Value,
        out: Value,
        row_bytes: Value,
        pixels: Value,
    ) -> None:
        """Join some rows.

        Parameters
        ----------
        source : address
            Of the first row of the first phase; a vector behind each row may be read.
        phase_bytes, pitch : int
            Bytes from one phase to the next, and from one row of a phase to the next.
        rows : int
            How many there are.
        out, row_bytes : address, int
            Of the first row of the output, and bytes from there to the next that is written.
        pixels : int
            Of a row of the output.
        """
        b = v.builder
        zero = ir.Constant(I64, 0)

        size = self.phases * self.lanes
        rest = b.srem(pixels, ir.Constant(I64, size))
        whole = b.sub(pixels, rest)
        starts = [b.mul(phase_bytes, ir.Constant(I64, i)) for i in range(self.phases)]

        def some(left: Value | None, _: Value, state: list[Value]) -> list[Value]:
            place, line = state
            vectors = [v.load(b.add(place, start), aligned=False) for start in starts]
            for i, vector in enumerate(v.interleave(vectors)):
                if left is None:
                    v.store(vector, v.add(line, i * v.bytes), aligned=False)
                else:
                    mask = v.between(zero, left, i * self.lanes)
                    v.store_some(vector, v.add(line, i * v.bytes), mask)
            return [v.add(place, v.bytes), v.add(line, self.phases * v.bytes)]

        def row(_: Value, state: list[Value]) -> list[Value]:
            inner = v.loop(zero, whole, size, state, partial(some, None))
            v.loop(zero, rest, size, inner, partial(some, rest))  # one pass, or none
            return [b.add(state[0], pitch), b.add(state[1], row_bytes)]

        v.loop(zero, rows, 1, [source, out], row)


@cache
def joining(tile: JoinTile) -> Any:
    """Compile the joining of phases; its ``address`` takes the arguments of ``emit``."""
    constant = Constant(tile)

    def join_tile(source, phase_bytes, pitch, rows, out, row_bytes, pixels):
        emitted(constant, (source, phase_bytes, pitch, rows, out, row_bytes, pixels))

    return c_function(join_tile, f"the joining of {tile.phases} phases")


@cache
def compiled(tile: PixelTile) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(tile)

    def pixel_tile(
        source, pitch, offsets, weights, columns, bias, out, filter_bytes, row_bytes, last
    ):
        emitted(
            constant,
            (source, pitch, offsets, weights, columns, bias, out, filter_bytes, row_bytes),
        )

    size = f"{tile.filters} filters by {tile.rows} x {tile.vectors} x {tile.lanes} pixels"
    return c_function(pixel_tile, f"a convolution tile of {size}")
