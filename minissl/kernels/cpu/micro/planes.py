r"""The input as the direct sparse convolution reads it: planes whose rows begin on vectors.

Stride s is taken out by splitting each channel into s x s *phases*, the pixels (s i + a, s j + b):

    output p, kernel row r:   input row s p + r d - pad  =  s (p + move) + a
                              move = floor((r d - pad) / s),   a = (r d - pad) mod s

so that every convolution becomes one of stride 1 over phases, moved by whole rows and columns; the
same holds for columns. Only the phases of channels that some weight uses are made.

A plane holds ``rows`` rows of ``pitch`` columns. Row i is row i + top of the phase, column j its
column j - lead (``lead`` may be negative); what lies outside the image is zero. An element of a
plane is one number or, for *images in the lanes*, a vector with the same pixel of several images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function, kernel, unsigned
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, address_of, call, emitted


class Planes(NamedTuple):
    """Geometry of the planes of one layer; ``top`` is 0 or negative."""

    channels: int
    height: int
    width: int
    stride_h: int
    stride_w: int
    rows: int
    pitch: int
    top: int
    lead: int


def moves(shape: Any) -> tuple[list[int], list[int]]:
    """Return how far kernel rows and kernel columns move a phase, ascending, each once.

    Parameters
    ----------
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    """
    rows, columns = (
        sorted({(i * dilation - pad) // stride for i in range(kernel)})
        for kernel, stride, pad, dilation in zip(
            shape.kernel, shape.stride, shape.pad, shape.dilation, strict=True
        )
    )
    return rows, columns


def extent(shape: Any) -> tuple[int, int]:
    """Return ``top`` of the planes of a layer, and their ``rows``."""
    row_moves = moves(shape)[0]
    top = min(row_moves[0], 0)
    return top, shape.output[0] + max(row_moves[-1], 0) - top


class PixelPlane(NamedTuple):
    """Copies an image into a plane of numbers.

    Attributes
    ----------
    lanes, vectors : int
        float32 numbers in a vector, and vectors in a row of the plane.
    step : int
        Pixels from one that is copied to the next: the stride of the columns.
    """

    lanes: int
    vectors: int
    step: int = 1

    def emit(
        self,
        v: Vectors,
        source: Value,
        row_bytes: Value,
        _image_bytes: Value,
        _images: Value,
        count: Value,
        target: Value,
        rows: Value,
        first: Value,
        last: Value,
        pitch: Value,
        lead: Value,
    ) -> None:
        """Fill a plane of ``rows`` rows, of which first..last - 1 come from the image.

        Parameters
        ----------
        source : address
            Of the pixel that goes to row ``first``, column ``lead``.
        row_bytes, image_bytes, images : int
            Bytes from one row to the next and from one image to the next; images in the lanes.
        count : int
            Pixels of a row.
        target : address
            The plane.
        pitch : int
            Columns of the plane. Where they are fewer than the vectors hold, the zeros behind a row
            are overwritten by the row, or plane, that follows.
        """
        end = v.builder.add(lead, count)
        elements = range(self.vectors * self.lanes * self.step)
        # which of the elements of a row are copied: every step-th of those that lie in the image
        numbers = [e // self.step if e % self.step == 0 else -1 for e in elements]
        pieces = [numbers[i : i + self.lanes] for i in elements[:: self.lanes]]
        masks = [v.within(lead, end, piece) for piece in pieces]
        before = v.builder.mul(lead, ir.Constant(I64, 4 * self.step))
        begin = v.builder.sub(source, before)

        def copy(line: Value, source: Value) -> None:
            for i in range(self.vectors):
                own = range(i * self.step, (i + 1) * self.step)
                found = [v.load_some(v.add(source, k * v.bytes), masks[k]) for k in own]
                v.store(v.every(found, self.step), v.add(line, i * v.bytes), aligned=False)

        def clear(line: Value) -> None:
            for i in range(self.vectors):
                v.store(v.zero, v.add(line, i * v.bytes), aligned=False)

        row_size = v.builder.mul(pitch, ir.Constant(I64, 4))
        _fill_rows(v, target, row_size, rows, first, last, begin, row_bytes, copy, clear)


class ImagePlane(NamedTuple):
    """Copies several images (stride 1) into a plane whose elements are vectors of images.

    Attributes
    ----------
    lanes : int
        Images in a vector.
    """

    lanes: int

    def emit(
        self,
        v: Vectors,
        source: Value,
        row_bytes: Value,
        image_bytes: Value,
        images: Value,
        count: Value,
        target: Value,
        rows: Value,
        first: Value,
        last: Value,
        pitch: Value,
        lead: Value,
    ) -> None:
        """Fill a plane; arguments as :meth:`PixelPlane.emit` has them."""
        b = v.builder
        nothing, size = ir.Constant(I64, 0), ir.Constant(I64, v.bytes)
        row_size = b.mul(pitch, size)

        def zero(at: Value, _: Any) -> tuple:
            v.store(v.zero, at)
            return ()

        def zeros(begin: Value, end: Value) -> None:
            v.loop(begin, end, v.bytes, [], zero)

        def copy(line: Value, source: Value) -> None:
            begin = b.add(line, b.mul(lead, size))
            zeros(line, begin)
            v.loop(nothing, count, v.lanes, [], partial(turn, begin, source))
            zeros(b.add(begin, b.mul(count, size)), b.add(line, row_size))

        def turn(begin: Value, source: Value, at: Value, _: Any) -> tuple:
            """Pixels ``at`` .. of a row of all images, transposed to one vector for each pixel."""
            left = b.sub(count, at)
            place = b.add(source, b.mul(at, ir.Constant(I64, 4)))
            vectors = []
            for number in range(v.lanes):
                exists = b.icmp_signed("<", ir.Constant(I64, number), images)
                vectors.append(
                    v.load_some(place, v.between(nothing, b.select(exists, left, nothing)))
                )
                place = b.add(place, image_bytes)
            line = b.add(begin, b.mul(at, size))
            v.store_transposed(vectors, lambda pixel: v.add(line, pixel * v.bytes), left)
            return ()

        def clear(line: Value) -> None:
            zeros(line, b.add(line, row_size))

        _fill_rows(v, target, row_size, rows, first, last, source, row_bytes, copy, clear)


def _fill_rows(
    v: Vectors,
    target: Value,
    pitch: Value,
    rows: Value,
    first: Value,
    last: Value,
    source: Value,
    row_bytes: Value,
    copy: Callable[[Value, Value], None],
    clear: Callable[[Value], None],
) -> None:
    """Clear the rows before ``first`` and from ``last`` on, and copy those between."""

    def one_cleared(_: Value, lines: list[Value]) -> tuple:
        clear(lines[0])
        return (v.builder.add(lines[0], pitch),)

    def one_copied(_: Value, lines: list[Value]) -> tuple:
        copy(*lines)
        return v.builder.add(lines[0], pitch), v.builder.add(lines[1], row_bytes)

    (line,) = v.loop(ir.Constant(I64, 0), first, 1, [target], one_cleared)
    line, _ = v.loop(first, last, 1, [line, source], one_copied)
    v.loop(last, rows, 1, [line], one_cleared)


@cache
def compiled(plane: PixelPlane | ImagePlane) -> Any:
    """Compile a copy; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(plane)

    def copy_plane(
        source, row_bytes, image_bytes, images, count, target, rows, first, last, pitch, lead
    ):
        emitted(
            constant,
            (source, row_bytes, image_bytes, images, count, target, rows, first, last, pitch, lead),
        )

    return c_function(copy_plane, f"the layout of planes for {plane}")


