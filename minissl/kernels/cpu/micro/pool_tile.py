r"""Max pooling of a plane by vectors: neighbouring windows in the lanes, and the gradient.

Forward, the pixels of a window are met in row-major order, and one that is larger than all before
takes their place; so of equal ones the first wins. With a stride s, the pixels number c, c + s,
c + 2 s, ... of a row are gathered from s vectors:

    3 x 3, stride 2      x[row]       a b c d e f g h i ...
                         column 0     a   c   e   g          window 0 has a b c, window 1 c d e, ...
                         column 1       b   d   f   h
                         column 2         c   e   g   i      column 0, one window later

The gradient gathers as well: a pixel sums d_y of those windows around it of which it is the winner.
In a row these are, for the pixels s j + b, the windows j + n for the same few moves n.

Planes are H x W pixels, P x Q windows.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted


class MaxPoolTile(NamedTuple):
    """The largest value of each window of a plane.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    width, stride : int
        Of the windows, along a row.
    keeps_places : bool
        Whether the places of the winners are written too.
    """

    lanes: int
    width: int
    stride: int
    keeps_places: bool

    def emit(
        self,
        v: Vectors,
        x: Value,
        H: Value,
        W: Value,
        height: Value,
        row_stride: Value,
        top: Value,
        left: Value,
        P: Value,
        Q: Value,
        y: Value,
        places: Value,
    ) -> None:
        """Pool one plane.

        Parameters
        ----------
        x, y, places : address
            (H, W), and of the windows (P, Q); places are int32, h * W + w.
        height, row_stride : int
            Of the windows, down the columns.
        top, left : int
            Padding.
        """
        b, zero = v.builder, ir.Constant(I64, 0)
        steps = [self.stride * i for i in range(self.lanes)]
        lowest = ir.Constant(v.type, [-math.inf] * self.lanes)

        def some_columns(first: Value, _: Any) -> tuple:
            """Windows ``first`` and following of all rows."""
            # the first pixel of window ``first``; in the padding where negative
            begin = b.sub(b.mul(first, ir.Constant(I64, self.stride)), left)
            low, high = b.neg(begin), b.sub(W, begin)  # pixels of the row, counted from there
            exist = v.between(zero, b.sub(Q, first))
            leftmost = v.most(v.plus_integer(v.integers(steps), begin), 0)

            def one_row(p: Value, _: Any) -> tuple:
                h = b.sub(b.mul(p, row_stride), top)
                start, stop = v.larger(h, zero), v.smaller(b.add(h, height), H)
                places_now = v.plus_integer(leftmost, b.mul(start, W))

                def one_line(h: Value, state: list[Value]) -> tuple:
                    best, place = state
                    line = b.add(b.mul(h, W), begin)
                    for c in range(self.width):
                        inside = v.within(low, high, [c + step for step in steps])
                        pixel = self._gather(v, x, line, low, high, c)
                        wins = b.and_(inside, v.beats(pixel, best))
                        best = b.select(wins, pixel, best)
                        if self.keeps_places:
                            here = v.plus_integer(v.integers([c + step for step in steps]), line)
                            place = b.select(wins, here, place)
                    return best, place

                best, place = v.loop(start, stop, 1, [lowest, places_now], one_line)
                to = v.floats(b.add(b.mul(p, Q), first))
                v.store_some(best, b.add(y, to), exist)
                if self.keeps_places:
                    v.store_some(b.bitcast(place, v.type), b.add(places, to), exist)
                return ()

            v.loop(zero, P, 1, [], one_row)
            return ()

        v.loop(zero, Q, self.lanes, [], some_columns)

    def _gather(
        self, v: Vectors, x: Value, line: Value, low: Value, high: Value, column: int
    ) -> Value:
        """Load pixel ``column`` of as many windows as a vector has lanes; any where outside."""
        later, phase = divmod(column, self.stride)
        vectors = []
        for number in range(self.stride):
            first = self.stride * later + number * self.lanes
            mask = v.between(low, high, first)
            address = v.builder.add(x, v.floats(v.add(line, first)))
            vectors.append(v.load_some(address, mask))
        return v.pick(vectors, range(phase, phase + self.stride * self.lanes, self.stride))


class MaxSpreadTile(NamedTuple):
    """The gradient: every pixel sums what the windows send of which it is the winner.

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    width, stride, row_stride : int
        Of the windows: along a row, and their stride down the columns.
    """

    lanes: int
    width: int
    stride: int
    row_stride: int

    def _moves(self, phase: int) -> range:
        """Return n of the windows j + n that pixels s j + phase, counted with padding, are in."""
        return range(-((self.width - 1 - phase) // self.stride), phase // self.stride + 1)

    def emit(
        self,
        v: Vectors,
        d_y: Value,
        places: Value,
        P: Value,
        Q: Value,
        height: Value,
        top: Value,
        left: Value,
        H: Value,
        W: Value,
        d_x: Value,
    ) -> None:
        """Compute d_x (H, W) of one plane from d_y and places (P, Q).

        Parameters
        ----------
        height : int
            Of the windows.
        top, left : int
            Padding.
        """
        b, zero = v.builder, ir.Constant(I64, 0)
        moves = sorted({n for phase in range(self.stride) for n in self._moves(phase)})

        def some_columns(first: Value, _: Any) -> tuple:
            """Pixels s * first - left and following of all rows."""
            exist = {n: v.between(b.neg(first), b.sub(Q, first), n) for n in moves}
            begin = b.sub(b.mul(first, ir.Constant(I64, self.stride)), left)

            def one_row(h: Value, _: Any) -> tuple:
                line = b.add(b.mul(h, W), begin)
                lanes = range(self.lanes)
                here = [
                    v.plus_integer(v.integers([self.stride * i + phase for i in lanes]), line)
                    for phase in range(self.stride)
                ]

                def one_line(p: Value, sums: list[Value]) -> list[Value]:
                    windows, sums = {}, list(sums)
                    for n in moves:
                        at = v.floats(v.add(b.add(b.mul(p, Q), first), n))
                        place = v.load_some(b.add(places, at), exist[n])
                        d = v.load_some(b.add(d_y, at), exist[n])
                        windows[n] = b.bitcast(place, v.integer_type), d
                    for phase, pixel in enumerate(here):
                        for n in self._moves(phase):
                            place, d = windows[n]
                            sent = b.select(b.icmp_signed("==", place, pixel), d, v.zero)
                            sums[phase] = v.plus(sums[phase], sent)
                    return sums

                below = b.add(h, top)
                first_row = v.larger(b.sub(v.add(below, 1), height), zero)
                start = v.rounded_up(first_row, self.row_stride)
                stop = v.smaller(v.add(b.sdiv(below, ir.Constant(I64, self.row_stride)), 1), P)
                sums = v.loop(start, stop, 1, [v.zero] * self.stride, one_line)
                for number, vector in enumerate(v.interleave(sums)):
                    place = number * self.lanes
                    mask = v.between(b.neg(begin), b.sub(W, begin), place)
                    v.store_some(vector, b.add(d_x, v.floats(v.add(line, place))), mask)
                return ()

            v.loop(zero, H, 1, [], one_row)
            return ()

        v.loop(zero, v.rounded_up(b.add(W, left), self.stride), self.lanes, [], some_columns)


@cache
def pooling(tile: MaxPoolTile) -> Any:
    """Compile the pooling of a plane; its ``address`` takes the arguments of ``emit``."""
    constant = Constant(tile)

    def max_pool_tile(x, H, W, height, row_stride, top, left, P, Q, y, places):
        emitted(constant, (x, H, W, height, row_stride, top, left, P, Q, y, places))

    return c_function(max_pool_tile, f"max pooling {tile.width} wide, stride {tile.stride}")


@cache
def spreading(tile: MaxSpreadTile) -> Any:
    """Compile the gradient of a plane; its ``address`` takes the arguments of ``emit``."""
    constant = Constant(tile)

    def max_spread_tile(d_y, places, P, Q, height, top, left, H, W, d_x):
        emitted(constant, (d_y, places, P, Q, height, top, left, H, W, d_x))

    what = f"the gradient of max pooling {tile.width} wide, stride {tile.stride}"
    return c_function(max_spread_tile, what)
