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
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import aligned, kernel, parallel_kernel, prange, scratch
from minissl.kernels.cpu.micro import planes, sparse_tile
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.planes import ImagePlane, PixelPlane, Planes, make_plane
from minissl.kernels.cpu.micro.sparse_tile import LAST, RELU, SparseTile
from minissl.kernels.cpu.micro.tiles import address_of, call, one_row, ready

#: Bytes of the planes of a channel block that a tile reads. A first-level cache has 32 or 48 KB; a
#: block half as large again costs some loads from the second level, and saves passes over the sums.
PLANE_BYTES = 48 * 1024
#: The same for vectors of half a cache line, of which two a cycle come from the first level.
SHORT_PLANE_BYTES = 24 * 1024
#: Bytes of the sums of all filters between two channel blocks: a quarter of a common second level.
SUM_BYTES = 256 * 1024
#: Bytes of all planes that offsets of 32 bits reach.
MOST_BYTES = 2**31 - 2**20
#: Planes of several images may take so much where those of one would do; no cache holds more.
WORTHWHILE_BYTES = 2**26
#: What beginning a filter costs, in non-zeros.
FILTER_COST = 4
#: What a non-zero costs beside its multiply-adds, in these.
ENTRY_COST = 1.5
#: Bytes that a cache moves at once.
CACHE_LINE = 64
#: Cycles for each vector of a tile, block of channels and filter: its sums are loaded, moved and
#: stored, and the planes made. With images in the lanes blocks hold fewer channels.
BLOCK_COST = 8
#: The same where columns are moved by address.
MOVED_BLOCK_COST = 4


class Layout(NamedTuple):
    """How one tile covers the outputs, with pixels or images in its lanes.

    Attributes
    ----------
    tile : SparseTile
    pitch : int
        Columns of a plane.
    lead : int
        Columns of a plane before the image.
    rows, columns : int arrays
        Where tiles begin: output rows (n,); and (n, 4): first column of the plane, of the output,
        and the lanes begin..end - 1 that are put out.
    """

    tile: SparseTile
    pitch: int
    lead: int
    rows: np.ndarray
    columns: np.ndarray

    @property
    def element(self) -> int:
        """Numbers in an element of a plane."""
        return self.tile.lanes if self.tile.images else 1

    def plane_bytes(self, shape: Any) -> int:
        """Bytes of all planes that a layer can use."""
        phases = shape.channels * shape.stride[0] * shape.stride[1]
        return 4 * self.element * self.pitch * planes.extent(shape)[1] * phases


