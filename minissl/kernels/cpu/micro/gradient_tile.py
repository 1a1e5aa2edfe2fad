r"""The register tiles of the gradient of the weights: filters in the lanes.

    d_w[f, k]  +=  sum over images and output pixels of  d_y[f, pixel] * x[pixel moved by k]

V vectors of filters times T columns of the weight matrix stay in registers while the pixels of a
band (some rows of one image, or some small images) are walked through:

                          T = 6 columns, V = 2 vectors of 8 filters
    pixel j:                      x0     x1     x2    ...    x5      (x at pixel j, moved by column
                              +------+------+------+-----+------+     k, broadcast to all lanes)
    d_y[filters 0.. 7, j]     | sum  | sum  | sum  |     | sum  |
    d_y[filters 8..15, j]     | sum  | sum  | sum  |     | sum  |     12 sums, ymm0 .. ymm11
                              +------+------+------+-----+------+
    2 loads + 6 broadcasts  ->  12 fused multiply-adds

For this d_y is transposed first, to a *panel* with the filters of a pixel side by side; what that
costs is shared by all columns. The input lies in planes with zeros around
(:mod:`minissl.kernels.cpu.micro.planes`), so that stride and padding are in the columns' offsets.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import FLOAT, I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted

#: pixels of a row that are written out one after the other
UNROLLED = 8


class GradientTile(NamedTuple):
    """What a tile knows at compile time.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    vectors, columns : int
        V and T.
    """

    lanes: int
    vectors: int
    columns: int

    def emit(
        self,
        v: Vectors,
        source: Value,
        pitch: Value,
        offsets: Value,
        panel: Value,
        blocks: Value,
        rest: Value,
        rows: Value,
        images: Value,
        image_bytes: Value,
        out: Value,
    ) -> None:
        """Add one band to the sums of one tile.

        Parameters
        ----------
        source : address
            Of the planes of the first image, moved to the first row of the band.
        pitch : int
            Bytes from one row of a plane to the next.
        offsets : address of int32
            Bytes from there to the input, for each of the T columns.
        panel : address
            V vectors for each pixel of the band, aligned.
        blocks, rest : int
            Whole blocks of ``UNROLLED`` pixels of a row, and pixels that are left.
        rows, images, image_bytes : int
            Rows of the band, images, and bytes from the planes of one image to the next.
        out : address
            V vectors for each of the T columns, aligned.
        """
        b = v.builder
        bases = [b.add(source, v.integer(offsets, number)) for number in range(self.columns)]
        zero = ir.Constant(I64, 0)

        def some(count: int, _: Value, state: list[Value]) -> list[Value]:
            """Add pixels at, at + 4, ... (bytes), whose filters are at ``place`` of the panel."""
            at, place, *sums = state
            for pixel in range(count):
                begin = v.add(place, pixel * self.vectors * v.bytes)
                filters = [v.load(v.add(begin, i * v.bytes)) for i in range(self.vectors)]
                for number, base in enumerate(bases):
                    value = v.broadcast(v.add(b.add(base, at), FLOAT * pixel))
                    for i, filter in enumerate(filters):
                        slot = number * self.vectors + i
                        sums[slot] = v.fma(filter, value, sums[slot])
            return [v.add(at, count * FLOAT), v.add(place, count * self.vectors * v.bytes), *sums]

        def row(_: Value, state: list[Value]) -> list[Value]:
            start, place, *sums = state
            state = [start, place, *sums]
            state = v.loop(zero, blocks, 1, state, partial(some, UNROLLED))
            _, place, *sums = v.loop(zero, rest, 1, state, partial(some, 1))
            return [b.add(start, pitch), place, *sums]

        def image(_: Value, state: list[Value]) -> list[Value]:
            start, place, *sums = state
            _, place, *sums = v.loop(zero, rows, 1, [start, place, *sums], row)
            return [b.add(start, image_bytes), place, *sums]

        nothing = [v.zero] * (self.vectors * self.columns)
        _, _, *sums = v.loop(zero, images, 1, [zero, panel, *nothing], image)
        for slot, value in enumerate(sums):
            address = v.add(out, slot * v.bytes)
            v.store(v.plus(v.load(address), value), address)


class PanelTile(NamedTuple):
    """Transposes the outputs of some filters, and sums them.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    filters : int
        How many of the filters in the lanes exist; the others become zeros.
    """

    lanes: int
    filters: int

    def emit(
        self,
        v: Vectors,
        source: Value,
        filter_bytes: Value,
        pixels: Value,
        target: Value,
        target_bytes: Value,
        total: Value,
    ) -> None:
        """Write a vector of filters for each pixel.

        Parameters
        ----------
        source : address
            Of the first pixel of the first filter.
        filter_bytes, pixels : int
            Bytes from one filter to the next; pixels of each.
        target, target_bytes : address, int
            Where the first vector goes, aligned; bytes from one to the next.
        total : address
            A vector to which the sum over all pixels is added, aligned.
        """
        b = v.builder
        zero = ir.Constant(I64, 0)

        def turn(left: Value | None, state: list[Value]) -> list[Value]:
            place, line, added = state
            rows, at = [], place
            for _ in range(self.filters):
                if left is None:
                    rows.append(v.load(at, aligned=False))
                else:
                    rows.append(v.load_some(at, v.between(zero, left)))
                at = b.add(at, filter_bytes)
            rows += [v.zero] * (self.lanes - self.filters)
            for pixel, vector in enumerate(v.transpose(rows)):
                added = v.plus(added, vector)
                if left is None:
                    v.store(vector, line)
                else:
                    with b.if_then(b.icmp_signed("<", ir.Constant(I64, pixel), left)):
                        v.store(vector, line)
                line = b.add(line, target_bytes)
            return [v.add(place, v.bytes), line, added]

        rest = b.and_(pixels, ir.Constant(I64, self.lanes - 1))
        whole = b.sub(pixels, rest)
        state = [source, target, v.load(total)]
        state = v.loop(zero, whole, self.lanes, state, lambda _, values: turn(None, values))
        # a loop of one pass, or none
        state = v.loop(zero, rest, self.lanes, state, lambda _, values: turn(rest, values))
        v.store(state[2], total)


@cache
def compiled(tile: GradientTile | PanelTile) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(tile)
    if isinstance(tile, PanelTile):

        def panel_tile(source, filter_bytes, pixels, target, target_bytes, total):
            emitted(constant, (source, filter_bytes, pixels, target, target_bytes, total))

        return c_function(panel_tile, f"the transposition of {tile.filters} filters")

    def gradient_tile(source, pitch, offsets, panel, blocks, rest, rows, images, image_bytes, out):
        emitted(
            constant, (source, pitch, offsets, panel, blocks, rest, rows, images, image_bytes, out)
        )

    size = f"{tile.vectors} x {tile.lanes} filters by {tile.columns} columns"
    return c_function(gradient_tile, f"a weight gradient tile of {size}")
