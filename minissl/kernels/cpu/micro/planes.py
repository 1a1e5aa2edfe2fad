r"""The input as the direct sparse convolution reads it: planes whose rows begin on vectors.

Stride s is taken out by splitting each channel into s x s *phases*, the pixels (s i + a, s j + b):

    output p, kernel row r:   input row s p + r d - pad  =  s (p + move) + a
                              move = floor((r d - pad) / s),   a = (r d - pad) mod s

so that every convolution becomes one of stride 1 over phases, moved by whole rows and columns; the
same holds for columns. Only the phases of channels that some weight uses are made.

A plane holds ``rows`` rows of ``pitch`` columns. Row i is row i + top of the phase, column j its
column j - lead; what lies outside the image is zero. An element of a plane is one number or, for
*images in the lanes*, a vector with the same pixel of several images.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple

from llvmlite import ir

from minissl.kernels.cpu.jit import c_function, kernel, unsigned
from minissl.kernels.cpu.micro.simd import I64, Value, Vectors
from minissl.kernels.cpu.micro.tiles import Constant, address_of, call, emitted


class Planes(NamedTuple):
    """Geometry of the planes of one layer; ``top`` is 0 or negative, ``lead`` is not negative."""

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


class Copy(NamedTuple):
    """Copies a plane whose columns lie side by side in the image (stride 1).

    Attributes
    ----------
    lanes : int
        float32 numbers in a vector.
    images : bool
        Whether an element of the plane is a vector of images.
    """

    lanes: int
    images: bool

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
        """
        b = v.builder
        element = v.bytes if self.images else 4
        row_of_plane = b.mul(pitch, ir.Constant(I64, element))
        nothing = ir.Constant(I64, 0)

        def clear(at: Value, _: Any) -> tuple:
            v.store(v.zero, at)
            return ()

        def row(number: Value, places: list[Value]) -> tuple:
            line, source = places
            inside = b.and_(b.icmp_signed(">=", number, first), b.icmp_signed("<", number, last))
            there = b.select(inside, count, nothing)
            if self.images:
                begin = b.add(line, b.mul(lead, ir.Constant(I64, element)))
                end = b.add(begin, b.mul(there, ir.Constant(I64, element)))
                stop = b.add(line, row_of_plane)
                v.loop(line, begin, element, [], clear)
                v.loop(nothing, there, v.lanes, [], partial(group, source, begin, there))
                v.loop(end, stop, element, [], clear)
            else:
                v.loop(nothing, pitch, v.lanes, [], partial(vector, source, line, there))
            return b.add(line, row_of_plane), b.add(source, b.select(inside, row_bytes, nothing))

        def vector(source: Value, line: Value, there: Value, at: Value, _: Any) -> tuple:
            """Pixels ``at`` .. of a row, zeros around them."""
            before = b.sub(at, lead)
            mask = v.between(b.neg(before), b.sub(there, before))
            values = v.load_some(b.add(source, b.mul(before, ir.Constant(I64, 4))), mask)
            v.store(values, b.add(line, b.mul(at, ir.Constant(I64, 4))))
            return ()

        def group(source: Value, begin: Value, there: Value, at: Value, _: Any) -> tuple:
            """Pixels ``at`` .. of all images, transposed to one vector for each pixel."""
            left = b.sub(there, at)
            place = b.add(source, b.mul(at, ir.Constant(I64, 4)))
            vectors = []
            for number in range(v.lanes):
                exists = b.icmp_signed("<", ir.Constant(I64, number), images)
                mask = v.between(nothing, b.select(exists, left, nothing))
                vectors.append(v.load_some(place, mask))
                place = b.add(place, image_bytes)
            line = b.add(begin, b.mul(at, ir.Constant(I64, element)))
            v.store_transposed(vectors, lambda pixel: v.add(line, pixel * element), left)
            return ()

        v.loop(nothing, rows, 1, [target, source], row)


@cache
def compiled(copy: Copy) -> Any:
    """Compile a copy; its ``address`` is to be called with the arguments of ``emit``."""
    constant = Constant(copy)

    def copy_plane(
        source, row_bytes, image_bytes, images, count, target, rows, first, last, pitch, lead
    ):
        emitted(
            constant,
            (source, row_bytes, image_bytes, images, count, target, rows, first, last, pitch, lead),
        )

    kind = "images" if copy.images else "pixels"
    return c_function(copy_plane, f"the layout of planes with {copy.lanes} {kind} in a vector")


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
        Of a compiled :class:`Copy`.
    """
    C, H, W, sh, sw, rows, pitch, top, lead = geometry
    channel, a, b = slot
    image_size = C * H * W
    phase_rows, phase_columns = (H - a + sh - 1) // sh, (W - b + sw - 1) // sw
    count = min(phase_columns, pitch - lead)
    first, last = min(rows, -top), max(min(rows, -top), min(rows, phase_rows - top))
    source = (first_image * C + channel) * H * W + a * W + b
    if sw == 1:
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
