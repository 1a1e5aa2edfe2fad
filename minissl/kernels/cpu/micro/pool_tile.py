r"""Pooling of a plane by vectors, and its gradient: neighbouring windows, or pixels, in the lanes.

Forward, a window meets its pixels in row-major order; with a stride s, the pixels number c, c + s,
c + 2 s, ... of a row are gathered from s vectors:

    3 x 3, stride 2      x[row]       a b c d e f g h i ...
                         column 0     a   c   e   g          window 0 has a b c, window 1 c d e, ...
                         column 1       b   d   f   h
                         column 2         c   e   g   i      column 0, one window later

The gradient gathers as well: a pixel sums what the windows around it send. In a row these are, for
the pixels s j + b, the windows j + n for the same few moves n.

Planes are H x W pixels, P x Q windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, emitted


class Sizes(NamedTuple):
    """What is known at run time: of the plane, and of windows down the columns."""

    H: Value
    W: Value
    P: Value
    Q: Value
    height: Value
    row_stride: Value
    top: Value
    left: Value


def for_windows(
    v: Vectors,
    x: Value,
    sizes: Sizes,
    width: int,
    stride: int,
    start: Callable[[Value, Value], list[Value]],
    meet: Callable[[list[Value], Value, Value, Value], list[Value]],
    finish: Callable[[list[Value], Value, Value], None],
) -> None:
    """Let all windows of a plane meet their pixels, as many windows at once as a vector has lanes.

    Parameters
    ----------
    width, stride : int
        Of the windows, along a row.
    start : callable
        Makes the state of some windows, from the first column of each that lies in the image, and
        the first row.
    meet : callable
        Makes their next state, from a state, a pixel of each, their places h * W + w, and the mask
        of those that lie in the image; pixels beyond a row are zero.
    finish : callable
        Takes the last state, the bytes from window 0 to the first of these, and the mask of those
        that exist.
    """
    b, zero = v.builder, ir.Constant(I64, 0)
    H, W, P, Q, height, row_stride, top, left = sizes
    steps = [stride * i for i in range(v.lanes)]

    def some_columns(first: Value, _: Any) -> tuple:
        """Windows ``first`` and following of all rows."""
        # the first pixel of window ``first``; in the padding where negative
        begin = b.sub(b.mul(first, ir.Constant(I64, stride)), left)
        low, high = b.neg(begin), b.sub(W, begin)  # pixels of the row, counted from there
        exist = v.between(zero, b.sub(Q, first))
        leftmost = v.at_least(v.plus_integer(v.integers(steps), begin), 0)

        def gather(line: Value, column: int) -> Value:
            later, phase = divmod(column, stride)
            vectors = []
            for number in range(stride):
                place = stride * later + number * v.lanes
                address = b.add(x, v.floats(v.add(line, place)))
                vectors.append(v.load_some(address, v.between(low, high, place)))
            return v.pick(vectors, range(phase, phase + stride * v.lanes, stride))

        def one_row(p: Value, _: Any) -> tuple:
            h = b.sub(b.mul(p, row_stride), top)
            begin_row, end_row = v.larger(h, zero), v.smaller(b.add(h, height), H)

            def one_line(h: Value, state: list[Value]) -> list[Value]:
                line = b.add(b.mul(h, W), begin)
                for c in range(width):
                    columns = [c + step for step in steps]
                    places = v.plus_integer(v.integers(columns), line)
                    inside = v.within(low, high, columns)
                    state = meet(state, gather(line, c), places, inside)
                return state

            state = v.loop(begin_row, end_row, 1, start(leftmost, begin_row), one_line)
            finish(state, v.floats(b.add(b.mul(p, Q), first)), exist)
            return ()

        v.loop(zero, P, 1, [], one_row)
        return ()

    v.loop(zero, Q, v.lanes, [], some_columns)


def for_pixels(
    v: Vectors,
    d_x: Value,
    sizes: Sizes,
    width: int,
    stride: int,
    row_stride: int,
    load: Callable[[Value, Value], Any],
    sent: Callable[[Any, Value], Value],
) -> None:
    """Give every pixel of a plane the sum of what the windows around it send.

    Parameters
    ----------
    width, stride, row_stride : int
        Of the windows; ``row_stride`` is that down the columns.
    load : callable
        Loads what is known of some windows, from the bytes from window 0 to the first of them, and
        the mask of those that exist.
    sent : callable
        Makes, from that, what they send to the pixels of these places.
    """
    b, zero = v.builder, ir.Constant(I64, 0)
    H, W, P, Q, height, _, top, left = sizes
    phases = range(stride)
    # n of the windows j + n that pixels s j + phase, counted with padding, are in
    around = [range(-((width - 1 - phase) // stride), 1) for phase in phases]
    moves = sorted({n for some in around for n in some})

    def some_columns(first: Value, _: Any) -> tuple:
        """Pixels s * first - left and following of all rows."""
        exist = {n: v.between(b.neg(first), b.sub(Q, first), n) for n in moves}
        begin = b.sub(b.mul(first, ir.Constant(I64, stride)), left)

        def one_row(h: Value, _: Any) -> tuple:
            line = b.add(b.mul(h, W), begin)
            steps = [[stride * i + phase for i in range(v.lanes)] for phase in phases]
            here = [v.plus_integer(v.integers(numbers), line) for numbers in steps]

            def one_line(p: Value, sums: list[Value]) -> list[Value]:
                at = b.add(b.mul(p, Q), first)
                windows = {n: load(v.floats(v.add(at, n)), exist[n]) for n in moves}
                sums = list(sums)
                for phase in phases:
                    for n in around[phase]:
                        sums[phase] = v.plus(sums[phase], sent(windows[n], here[phase]))
                return sums

            below = b.add(h, top)
            first_row = v.larger(b.sub(v.add(below, 1), height), zero)
            begin_row = v.rounded_up(first_row, row_stride)
            end_row = v.smaller(v.add(b.sdiv(below, ir.Constant(I64, row_stride)), 1), P)
            sums = v.loop(begin_row, end_row, 1, [v.zero] * stride, one_line)
            for number, vector in enumerate(v.interleave(sums)):
                place = number * v.lanes
                mask = v.between(b.neg(begin), b.sub(W, begin), place)
                v.store_some(vector, b.add(d_x, v.floats(v.add(line, place))), mask)
            return ()

        v.loop(zero, H, 1, [], one_row)
        return ()

    v.loop(zero, v.rounded_up(b.add(W, left), stride), v.lanes, [], some_columns)


class MaxPoolTile(NamedTuple):
    """The largest value of each window; of equal ones the first.

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

    def emit(self, v: Vectors, x: Value, y: Value, places: Value, *sizes: Value) -> None:
        """Pool one plane, at addresses x (H, W), y and places (P, Q), which are h * W + w."""
        b = v.builder
        lowest = ir.Constant(v.type, [-math.inf] * self.lanes)
        own = Sizes(*sizes)

        def start(leftmost: Value, row: Value) -> list[Value]:
            return [lowest, v.plus_integer(leftmost, b.mul(row, own.W))]

        def meet(state: list[Value], pixel: Value, here: Value, inside: Value) -> list[Value]:
            best, place = state
            wins = b.and_(inside, v.beats(pixel, best))
            return [b.select(wins, pixel, best), b.select(wins, here, place)]

        def finish(state: list[Value], to: Value, exist: Value) -> None:
            best, place = state
            v.store_some(best, b.add(y, to), exist)
            if self.keeps_places:  # else the compiler leaves out all that concerns them
                v.store_some(b.bitcast(place, v.type), b.add(places, to), exist)

        for_windows(v, x, own, self.width, self.stride, start, meet, finish)


