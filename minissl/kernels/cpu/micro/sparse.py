"""Direct convolution with sparse weights (DIRECT_SCONV): what is prepared once, and how it runs.

Nothing is lowered. The non-zeros of a filter carry offsets into planes of the input (see
:mod:`minissl.kernels.cpu.micro.planes`), and a register tile of outputs walks through them (see
:mod:`minissl.kernels.cpu.micro.sparse_tile`), one block of channels after the other, so that the
planes of a block stay in the first-level cache while all filters use them:

    for each image (or block of images)
        make the planes that some weight uses
        for each tile of output pixels
            for each block of channels             planes of a block: PLANE_BYTES
                for each filter                    sums between blocks: SUM_BYTES
                    tile += its non-zeros in these channels
            the last block adds the bias, rectifies if asked, and writes to y

Threads share the work by non-zeros, not by filters: filters are laid out along a line, each as long
as its non-zeros, image after image, and the line is cut into equal pieces. Whoever begins a filter
computes all of it, so results do not depend on the number of threads.

Dimensions: N images, C channels, F filters, G conv groups, P x Q output pixels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import aligned, kernel, parallel_kernel, prange, scratch
from minissl.kernels.cpu.micro import planes, sparse_tile
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.planes import ImagePlane, PixelPlane, Planes, make_plane
from minissl.kernels.cpu.micro.sparse_layout import Layout, channel_blocks, cycles, together
from minissl.kernels.cpu.micro.sparse_tile import LAST, RELU
from minissl.kernels.cpu.micro.tiles import address_of, call, one_row, ready

#: Bytes of the sums of all filters between two channel blocks: a quarter of a common second level.
SUM_BYTES = 256 * 1024
#: What beginning a filter costs, in non-zeros.
FILTER_COST = 4


class Packed:
    """The non-zeros of a layer, sorted and addressed for one layout.

    Attributes
    ----------
    entries : int32 (nnz, 2)
        Offset in bytes of the input, and the value's bits: by channel block, filter, list, channel.
    starts : int32
        Where the lists of (block, filter) begin, in entries; one more number ends the last.
    slots : int64 (S, 3)
        Channel and phases of every plane that is used, by conv group.
    group_slot : int64 (G,)
        The first plane of each group.
    line : int64 (F + 1,)
        Where each filter begins on the line that the threads share.
    cost : float
        Cycles that the layer takes, about, for as many images as the lanes hold.
    """

    def __init__(self, isa: Isa, shape: Any, layout: Layout, values, columns, row_start):
        self.layout, tile = layout, layout.tile
        F, G = shape.filters, shape.groups
        (kh, kw), (sh, sw) = shape.kernel, shape.stride
        f = np.repeat(np.arange(F), np.diff(row_start))
        g = f // (F // G)
        channel = columns // (kh * kw) + g * (shape.channels // G)
        down, a = np.divmod(columns // kw % kh * shape.dilation[0] - shape.pad[0], sh)
        right, b = np.divmod(columns % kw * shape.dilation[1] - shape.pad[1], sw)
        self.top, self.plane_rows = planes.extent(shape)
        used, slot = np.unique((channel * sh + a) * sw + b, return_inverse=True)
        self.slots = np.stack([used // (sh * sw), used // sw % sh, used % sw], 1).astype(np.int64)
        self.group_slot = np.searchsorted(
            self.slots[:, 0], np.arange(G) * (shape.channels // G)
        ).astype(np.int64)
        slot = slot.reshape(-1) - self.group_slot[g]

        most = max(1, int(np.diff([*self.group_slot, len(self.slots)]).max()))
        self.blocks = channel_blocks(shape, layout, most)
        block = slot // -(-most // self.blocks)
        self.cost = cycles(isa, layout, len(values), self.blocks * F)
        element = layout.element
        row_bytes = 4 * element * layout.pitch

        moved = right + layout.lead
        order = tile.order
        if len(order) == 1:  # columns are moved by address
            which, column = np.zeros_like(moved), moved
        else:
            place = {shift: i for i, shift in enumerate(order)}
            which = np.array([place[shift] for shift in moved.tolist()], np.int64)
            column = 0
        offset = (slot * self.plane_rows + down - self.top) * row_bytes + column * 4 * element
        self.lists = len(order)
        key = (block * F + f) * self.lists + which
        by = np.lexsort((offset, key))
        self.starts = np.zeros(self.blocks * F * self.lists + 1, np.int32)
        np.cumsum(np.bincount(key, minlength=len(self.starts) - 1), out=self.starts[1:])
        self.entries = np.empty((len(values), 2), np.int32)
        self.entries[:, 0] = offset[by]
        self.entries[:, 1] = values[by].astype(np.float32).view(np.int32)
        lengths = np.diff(row_start) + FILTER_COST
        self.line = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

        # what the loops want to know, in their order
        self.element = element
        self.geometry = Planes(
            shape.channels,
            shape.size[0],
            shape.size[1],
            sh,
            sw,
            self.plane_rows,
            layout.pitch,
            self.top,
            layout.lead,
        )
        self.unit_size = len(self.slots) * self.plane_rows * layout.pitch * element
        self.sizes = F, G, *shape.output
        self.chunk = max(1, min(shape.rows, SUM_BYTES // tile.nbytes))
        lists = self.slots, self.group_slot, self.line, self.entries, self.starts
        self.arrays = *lists, self.blocks, self.lists, self.chunk

    @cached_property
    def tile(self) -> tuple[int, int, int]:
        """Address of the copy of planes, address of the tile, bytes of its sums; compiled now."""
        tile = self.layout.tile
        copy: ImagePlane | PixelPlane = ImagePlane(tile.lanes)
        if not tile.images:
            copy = PixelPlane(tile.lanes, tile.pitch // tile.lanes, self.geometry.stride_w)
        return planes.compiled(copy).address, sparse_tile.compiled(tile).address, tile.nbytes


@kernel
def fill_tile(address, image, out, lanes, packed, bias, f_first, f_last, sums, zeros, sizes, flags):
    """Compute one tile of pixels for some filters of a conv group, block after block of channels.

    Parameters
    ----------
    address : int
        Of the compiled tile.
    image, out : addresses
        Of the tile's first input, moves left out, and of its first output for filter 0.
    lanes : (begin, end)
        Which lanes are put out, as the tile wants to know it.
    packed : (entries, starts, blocks, lists, chunk)
        See :class:`Packed`; a chunk is as many filters as have room for their sums.
    sums, zeros : addresses
        Room for the sums of a chunk, and zeros.
    sizes : (F, P, Q, bytes of the sums of a filter)
    """
    entries, starts, blocks, lists, chunk = packed
    F, P, Q, tile_bytes = sizes
    for f in range(f_first, f_last, chunk):
        for block in range(blocks):
            call(
                address,
                (
                    image,
                    address_of(entries),
                    address_of(starts) + 4 * (block * F + f) * lists,
                    sums if block > 0 else zeros,
                    tile_bytes if block > 0 else 0,
                    sums,
                    address_of(bias) + 4 * f,
                    flags | LAST if block == blocks - 1 else flags,
                    out + 4 * f * P * Q,
                    4 * P * Q,
                    4 * Q,
                    lanes[0],
                    lanes[1],
                    min(chunk, f_last - f),
                ),
            )


@parallel_kernel
def _convolve(x, y, bias, sizes, geometry, tile, places, packed, threads, buffers, flags):
    """Run one layout over some images; see the module's picture.

    A *unit* is what lies in the lanes: one image, or a block of them.

    Parameters
    ----------
    x, y : flat
    sizes : (first image, images, images of a unit, F, G, P, Q)
    geometry : Planes
    tile : (address of the copy, address of the tile, bytes of its sums)
    places : (rows, columns)
        See :class:`~minissl.kernels.cpu.micro.sparse_layout.Layout`.
    packed : (slots, group_slot, line, entries, starts, blocks, lists, chunk)
    buffers : (planes, sums of all threads, zeros)
    """
    first_image, N, element, F, G, P, Q = sizes
    copy, address, tile_bytes = tile
    rows, columns = places
    slots, group_slot, line, entries, starts, blocks, lists, chunk = packed
    buffer, all_sums, zeros = buffers
    plane_size = geometry.rows * geometry.pitch * element
    unit_size = len(slots) * plane_size
    units = (N + element - 1) // element
    whole, filters = line[F], F // G
    alone = units >= threads  # then each thread makes the planes of its own images
    if not alone:
        for index in prange(units * len(slots)):
            job = np.int64(index)  # prange counts in unsigned numbers
            first = first_image + job // len(slots) * element
            images = min(element, first_image + N - first)
            slot = slots[job % len(slots)]
            make_plane(x, first, images, element, slot, geometry, copy, buffer, job * plane_size)
    for index in prange(threads):
        part = np.int64(index)
        begin, end = part * whole * units // threads, (part + 1) * whole * units // threads
        sums = address_of(all_sums) + part * chunk * tile_bytes
        for unit in range(begin // whole, -(-end // whole)):
            f_first = np.searchsorted(line[:-1], begin - unit * whole)
            f_last = np.searchsorted(line[:-1], end - unit * whole)
            if f_first >= f_last:
                continue
            first = first_image + unit * element
            images = min(element, first_image + N - first)
            at = (part if alone else unit) * unit_size
            if alone:
                for s in range(len(slots)):
                    place = at + s * plane_size
                    make_plane(x, first, images, element, slots[s], geometry, copy, buffer, place)
            for g in range(f_first // filters, -(-f_last // filters)):
                source = address_of(buffer) + 4 * (at + group_slot[g] * plane_size)
                for job in range(len(rows) * len(columns)):
                    p, c = rows[job // len(columns)], columns[job % len(columns)]
                    fill_tile(
                        address,
                        source + 4 * element * (p * geometry.pitch + c[0]),
                        address_of(y) + 4 * (first * F * P * Q + p * Q + c[1]),
                        (4 * F * P * Q, images) if element > 1 else (c[2], c[3]),
                        (entries, starts, blocks, lists, chunk),
                        bias,
                        max(f_first, g * filters),
                        min(f_last, (g + 1) * filters),
                        sums,
                        address_of(zeros),
                        (F, P, Q, tile_bytes),
                        flags,
                    )


class SparseConvolution:
    """A convolution with sparse weights, ready to run on any batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    values, columns, row_start
        Compressed rows of the weight matrix, as in
        :func:`minissl.kernels.reference.sparse_convolution.conv_csrmm`.
    b : array or None
    ways : list of Layout
        One or more of :func:`layouts`; the fastest is used.
    """

    def __init__(self, isa: Isa, shape: Any, values, columns, row_start, b, ways: list[Layout]):
        self.shape = shape = one_row(shape)
        self.bias = np.zeros(shape.filters, np.float32) if b is None else np.asarray(b)
        self.lanes = isa.lanes
        csr = values, np.asarray(columns, np.int64), np.asarray(row_start, np.int64)
        packed = {way.tile.images: Packed(isa, shape, way, *csr) for way in ways}
        self.pixels, self.images = packed.get(False), packed.get(True)
        if self.pixels and self.images:  # keep what some batch may need
            if self.images.cost >= self.lanes * self.pixels.cost:
                self.images = None
            elif self.images.cost < self.pixels.cost:
                self.pixels = None

    def run(self, x: np.ndarray, y: np.ndarray, relu: bool = False) -> None:
        """Convolve x (N, C, H, W) into y (N, F, P, Q), rectified if asked."""
        x, out = ready(x, y)
        N = len(x)
        first = self.images_together(N)
        if self.images and first:
            self._run(self.images, x, out, 0, first, relu)
        if self.pixels and first < N:
            self._run(self.pixels, x, out, first, N - first, relu)
        if out is not y:
            y[...] = out

    def images_per_chunk(self, N: int) -> int:
        """Return how many images must stay together for bitwise the same results."""
        return self.lanes if self.images_together(N) else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        both = (packed for packed in (self.pixels, self.images) if packed)
        return sum(int(packed.entries.nbytes + packed.starts.nbytes) for packed in both)

    def images_together(self, N: int) -> int:
        """How many of N images run with images in the lanes."""
        pixels = self.pixels.cost if self.pixels else None
        images = self.images.cost if self.images else None
        return together(N, self.lanes, pixels, images)

    def _run(self, packed: Packed, x, y, first: int, count: int, relu: bool) -> None:
        layout, tile, threads = packed.layout, packed.tile, get_num_threads()
        room = min(-(-count // packed.element), threads) * packed.unit_size
        _convolve(
            x.reshape(-1),
            y.reshape(-1),
            self.bias,
            (first, count, packed.element, *packed.sizes),
            packed.geometry,
            tile,
            (layout.rows, layout.columns),
            packed.arrays,
            threads,
            (
                scratch("planes", (room,), x.dtype),
                scratch("sums", (threads * packed.chunk * tile[2] // 4,), x.dtype),
                ZEROS,
            ),
            RELU if relu else 0,
        )


#: What the first channel block adds to: as much as the largest tile holds.
ZEROS = aligned(np.zeros(32 * 16, np.float32))
