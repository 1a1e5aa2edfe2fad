r"""The register tile of the direct dense convolution.

V vectors of filters times T pixels of one output row stay in registers while the columns of the
weight matrix are walked through. The lanes of a vector are filters, so no pixel is wasted on
widths that are no multiple of a vector, any stride will do, and the input is read where it lies,
number by number, neither lowered nor padded:

                          T = 14 pixels, V = 2 vectors of 16 filters
    column k = (c, r, q):         x0     x1     x2    ...   x13      (x[c] moved by r and q, each
                              +------+------+------+-----+------+     broadcast to 16 lanes)
    w[k, filters  0..15]      | sum  | sum  | sum  |     | sum  |
    w[k, filters 16..31]      | sum  | sum  | sum  |     | sum  |     28 sums, zmm0 .. zmm27
                              +------+------+------+-----+------+
    2 loads + 14 broadcasts   ->   28 fused multiply-adds

Columns are sorted by q: for each q it is known at compile time which pixels of the tile read
beyond the left or right end of a row, and those multiplications are not there. Rows above and below
the image are left out of the lists at run time (columns of one q are sorted by r). So nothing is
multiplied with padding.

At the end the block is transposed in registers: 16 filters x T pixels are 16 pieces of output rows.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import FLOAT, I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted

RELU = 1  # bit of ``flags``


class DenseTile(NamedTuple):
    """What a tile knows at compile time.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    vectors, pixels : int
        V and T.
    step : int
        Input pixels from one output pixel to the next (the stride).
    taps : tuple of (int, int)
        For each kernel column q, the pixels first..last - 1 of the tile that lie inside the image.
    """

    lanes: int
    vectors: int
    pixels: int
    step: int
    taps: tuple[tuple[int, int], ...]

    def emit(
        self,
        v: Vectors,
        image: Value,
        offsets: Value,
        weights: Value,
        first: Value,
        last: Value,
        pitch: Value,
        bias: Value,
        flags: Value,
        out: Value,
        lines: Value,
        count: Value,
    ) -> None:
        """Compute one tile.

        Parameters
        ----------
        image : address
            Of the input of the tile's first pixel for r = q = 0; it may lie outside.
        offsets : address of int32
            Bytes from there to the input, for each column.
        weights : address
            V vectors for each column, aligned.
        first, last, pitch : addresses of int32, bytes
            Columns of list q are those from ``first[q]`` to ``last[q]``; pitch is the distance
            from one q to the next.
        bias : address
            V vectors.
        flags : bits
            ``RELU``: rectify.
        out : address
            Of the first pixel, for a filter whose ``lines`` is 0.
        lines : address of int64
            For each filter, bytes to its outputs.
        count : int
            How many of the filters exist.
        """
        sums = [[v.zero] * self.pixels for _ in range(self.vectors)]
        for q, (begin, end) in enumerate(self.taps):
            if begin < end:
                at = v.builder.mul(pitch, ir.Constant(I64, q))
                start, stop = (v.integer(v.builder.add(base, at)) for base in (first, last))
                found = self._walk(v, image, offsets, weights, start, stop, begin, end, sums)
                for row, values in zip(sums, found, strict=True):
                    row[begin:end] = values
        for number, row in enumerate(sums):
            added = v.load(v.add(bias, number * v.bytes))
            row = [v.plus(value, added) for value in row]
            row = v.choose(v.has(flags, RELU), partial(_rectified, v, row), partial(list, row))
            left = v.builder.sub(count, ir.Constant(I64, number * self.lanes))
            v.store_transposed(row, partial(self._line, v, out, lines, number), left)

    def _line(self, v: Vectors, out: Value, lines: Value, vector: int, lane: int) -> Value:
        return v.builder.add(out, v.long(lines, vector * self.lanes + lane))

    def _walk(
        self,
        v: Vectors,
        image: Value,
        offsets: Value,
        weights: Value,
        start: Value,
        stop: Value,
        begin: int,
        end: int,
        sums: list[list[Value]],
    ) -> list[list[Value]]:
        """Add columns start..stop - 1 to pixels begin..end - 1; return their sums."""
        length = end - begin

        def one(at: Value, flat: list[Value]) -> list[Value]:
            source = v.builder.add(image, v.integer(v.builder.add(offsets, at)))
            # ``at`` counts 4 bytes for each column
            place = v.builder.add(
                weights, v.builder.mul(at, ir.Constant(I64, self.vectors * self.lanes))
            )
            filters = [v.load(v.add(place, i * v.bytes)) for i in range(self.vectors)]
            flat = list(flat)
            for i in range(length):
                pixel = v.broadcast(v.add(source, (begin + i) * self.step * FLOAT))
                for number, weight in enumerate(filters):
                    flat[number * length + i] = v.fma(weight, pixel, flat[number * length + i])
            return flat

        four = ir.Constant(I64, 4)
        flat = v.loop(
            v.builder.mul(start, four),
            v.builder.mul(stop, four),
            4,
            [value for row in sums for value in row[begin:end]],
            one,
        )
        return [flat[i : i + length] for i in range(0, len(flat), length)]


def _rectified(v: Vectors, row: list[Value]) -> list[Value]:
    return [v.positive(value) for value in row]


@cache
def compiled(tile: DenseTile) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(tile)

    def dense_tile(image, offsets, weights, first, last, pitch, bias, flags, out, lines, count):
        emitted(
            constant,
            (image, offsets, weights, first, last, pitch, bias, flags, out, lines, count),
        )

    size = f"{tile.vectors} x {tile.lanes} filters by {tile.pixels} pixels"
    return c_function(dense_tile, f"a direct dense convolution tile of {size}")
