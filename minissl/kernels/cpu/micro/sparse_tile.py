r"""The register tile of the direct sparse convolution.

One filter, R rows of W vectors: all its outputs there stay in registers while its non-zeros are
walked through. Each costs one broadcast of its value and R * W fused multiply-adds, whose other
operand comes straight from the first-level cache. What the lanes of a vector are is the caller's
choice: neighbouring pixels of a row, or one pixel of several images.

A non-zero (c, r, q) multiplies the plane of input channel c, moved by r rows and q columns. With
**images in the lanes** both moves are part of the address, and one list holds all non-zeros of a
filter. With **pixels in the lanes** a move by columns would make loads cross cache lines. The
non-zeros are therefore sorted by their column shift s, one list for each, and *sums* are moved
instead of inputs, in registers, once at the end of each list:

    list s = 2   sums += w * x           13 x 13 outputs: R = 13 rows of W = 1 vector
                 move sums by 1
    list s = 1   sums += w * x           row 0    [ y0 y1 y2 ... y12  .  .  . ]  zmm0
                 move sums by 1          row 1    [ y0 y1 y2 ... y12  .  .  . ]  zmm1
    list s = 0   sums += w * x           ...
                                         row 12   [ y0 y1 y2 ... y12  .  .  . ]  zmm12
                                         w in every lane of zmm13

Every list adds to sums that the lists before it have filled (Horner's rule, for shifts). Shifts
to the other side (s < 0), where a row has no lanes to spare for them, come first in the same
manner, and are set aside until the end.

With vectors of half a cache line few loads cross one, and moving sums costs more than they do. Then
moves by columns are part of the address after all, and loads are **not aligned**: one list holds
all non-zeros, and no lane needs to be spent on shifts. The last vector of a row ends where the row
ends, and may repeat some outputs of the one before it:

    row 0    [ y0 y1 y2 y3 y4 y5 y6 y7 ]           lanes at = (0, 5): two vectors of 8
                            [ y5 y6 y7 y8 ... y12 ]
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import FLOAT, I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted

ENTRY = 8  # bytes of a non-zero: int32 offset of its input in bytes, float32 value
LAST, RELU = 1, 2  # bits of ``flags``
#: sums that keep the multipliers busy: two multiply-adds a cycle, each of which takes four
LEAST_SUMS = 8
#: such tiles walk fast through non-zeros, which may come from memory: ask for them so many bytes
#: before they are used
AHEAD = 2048


class SparseTile(NamedTuple):
    """What a tile knows at compile time.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    rows : int
        R, output rows.
    at : tuple of int
        Where the W vectors of a row begin, in lanes.
    pitch : int
        Lanes from one row of a plane to the next; numbers, or elements of a vector of images.
    shifts : tuple of int
        Column shifts in lanes, ascending; 0 is one of them, and where columns are moved by address
        the only one.
    fill : bool
        Whether zeros must enter at the ends of a moved row; false where nothing that enters is
        put out.
    images : bool
        Whether the lanes are images rather than pixels of a row.
    aligned : bool
        Whether all loads begin on a vector.
    whole : bool
        Whether all lanes are put out, always.
    """

    lanes: int
    rows: int
    at: tuple[int, ...]
    pitch: int
    shifts: tuple[int, ...]
    fill: bool = True
    images: bool = False
    aligned: bool = True
    whole: bool = False

    @property
    def width(self) -> int:
        """W, the vectors of a row."""
        return len(self.at)

    @property
    def order(self) -> tuple[int, ...]:
        """The shifts in the order of their lists: far left to -1, then far right to 0."""
        left = [shift for shift in self.shifts if shift < 0]
        right = [shift for shift in self.shifts if shift >= 0]
        return (*left, *reversed(right))

    @property
    def nbytes(self) -> int:
        """Bytes of the sums of a tile."""
        return self.rows * self.width * self.lanes * 4

    def emit(
        self,
        v: Vectors,
        image: Value,
        entries: Value,
        starts: Value,
        earlier: Value,
        earlier_step: Value,
        sums: Value,
        bias: Value,
        flags: Value,
        out: Value,
        out_step: Value,
        out_pitch: Value,
        begin: Value,
        end: Value,
        filters: Value,
    ) -> None:
        """Add the non-zeros of one channel block to one tile, filter after filter.

        Parameters
        ----------
        image : address
            Input of the tile's first output, moves left out.
        entries, starts : addresses
            Non-zeros, and int32 numbers: the entries at which each list begins and the last ends.
        earlier, earlier_step : address, bytes
            What to add to: sums of earlier channel blocks, or zeros; and from one filter to the
            next.
        sums : address
            Where to keep the sums, filter after filter.
        bias : address
        flags : bits
            ``LAST``: put the result out, bias added, rather than keep it; ``RELU``: rectified.
        out, out_step, out_pitch : address, bytes, bytes
            Of the first output; from one filter, and from one row of outputs to the next.
        begin, end : int
            Pixels: the lanes of a row that are put out. Images: bytes from one image to the next,
            and the number of images.
        filters : int
            How many.
        """
        if not self.images:
            masks = [v.between(begin, end, first) for first in self.at]
        steps = (
            ir.Constant(I64, 4 * len(self.shifts)),
            earlier_step,
            ir.Constant(I64, self.nbytes),
            ir.Constant(I64, FLOAT),
            out_step,
        )

        def one_filter(_: Value, places: list[Value]) -> list[Value]:
            starts, earlier, sums, bias, out = places
            results = _lists(v, self, image, entries, starts, earlier)
            v.choose(
                v.has(flags, LAST),
                partial(put_out, results, bias, out),
                partial(keep, results, sums),
            )
            return [v.builder.add(place, step) for place, step in zip(places, steps, strict=True)]

        def keep(results: list[Value], sums: Value) -> tuple:
            for i, result in enumerate(results):
                v.store(result, v.add(sums, i * v.bytes))
            return ()

        def put_out(results: list[Value], bias: Value, line: Value) -> tuple:
            spread = v.broadcast(bias)
            results = [v.plus(result, spread) for result in results]
            results = v.choose(
                v.has(flags, RELU),
                lambda: [v.positive(value) for value in results],
                lambda: results,
            )
            for first in range(0, len(results), self.width):
                row = results[first : first + self.width]
                if self.images:
                    v.store_transposed(row, partial(_image, v, line, begin), end)
                else:
                    for value, first, mask in zip(row, self.at, masks, strict=True):
                        place = v.add(line, first * FLOAT)
                        if self.whole:
                            v.store(value, place, aligned=False)
                        else:
                            v.store_some(value, place, mask)
                line = v.builder.add(line, out_pitch)
            return ()

        v.loop(ir.Constant(I64, 0), filters, 1, [starts, earlier, sums, bias, out], one_filter)


def _image(v: Vectors, first: Value, pitch: Value, number: int) -> Value:
    """Address of an output in one of the images."""
    return v.builder.add(first, v.builder.mul(pitch, ir.Constant(I64, number)))


def _lists(
    v: Vectors, tile: SparseTile, image: Value, entries: Value, starts: Value, earlier: Value
) -> list[Value]:
    """Walk through all lists; return the sums, earlier ones included."""
    count = tile.rows * tile.width
    nothing = [v.zero] * count
    order = tile.order
    boundaries = [
        v.builder.add(entries, v.builder.mul(v.integer(starts, i), ir.Constant(I64, ENTRY)))
        for i in range(len(order) + 1)
    ]
    sums, aside = nothing, None
    for number, shift in enumerate(order):
        if shift == 0:
            before = [v.load(v.add(earlier, i * v.bytes)) for i in range(count)]
            sums = before if sums is nothing else _plus(v, sums, before)
        sums = _walk(v, tile, image, boundaries[number], boundaries[number + 1], sums)
        if shift < 0:
            nearer = min(order[number + 1], 0)
            sums = _move(v, tile, sums, shift - nearer)
            if nearer == 0:
                aside, sums = sums, nothing
        elif shift > 0:
            sums = _move(v, tile, sums, shift - order[number + 1])
    return sums if aside is None else _plus(v, sums, aside)


def _walk(
    v: Vectors, tile: SparseTile, image: Value, start: Value, stop: Value, sums: list[Value]
) -> list[Value]:
    """sums += value * input, over the entries from one address to another.

    A tile of few vectors takes several entries at a time, each with sums of its own: one
    multiply-add can't begin before the last one to the same sum has ended.
    """
    size = v.bytes if tile.images else FLOAT
    places = [(row * tile.pitch + first) * size for row in range(tile.rows) for first in tile.at]

    def one(entry: Value, sums: list[Value]) -> list[Value]:
        source = v.builder.add(image, v.integer(entry))
        weight = v.broadcast(v.add(entry, 4))
        return [
            v.fma(weight, v.load(v.add(source, place), tile.aligned), total)
            for place, total in zip(places, sums, strict=True)
        ]

    sets = -(-LEAST_SUMS // len(places))
    if sets > 1:

        def several(entry: Value, parts: list[Value]) -> list[Value]:
            v.prefetch(v.add(entry, AHEAD))
            own = [parts[i : i + len(places)] for i in range(0, len(parts), len(places))]
            done = [one(v.add(entry, i * ENTRY), part) for i, part in enumerate(own)]
            return [total for part in done for total in part]

        size = ir.Constant(I64, sets * ENTRY)
        rest = v.builder.srem(v.builder.sub(stop, start), size)
        whole = v.builder.sub(stop, rest)
        nothing = [v.zero] * (len(sums) * (sets - 1))
        parts = v.loop(start, whole, sets * ENTRY, [*sums, *nothing], several)
        start, sums = whole, parts[: len(places)]
        for i in range(len(places), len(parts), len(places)):
            sums = _plus(v, sums, parts[i : i + len(places)])
    return v.loop(start, stop, ENTRY, sums, one)


def _move(v: Vectors, tile: SparseTile, sums: list[Value], by: int) -> list[Value]:
    """Shift every row of a tile."""
    rows = (sums[i : i + tile.width] for i in range(0, len(sums), tile.width))
    return [vector for row in rows for vector in v.shift(row, by, tile.fill)]


def _plus(v: Vectors, some: list[Value], others: list[Value]) -> list[Value]:
    return [v.plus(a, b) for a, b in zip(some, others, strict=True)]


@cache
def compiled(tile: SparseTile) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(tile)

    def sparse_tile(
        image, entries, starts, earlier, earlier_step, sums, bias, flags,
        out, out_step, out_pitch, begin, end, filters,
    ):  # fmt: skip
        emitted(
            constant,
            (
                image, entries, starts, earlier, earlier_step, sums, bias, flags,
                out, out_step, out_pitch, begin, end, filters,
            ),
        )  # fmt: skip

    what = f"a direct sparse convolution tile of {tile.rows} x {tile.width} vectors"
    return c_function(sparse_tile, f"{what} of {tile.lanes}, shifts {tile.shifts}")
