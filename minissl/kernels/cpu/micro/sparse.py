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

from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import aligned_scratch, parallel_kernel, prange
from minissl.kernels.cpu.micro import planes, sparse_tile
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.planes import Planes
from minissl.kernels.cpu.micro.sparse_tile import LAST, RELU, SparseTile
from minissl.kernels.cpu.micro.tiles import address_of, call

#: Bytes of the planes of a channel block that a tile reads. A first-level cache has 32 or 48 KB; a
#: block half as large again costs a few loads from the second level, and saves passes over the sums.
PLANE_BYTES = 48 * 1024
#: Bytes of the sums of all filters between two channel blocks: a quarter of a common second level.
SUM_BYTES = 256 * 1024
#: What beginning a filter costs, in non-zeros.
FILTER_COST = 4


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


def over_pixels(isa: Isa, shape: Any) -> Layout:
    """Lay neighbouring pixels of a row side by side in a vector.

    Where a row has lanes to spare, the image begins a few lanes in, so that all shifts are to one
    side. Rows of up to 8 columns take vectors of 8.
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
    width, begins = cuts(pitch, most, reach)
    rows, row_begins = cuts(P, max(1, most // width))
    columns = np.empty((len(begins), 4), np.int64)
    for i, begin in enumerate(begins * lanes):
        first = 0 if i == 0 or one_sided else -low
        last = Q - begin if i == len(begins) - 1 else width * lanes - shifts[-1]
        columns[i] = begin, begin, first, min(last, Q - begin)
    tile = SparseTile(lanes, rows, width, pitch, shifts, fill=not one_sided)
    return Layout(tile, pitch * lanes, lead, row_begins, columns)


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
    tile = SparseTile(isa.lanes, rows, width, pitch, (0,), fill=False, images=True)
    return Layout(tile, pitch, -low, row_begins, columns)


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
    """

    def __init__(self, shape: Any, layout: Layout, values, columns, row_start):
        tile = layout.tile
        F, G = shape.filters, shape.groups
        kh, kw = shape.kernel
        f = np.repeat(np.arange(F), np.diff(row_start))
        g = f // (F // G)
        channel = columns // (kh * kw) + g * (shape.channels // G)
        down, a = np.divmod(
            columns // kw % kh * shape.dilation[0] - shape.pad[0], shape.stride[0]
        )
        right, b = np.divmod(columns % kw * shape.dilation[1] - shape.pad[1], shape.stride[1])
        row_moves = planes.moves(shape)[0]
        self.top = min(row_moves[0], 0)
        self.plane_rows = shape.output[0] + max(row_moves[-1], 0) - self.top
        self.slots, slot = np.unique(np.stack([channel, a, b], 1), axis=0, return_inverse=True)
        self.slots = self.slots.astype(np.int64)
        self.group_slot = np.searchsorted(
            self.slots[:, 0], np.arange(G) * (shape.channels // G)
        ).astype(np.int64)
        slot = slot.reshape(-1) - self.group_slot[g]

        # channel blocks of equal numbers of planes
        element = tile.lanes if tile.images else 1
        row_bytes = 4 * element * layout.pitch
        span = self.plane_rows - shape.output[0] + tile.rows
        per_block = max(1, PLANE_BYTES // (row_bytes * span))
        most = max(1, int(np.diff([*self.group_slot, len(self.slots)]).max()))
        self.blocks = -(-most // per_block)
        block = slot // -(-most // self.blocks)

        moved = right + layout.lead
        order = tile.order
        if tile.images:
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


@parallel_kernel
def _convolve(
    x, y, bias, sizes, geometry, tile, columns, rows, packed, threads, buffers, flags
):
    """Run one layout over some images; see the module's picture.

    Parameters
    ----------
    x, y : float32, flat
    sizes : (units, first image, images, images in the lanes, F, G, P, Q)
        A unit is what lies in the lanes: one image, or a block of them.
    geometry : Planes
    tile : (address of the copy, address of the tile, bytes of its sums, floats of an element)
    """
    units, first_image, N, in_lanes, F, G, P, Q = sizes
    copy, address, tile_bytes, element = tile
    entries, starts, slots, group_slot, line, blocks, lists, chunk = packed
    plane_size = geometry.rows * geometry.pitch * element
    image_size = len(slots) * plane_size
    buffer, sums, zeros = buffers
    whole = line[F]
    filters = F // G
    alone = units >= threads  # each thread makes the planes of its own images
    if not alone:
        for job in prange(units * len(slots)):
            unit, s = job // len(slots), job % len(slots)
            first = first_image + unit * in_lanes
            planes.make_plane(
                x, first, min(in_lanes, first_image + N - first), element, slots[s], geometry, copy,
                buffer, unit * image_size + s * plane_size,
            )
    for part in prange(threads):
        begin, end = part * whole * units // threads, (part + 1) * whole * units // threads
        own_sums = address_of(sums) + part * (sums.size // threads) * 4
        for unit in range(begin // whole, -(-end // whole)):
            f_first = np.searchsorted(line[:-1], begin - unit * whole)
            f_last = np.searchsorted(line[:-1], end - unit * whole)
            if f_first >= f_last:
                continue
            first = first_image + unit * in_lanes
            here = min(in_lanes, first_image + N - first)
            image = (part if alone else unit) * image_size
            if alone:
                for s in range(len(slots)):
                    planes.make_plane(
                        x, first, here, element, slots[s], geometry, copy, buffer, image + s * plane_size
                    )
            for g in range(f_first // filters, -(-f_last // filters)):
                source = address_of(buffer) + 4 * (image + group_slot[g] * plane_size)
                g_first, g_last = max(f_first, g * filters), min(f_last, (g + 1) * filters)
                for job in range(len(rows) * len(columns)):
                    p, c = rows[job // len(columns)], columns[job % len(columns)]
                    at = source + 4 * element * (p * geometry.pitch + c[0])
                    out = address_of(y) + 4 * (first * F * P * Q + p * Q + c[1])
                    begin_lane, end_lane = (F * P * Q * 4, here) if in_lanes > 1 else (c[2], c[3])
                    for c_first in range(g_first, g_last, chunk):
                        for block in range(blocks):
                            last = block == blocks - 1
                            for f in range(c_first, min(g_last, c_first + chunk)):
                                k = (block * F + f) * lists
                                if 0 < block and not last and starts[k] == starts[k + lists]:
                                    continue
                                mine = own_sums + (f - c_first) * tile_bytes
                                call(
                                    address,
                                    (
                                        at,
                                        address_of(entries),
                                        address_of(starts) + 4 * k,
                                        mine if block else address_of(zeros),
                                        mine,
                                        address_of(bias) + 4 * f,
                                        flags & ~1 if not last else flags,
                                        out + 4 * f * P * Q,
                                        4 * Q,
                                        begin_lane,
                                        end_lane,
                                    ),
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
        :func:`minissl.kernels.reference.conv_csrmm`.
    b : array or None
    """

    def __init__(self, isa: Isa, shape: Any, values, columns, row_start, b):
        self.shape = shape
        self.csr = values, np.asarray(columns, np.int64), np.asarray(row_start, np.int64)
        self.bias = np.zeros(shape.filters, np.float32) if b is None else np.asarray(b)
        self.pixels = over_pixels(isa, self.shape)
        self.images = over_images(isa, self.shape)
        self.lanes = isa.lanes
        self._packed: dict[bool, Packed] = {}

    def run(self, x: np.ndarray, y: np.ndarray, relu: bool = False) -> None:
        """Convolve x (N, C, H, W) into y (N, F, P, Q), both float32 and contiguous."""
        N = len(x)
        together = self.images_together(N)
        if together:
            self._run(self.images, x, y, 0, together, relu)
        if together < N:
            self._run(self.pixels, x, y, together, N - together, relu)

    def images_together(self, N: int) -> int:
        """How many of N images run with images in the lanes, from shapes alone."""
        block, single = self._cost(self.images), self._cost(self.pixels)
        whole, rest = divmod(N, self.lanes)
        together = whole * self.lanes if block < self.lanes * single else 0
        return N if block < rest * single else together

    def _cost(self, layout: Layout) -> float:
        """Cycles of a non-zero for what lies in the lanes: fused multiply-adds, and two loads."""
        tile = layout.tile
        vector = tile.lanes / self.lanes  # half vectors take half the time
        one = (tile.rows * tile.width + 1.5) * vector * len(layout.rows) * len(layout.columns)
        return one * IMAGES_PENALTY if tile.images else one

    def _run(self, layout: Layout, x, y, first: int, count: int, relu: bool) -> None:
        tile = layout.tile
        packed = self._packed.get(tile.images)
        if packed is None:
            packed = self._packed[tile.images] = Packed(self.shape, layout, *self.csr)
        compiled = sparse_tile.compiled(tile)
        copy = planes.compiled(planes.Copy(tile.lanes, tile.images))
        s = self.shape
        geometry = Planes(
            s.channels, *s.size, *s.stride, packed.plane_rows, layout.pitch, packed.top, layout.lead
        )
        threads = get_num_threads()
        element = tile.lanes if tile.images else 1
        units = -(-count // element)
        image_size = len(packed.slots) * packed.plane_rows * layout.pitch * element
        buffer = aligned_scratch("planes", min(units, threads) * image_size, np.float32)
        chunk = max(1, min(s.filters // s.groups, SUM_BYTES // tile.nbytes))
        sums = aligned_scratch("sums", threads * chunk * tile.nbytes // 4, np.float32)
        _convolve(
            x.reshape(-1), y.reshape(-1), self.bias,
            (units, first, count, element, s.filters, s.groups, *s.output),
            geometry,
            (copy.address, compiled.address, tile.nbytes, element),
            layout.columns, layout.rows,
            (packed.entries, packed.starts, packed.slots, packed.group_slot, packed.line, packed.blocks, packed.lists, chunk),
            threads,
            (buffer, sums, _ZEROS),
            LAST | (RELU if relu else 0),
        )


#: How much slower a fused multiply-add is with images in the lanes: planes are larger, so that a
#: block holds fewer channels, and both layouts change.
IMAGES_PENALTY = 1.2

#: What the first channel block adds to: as much as the largest tile holds.
_ZEROS = np.zeros(32 * 16 + 16, np.float32)
_ZEROS = _ZEROS[-_ZEROS.ctypes.data % 64 // 4 :][: 32 * 16]