@kernel
def make_plane(x, first_image, images, lanes, slot, geometry, copy, buffer, at):
    """Make one plane of some images, from x (flat) to buffer[at:] (flat).

    Parameters
    ----------
    images : int
        How many lie in the lanes of an element; a plane of pixels has 1.
    lanes : int
        Length of an element: 1 for a plane of pixels.
    slot : (3,)
        Channel, and phase of rows and columns.
    geometry : Planes
    copy : address
        Of a compiled :class:`PixelPlane` or :class:`ImagePlane`.
    """
    C, H, W, sh, sw, rows, pitch, top, lead = geometry
    channel, a, b = slot
    image_size = C * H * W
    phase_rows, phase_columns = (H - a + sh - 1) // sh, (W - b + sw - 1) // sw
    skipped, lead = max(0, -lead), max(0, lead)
    count = min(phase_columns - skipped, pitch - lead)
    first, last = min(rows, -top), max(min(rows, -top), min(rows, phase_rows - top))
    source = (first_image * C + channel) * H * W + a * W + b + skipped * sw
    if sw == 1 or lanes == 1:
        call(
            copy,
            (
                address_of(x) + 4 * source,
                4 * W * sh,
                4 * image_size,
                images,
                count,
                address_of(buffer) + 4 * at,
                rows,
                first,
                last,
                pitch,
                lead,
            ),
        )
        return
    buffer[at : at + rows * pitch * lanes] = 0
    for i in range(first, last):
        line = unsigned(at + (i * pitch + lead) * lanes)
        for n in range(images):
            start = unsigned(source + n * image_size + (i + top) * sh * W)
            target = line + unsigned(n)
            for j in range(unsigned(count)):
                buffer[target + j * unsigned(lanes)] = x[start + j * unsigned(sw)]
