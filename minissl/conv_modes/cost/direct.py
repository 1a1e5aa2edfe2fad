r"""Cost of the direct convolutions (:mod:`minissl.kernels.cpu.micro`), N images, T threads.

A dense tile keeps vectors of filters times pixels in registers, and takes as many vector
operations for a column as its own count says (:func:`minissl.kernels.cpu.micro.dense.column_cost`);
columns that lie in the padding are left out::

    (sum over tiles of columns x operations) x P N / T  [tile]  +  ends [tile_end, tile_walk]

A sparse tile meets every non-zero of a filter, with pixels or images in its lanes::

    nnz x vectors x tiles x N / T  [sparse]  +  nnz x tiles x N / T  [sparse_entry]  +  planes

where the planes that the tile reads are made first, and the sums of a filter are loaded and stored
once for each block of channels [sparse_visit], and put out at last [sparse_write].

Winograd's tiles count their own vector operations, transforms included, for units of a few images
or of a band of one::

    vector operations of an image x images of the busiest thread  [tile]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from minissl.conv_modes.cost import lowered
from minissl.conv_modes.cost.work import Amounts, Work, ceil_div
from minissl.conv_modes.direct_dconv import LEAST_EFFICIENCY as LEAST_DENSE
from minissl.conv_modes.lowered_ccnmm import LEAST_EFFICIENCY as LEAST_PACKED
from minissl.conv_modes.shape import ConvShape
from minissl.kernels.cpu import micro
from minissl.kernels.cpu.micro import sparse_layout
from minissl.kernels.cpu.micro.dense import best_tiling, block_kinds
from minissl.kernels.cpu.micro.isa import Isa, chosen
from minissl.kernels.cpu.micro.planes import extent
from minissl.kernels.cpu.micro.tiles import one_row
from minissl.kernels.cpu.micro.winograd import WinogradConvolution, applies


def ccnmm(work: Work) -> Amounts:
    """Cost of LOWERED_CCNMM: direct tiles of what is kept, or lowering where these waste."""
    isa = _vectors(work)
    if isa is None:
        return lowered.ccnmm(work)
    amounts, efficiency = _tiles(isa, work, work.rows, work.columns, work.channels)
    return amounts if efficiency >= LEAST_PACKED else lowered.ccnmm(work)


def dconv(work: Work) -> Amounts | None:
    """Cost of DIRECT_DCONV: tiles of all rows and columns, or sparse ones where these waste."""
    isa, s = _vectors(work), work.shape
    if isa is None:
        return None
    channels = [s.channels // s.groups] * s.groups
    every = [s.rows] * s.groups, [s.columns] * s.groups, channels
    amounts, efficiency = _tiles(isa, work, *every)
    if efficiency >= LEAST_DENSE:
        return amounts
    return _single_weights(isa, work, s.filters * s.columns, channels)


def sconv(work: Work) -> Amounts | None:
    """Cost of DIRECT_SCONV: every non-zero; None without vectors for it."""
    isa = _vectors(work)
    return isa and _single_weights(isa, work, work.nonzeros, work.channels)


def winograd(work: Work) -> Amounts | None:
    """Cost of WINOGRAD; None where the formula does not cover the layer, or without vectors."""
    isa, s = _vectors(work), work.shape
    if isa is None or not applies(isa, s):
        return None
    kernel = WinogradConvolution(isa, s, gradient=False)
    together, bands = kernel.unit
    busiest = work.busiest(ceil_div(work.images, together) * bands)
    images = min(work.images, busiest * together / bands)
    far = work.far("tile_blob", s.channels)
    return {**far, "call": 1, "region": 1, "tile": kernel.cost() * images}


def _vectors(work: Work) -> Isa | None:
    """Return the vectors that run the layer, None where the plain kernels must."""
    usable = micro.supports(work.shape, f"float{8 * work.itemsize}")
    return chosen() if usable else None


# --- dense tiles ---


def _tiles(
    isa: Isa, work: Work, rows: Sequence[int], columns: Sequence[int], channels: Sequence[int]
) -> tuple[Amounts, float]:
    """Count vector operations of dense tiles; return the share that is wanted as well."""
    s = one_row(work.shape)
    P, Q = s.output
    tiling = best_tiling(isa, list(rows), list(columns), Q)
    inner = tiling.cost - tiling.ends
    wanted = sum(row * column for row, column in zip(rows, columns, strict=True)) * Q / isa.lanes
    inside = _inside(s, 0) * _inside(s, 1)
    tiles = sum(
        len(list(pairwise(tiling.cuts[vectors])))
        for kept in rows
        for vectors in block_kinds(kept, tiling.vectors, isa.lanes)
    )
    lines = P * work.images / work.threads  # output rows
    removed = s.filters - sum(rows)
    amounts = {
        **work.far("tile_blob", sum(channels)),
        "call": 1,
        "region": 1,
        "tile": inner * inside * lines,
        "tile_end": tiling.ends * lines,
        "tile_walk": tiles * s.kernel[1] * lines,
        "write": removed * Q * lines,
    }
    return amounts, wanted / inner if wanted else 1.0


def _inside(shape: ConvShape, axis: int) -> float:
    """Return which share of kernel positions times outputs lies inside the image, along an axis."""
    size, length = shape.size[axis], shape.output[axis]
    kernel, stride = shape.kernel[axis], shape.stride[axis]
    pad, dilation = shape.pad[axis], shape.dilation[axis]
    count = sum(
        0 <= p * stride + r * dilation - pad < size for p in range(length) for r in range(kernel)
    )
    return count / (length * kernel)


# --- sparse tiles ---


def _single_weights(isa: Isa, work: Work, nonzeros: int, channels: Sequence[int]) -> Amounts:
    """Count what single weights cost, with pixels in the lanes and with images."""
    s = one_row(work.shape)
    phases = min(s.kernel[0], s.stride[0]) * min(s.kernel[1], s.stride[1])
    planes = [count * phases for count in channels]
    ways = sparse_layout.layouts(isa, s)
    layouts = {"images" if way.tile.images else "sparse": way for way in ways}
    blocks, cycles = {}, {}
    for name, layout in layouts.items():
        blocks[name] = sparse_layout.channel_blocks(s, layout, max(1, *planes))
        visits = blocks[name] * s.filters
        cycles[name] = sparse_layout.cycles(isa, layout, nonzeros, visits)
    N, T = work.images, work.threads
    first = sparse_layout.together(N, isa.lanes, cycles.get("sparse"), cycles.get("images"))
    units = {"images": ceil_div(first, isa.lanes), "sparse": N - first}
    amounts: Amounts = {**work.far("sparse_blob", sum(channels)), "call": 1}
    amounts["region"] = sum(0 < n < T for n in units.values())
    amounts["sparse_call"] = sum(n > 0 for n in units.values())
    for name, layout in layouts.items():
        if not units[name]:
            continue
        tile, passes = layout.tile, len(layout.rows) * len(layout.columns) * units[name] / T
        vectors = tile.rows * tile.width * tile.lanes / isa.lanes
        amounts[name] = nonzeros * vectors * passes
        amounts[f"{name}_entry"] = nonzeros * passes
        outputs = s.filters * vectors * passes
        amounts[f"{name}_visit"] = blocks[name] * outputs
        amounts[f"{name}_write"] = outputs
        size = extent(s)[1] * layout.pitch * layout.element
        amounts[f"{name}_plane"] = sum(planes) * size * units[name] / T
    return amounts
