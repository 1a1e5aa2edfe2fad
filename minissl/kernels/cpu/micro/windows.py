r"""Where a convolution, and the gradient of its input, read: taps, phases and planes.

Along one axis, with stride s, padding and dilation d, output p reads, through kernel position r,

    input s p + r d - pad  =  s (p + move) + a        move = floor((r d - pad) / s),
                                                      a    = (r d - pad) mod s

that is, phase a of the input at p + move. The other way round, the gradient of input h = s i + a
comes from the outputs

    (h + pad - r d) / s    =  i + move                move = (a + pad - r d) / s, where whole

so phase a of d_x is a convolution of stride 1 over d_y by the kernel positions that fit. Both are
lists of *taps* (r, phase, move), one list for each phase of what is computed.

A plane has margins of zeros, and every tap reads it, moved. Where rows are shorter than a vector it
is better to make *planes apart*: one for every move of columns, moved already. Its rows are exactly
as long as those of the outputs and need no margins, so all outputs are one flat run, of which a
vector holds several rows:

    3 x 3, pad 1, rows of 4      the plane moved by -1      by 0          by 1
                                 0 a b c | 0 e f g ..       a b c d ..    b c d 0 | f g h 0 ..
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from minissl.kernels.cpu.micro import planes
from minissl.kernels.cpu.micro.planes import PixelPlane, Planes

#: In multiply-adds: copying a vector to a plane; with a stride several are read for it.
COPY = 4


class Tap(NamedTuple):
    """Kernel position ``position`` reads ``phase`` of the source, moved by ``move``."""

    position: int
    phase: int
    move: int


class Axis(NamedTuple):
    """One axis of what is computed from a source.

    Attributes
    ----------
    taps : tuple of lists of Tap
        For each phase of the outputs.
    outputs : tuple of int
        How many outputs each phase has.
    stride : int
        Phases of the source.
    size : int
        Pixels of the source.
    """

    taps: tuple[list[Tap], ...]
    outputs: tuple[int, ...]
    stride: int
    size: int

    def reached(self, phase: int, first: int, last: int) -> tuple[int, int]:
        """Return the range of taps that read something but padding for outputs first..last - 1."""
        inside = [
            i
            for i, tap in enumerate(self.taps[phase])
            if last - 1 + tap.move >= 0 and (first + tap.move) * self.stride + tap.phase < self.size
        ]
        return (inside[0], inside[-1] + 1) if inside else (0, 0)


def forward_axis(shape: Any, axis: int) -> Axis:
    """Return what outputs read from the input along an axis (0 height, 1 width).

    Parameters
    ----------
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    """
    kernel, stride, pad, dilation = (pair[axis] for pair in shape.geometry)
    taps = []
    for r in range(kernel):
        move, phase = divmod(r * dilation - pad, stride)
        taps.append(Tap(r, phase, move))
    return Axis((taps,), (shape.output[axis],), stride, shape.size[axis])


def gradient_axis(shape: Any, axis: int) -> Axis:
    """Return what the gradient of the input reads from that of the outputs along an axis."""
    kernel, stride, pad, dilation = (pair[axis] for pair in shape.geometry)
    taps = tuple(
        [
            Tap(r, 0, (phase + pad - r * dilation) // stride)
            for r in reversed(range(kernel))
            if (phase + pad - r * dilation) % stride == 0
        ]
        for phase in range(stride)
    )
    size = shape.size[axis]
    outputs = tuple(-(-(size - phase) // stride) for phase in range(stride))
    return Axis(taps, outputs, 1, shape.output[axis])


def is_flat(axes: tuple[Axis, Axis]) -> bool:
    """Whether outputs may be seen as one long row, since rows of planes are as long as theirs.

    So it is where nothing is read from the right, as by the gradient of a convolution without
    padding: the zeros before the next row stand for those behind this one. Behind the last row
    there is one more of zeros.
    """
    width = axes[1]
    low, high = _reach(width)
    fits = min(width.size, width.outputs[0]) - low <= width.outputs[0]
    return len(width.outputs) == len(axes[0].outputs) == width.stride == 1 and fits and high <= 0


def may_be_apart(axes: tuple[Axis, Axis]) -> bool:
    """Whether planes apart make outputs one long row: where all their phases are equally wide."""
    return len(set(axes[1].outputs)) == 1


class Source:
    """The planes that are made of a source, and where columns find their numbers in them.

    Parameters
    ----------
    channels : int
    size : (int, int)
        Pixels of the source.
    axes : (Axis, Axis)
    lanes : int
        Of the vectors that make rows of planes.
    apart : bool
        Make a plane for every move of columns.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        axes: tuple[Axis, Axis],
        lanes: int,
        apart: bool = False,
    ):
        self.lanes, self.apart = lanes, apart
        height, width = axes
        used = sorted({tap.phase for taps in height.taps for tap in taps})
        low, high = _reach(height)
        left, right = _reach(width)
        moves = {(tap.phase, tap.move if apart else left) for taps in width.taps for tap in taps}
        #: (phase of rows, phase of columns, move of columns) of the planes of a channel
        self.kinds = [(a, *kind) for a in used for kind in sorted(moves)]
        pitch = -(-(max(width.outputs) + right - left) // lanes) * lanes
        rows = max(height.outputs) + high - low
        if apart:
            pitch = width.outputs[0]
        elif is_flat(axes):
            pitch, rows = width.outputs[0], rows + 1
        self.planes = Planes(channels, *size, height.stride, width.stride, rows, pitch, low, -left)
        #: (channel, phases of rows and columns, lead) of every plane, as they lie in memory
        self.slots = np.array(
            [(c, a, b, -move) for c in range(channels) for a, b, move in self.kinds], np.int64
        ).reshape(-1, 4)

    @property
    def plane(self) -> int:
        """Numbers of one plane."""
        return self.planes.rows * self.planes.pitch

    @property
    def floats(self) -> int:
        """Numbers of the planes of one image, a multiple of a cache line."""
        return -(-len(self.slots) * self.plane // 16) * 16

    @property
    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as making the planes of one image."""
        vectors = len(self.slots) * self.planes.rows * -(-self.planes.pitch // self.lanes)
        return COPY * vectors * self.planes.stride_w

    @property
    def slack(self) -> int:
        """Numbers behind the last plane that a vector may touch."""
        return self.planes.pitch + 4 * self.lanes

    @cached_property
    def copy(self) -> int:
        """Address of what fills a plane."""
        p = self.planes
        plane = PixelPlane(self.lanes, -(-p.pitch // self.lanes), p.stride_w)
        return planes.compiled(plane).address

    def offsets(self, channels: range, rows: list[Tap], columns: list[Tap]) -> np.ndarray:
        """Bytes from output (0, 0) to what every (row, channel, column) reads."""
        p = self.planes

        def own_move(column: Tap) -> int:
            return column.move if self.apart else -p.lead

        found = [
            (c * len(self.kinds) + self.kinds.index((row.phase, column.phase, own_move(column))))
            * self.plane
            + (row.move - p.top) * p.pitch
            + column.move
            - own_move(column)
            for row in rows
            for c in channels
            for column in columns
        ]
        return 4 * np.array(found, np.int32).reshape(len(rows), len(channels), len(columns))


def _reach(axis: Axis) -> tuple[int, int]:
    """Return how far taps move to the left (0 or negative) and to the right (0 or positive)."""
    moves = [tap.move for taps in axis.taps for tap in taps]
    return min(0, *moves), max(0, *moves)