def cuts(length: int, size: int, overlap: int = 0) -> tuple[int, np.ndarray]:
    """Cover a length by equal pieces, the last moved back to its end; size is the most of a piece.

    Returns
    -------
    size, begins : int, int array
        Pieces as short as their number allows. Neighbours share at least ``overlap``.
    """
    if length <= size:
        return length, np.zeros(1, np.int64)
    count = -(-(length - overlap) // (size - overlap))
    size = -(-(length - overlap) // count) + overlap
    begins = np.arange(count) * (size - overlap)
    return size, np.minimum(begins, length - size).astype(np.int64)


def over_pixels(isa: Isa, shape: Any) -> Layout | None:
    """Lay neighbouring pixels of a row side by side in a vector.

    Where a row has lanes to spare, the image begins a few lanes in, so that all shifts are to one
    side. Rows of up to 8 columns take vectors of 8. None where the shifts of a very wide kernel
    reach farther than a tile.
    """
    P, Q = shape.output
    all_moves = planes.moves(shape)[1]
    low, high = all_moves[0], all_moves[-1]
    needed = min(-(-shape.size[1] // shape.stride[1]), Q + high)  # columns of a phase that are read
    widest = max(Q, needed)
    lanes = min(isa.lanes, 8) if widest <= 8 else isa.lanes
    pitch = -(-widest // lanes)
    one_sided = Q + high - low <= pitch * lanes
    lead = -low if one_sided else 0
    shifts = tuple(sorted({0, *(move + lead for move in all_moves)}))
    most = isa.registers - 2
    reach = -(-(high - low) // lanes)  # vectors beside a tile that its sums depend on
    if pitch > most and reach >= most:
        return None
    width, begins = cuts(pitch, most, reach)
    rows, row_begins = cuts(P, max(1, most // width))
    columns = np.empty((len(begins), 4), np.int64)
    for i, begin in enumerate(begins * lanes):
        first = 0 if i == 0 or one_sided else -low
        last = Q - begin if i == len(begins) - 1 else width * lanes - shifts[-1]
        columns[i] = begin, begin, first, min(last, Q - begin)
    at = tuple(range(0, width * lanes, lanes))
    tile = SparseTile(lanes, rows, at, pitch * lanes, shifts, fill=not one_sided)
    return Layout(tile, pitch * lanes, lead, row_begins, columns)


def over_moved_pixels(isa: Isa, shape: Any) -> Layout:
    """Lay neighbouring pixels side by side where moves by columns are part of the address.

    Of all tiles the one that takes least, were one weight in twenty not zero. Tiles of a row, and
    vectors of a tile, may overlap, so that all are as long as the first.
    """
    P, Q = shape.output
    all_moves = planes.moves(shape)[1]
    low, high = all_moves[0], all_moves[-1]
    # room for a whole vector, also where a row is shorter
    pitch = -(-(max(Q, isa.lanes) + high - low) // isa.lanes) * isa.lanes
    channels = shape.channels // shape.groups
    found: list[tuple[float, int, Layout]] = []
    for width in range(1, min(-(-Q // isa.lanes), isa.registers - 1) + 1):
        size = min(Q, width * isa.lanes)
        begins = np.minimum(np.arange(-(-Q // size)) * size, Q - size)
        rows, row_begins = cuts(P, (isa.registers - 1) // width)
        last = max(size - isa.lanes, 0)
        at = tuple(min(first, last) for first in range(0, size, isa.lanes))
        whole = size >= isa.lanes
        tile = SparseTile(isa.lanes, rows, at, pitch, (0,), False, aligned=False, whole=whole)
        columns = np.stack([begins, begins, 0 * begins, 0 * begins + size], axis=1)
        layout = Layout(tile, pitch, -low, row_begins, columns)
        visits = channel_blocks(shape, layout, channels)
        found.append((cycles(isa, layout, shape.columns // 20, visits), len(found), layout))
    return min(found)[2]


def over_images(isa: Isa, shape: Any) -> Layout:
    """Lay the same pixel of several images side by side in a vector."""
    P, Q = shape.output
    all_moves = planes.moves(shape)[1]
    low, high = all_moves[0], all_moves[-1]
    pitch = Q + high - low
    most = isa.registers - 2
    width, begins = cuts(Q, most)
    rows, row_begins = cuts(P, max(1, most // width))
    columns = np.stack([begins, begins, 0 * begins, 0 * begins], axis=1)
    at = tuple(range(width))
    tile = SparseTile(isa.lanes, rows, at, pitch, (0,), fill=False, images=True)
    return Layout(tile, pitch, -low, row_begins, columns)


def layouts(isa: Isa, shape: Any) -> list[Layout]:
    """Return the layouts that can run a layer, pixels in the lanes first; maybe none."""
    shape = one_row(shape)
    short = 2 * isa.lanes * 4 <= CACHE_LINE
    pixels = over_moved_pixels(isa, shape) if short else over_pixels(isa, shape)
    images = over_images(isa, shape)
    found = [] if pixels is None or pixels.plane_bytes(shape) > MOST_BYTES else [pixels]
    most = WORTHWHILE_BYTES if found else MOST_BYTES
    return [*found, images] if images.plane_bytes(shape) <= most else found


def channel_blocks(shape: Any, layout: Layout, most: int) -> int:
    """Into how many blocks of equal numbers of planes the largest group of planes is divided."""
    tile = layout.tile
    row_bytes = 4 * layout.element * layout.pitch
    span = planes.extent(shape)[1] - shape.output[0] + tile.rows
    room = PLANE_BYTES if tile.aligned else SHORT_PLANE_BYTES
    return -(-most // max(1, room // (row_bytes * span)))


def cycles(isa: Isa, layout: Layout, nonzeros: int, visits: int) -> float:
    """Return about how long what lies in the lanes takes: multiply-adds with a broadcast, blocks.

    Parameters
    ----------
    visits : int
        Filters times blocks of channels.
    """
    vectors = layout.tile.rows * layout.tile.width
    passes = len(layout.rows) * len(layout.columns) * layout.tile.lanes / isa.lanes
    block = BLOCK_COST if layout.tile.aligned else MOVED_BLOCK_COST
    return passes * (nonzeros * (vectors + ENTRY_COST) + block * vectors * visits)


def together(N: int, lanes: int, pixels: float | None, images: float | None) -> int:
    """How many of N images run with images in the lanes: whole vectors, or the rest as well.

    Parameters
    ----------
    lanes : int
        Images in a vector.
    pixels, images : float or None
        Cycles of one image with pixels in the lanes, and of a vector of images; None where there
        is no such layout.
    """
    if pixels is None:
        return N
    if images is None or images >= lanes * pixels:
        return 0
    whole, rest = divmod(N, lanes)
    return N if images < rest * pixels else whole * lanes


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
def _fill_tile(
    address, image, out, lanes, packed, bias, f_first, f_last, sums, zeros, sizes, flags
):
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
        See :class:`Layout`.
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
                    _fill_tile(
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
                _ZEROS,
            ),
            RELU if relu else 0,
        )


#: What the first channel block adds to: as much as the largest tile holds.
_ZEROS = aligned(np.zeros(32 * 16, np.float32))
