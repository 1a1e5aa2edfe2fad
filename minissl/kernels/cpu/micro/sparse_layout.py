"""How the outputs of a sparse direct convolution lie in vectors, and what each way costs.

Pixels of a row or the same pixel of several images share a vector (:class:`Layout`). Which is
better depends on the geometry, the number of non-zeros and the number of images; the costs here are
cycles, good enough to choose by (see :mod:`minissl.kernels.cpu.micro.sparse`, which runs them).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minissl.kernels.cpu.micro import planes
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.sparse_tile import SparseTile
from minissl.kernels.cpu.micro.tiles import one_row

#: Bytes of the planes of a channel block that a tile reads. A first-level cache has 32 or 48 KB; a
#: block half as large again costs some loads from the second level, and saves passes over the sums.
PLANE_BYTES = 48 * 1024
#: The same for vectors of half a cache line, of which two a cycle come from the first level.
SHORT_PLANE_BYTES = 24 * 1024
#: Bytes of all planes that offsets of 32 bits reach.
MOST_BYTES = 2**31 - 2**20
#: Planes of several images may take so much where those of one would do; no cache holds more.
WORTHWHILE_BYTES = 2**26
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


def pixel_layout(isa: Isa, shape: Any) -> Layout | None:
    """Lay pixels in the lanes, as is best for vectors of this length; maybe None."""
    short = 2 * isa.lanes * 4 <= CACHE_LINE
    return over_moved_pixels(isa, shape) if short else over_pixels(isa, shape)


def layouts(isa: Isa, shape: Any) -> list[Layout]:
    """Return the layouts that can run a layer, pixels in the lanes first; maybe none."""
    shape = one_row(shape)
    pixels, images = pixel_layout(isa, shape), over_images(isa, shape)
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