class MaxGradientTile(NamedTuple):
    """Every pixel gets d_y of the windows of which it is the winner.

    Attributes
    ----------
    lanes : int
    width, stride, row_stride : int
        Of the windows: along a row, and their stride down the columns.
    """

    lanes: int
    width: int
    stride: int
    row_stride: int

    def emit(self, v: Vectors, d_y: Value, d_x: Value, places: Value, *sizes: Value) -> None:
        """Compute d_x (H, W) of one plane from d_y and places (P, Q)."""
        b = v.builder

        def load(at: Value, exist: Value) -> tuple[Value, Value]:
            place = v.load_some(b.add(places, at), exist)
            return b.bitcast(place, v.integer_type), v.load_some(b.add(d_y, at), exist)

        def sent(window: tuple[Value, Value], here: Value) -> Value:
            place, d = window
            return b.select(b.icmp_signed("==", place, here), d, v.zero)

        strides = self.width, self.stride, self.row_stride
        for_pixels(v, d_x, Sizes(*sizes), *strides, load, sent)


class MeanPoolTile(NamedTuple):
    """The mean of each window; attributes as :class:`MaxPoolTile` has them."""

    lanes: int
    width: int
    stride: int

    def emit(self, v: Vectors, x: Value, y: Value, areas: Value, *sizes: Value) -> None:
        """Pool one plane, at addresses x (H, W), y and areas (P, Q), by which it divides."""
        b = v.builder

        def start(_leftmost: Value, _row: Value) -> list[Value]:
            return [v.zero]

        def meet(state: list[Value], pixel: Value, _here: Value, _inside: Value) -> list[Value]:
            return [v.plus(state[0], pixel)]

        def finish(state: list[Value], to: Value, exist: Value) -> None:
            area = v.load_some(b.add(areas, to), exist)
            v.store_some(b.fdiv(state[0], area), b.add(y, to), exist)

        for_windows(v, x, Sizes(*sizes), self.width, self.stride, start, meet, finish)


class MeanGradientTile(NamedTuple):
    """Every pixel gets its share of d_y; attributes as :class:`MaxGradientTile` has them."""

    lanes: int
    width: int
    stride: int
    row_stride: int

    def emit(self, v: Vectors, d_y: Value, d_x: Value, shares: Value, *sizes: Value) -> None:
        """Compute d_x (H, W) of one plane from d_y and shares (P, Q), which are 1 / area."""
        b = v.builder

        def load(at: Value, exist: Value) -> Value:
            d, share = (v.load_some(b.add(array, at), exist) for array in (d_y, shares))
            return b.fmul(d, share)

        strides = self.width, self.stride, self.row_stride
        for_pixels(v, d_x, Sizes(*sizes), *strides, load, lambda sent, _here: sent)


def compiled(tile: Any) -> Any:
    """Compile a tile; its ``address`` is to be called with the arguments of ``emit``."""
    return _compiled(tile.__class__, tile)  # tuples of two kinds with the same numbers are equal


@cache
def _compiled(_kind: Any, tile: Any) -> Any:
    constant = Constant(tile)

    def pool_tile(source, target, beside, H, W, P, Q, height, row_stride, top, left):
        emitted(constant, (source, target, beside, H, W, P, Q, height, row_stride, top, left))

    return c_function(pool_tile, f"pooling by {tile}")
