r"""Cost of inner products (:mod:`minissl.conv_modes.inner_product`), N images, K inputs, F outputs.

A dense product divides its outputs into blocks that threads own; for few images its time is that
of reading the weights, from the nearest cache that holds them::

    N F K [product]  +  F K [product_l2, _l3 or _memory]  +  N K F/block [product_input]   N > 1
                        F K [vector_l2, _l3 or _memory]                                     N = 1

Kept rows and columns (CCNMM) gather N K' inputs and scatter N F' outputs besides.
Compressed rows gather one input for each non-zero (few images), or move all inputs into panels, in
which the images of a batch are the pixels of a sparse direct tile (:mod:`.direct`).
"""

from __future__ import annotations

import numpy as np

from minissl.conv_modes.cost.lowered import panel_columns, rows_times_panels
from minissl.conv_modes.cost.work import (
    L3_BYTES,
    SMALL_GEMM,
    SMALL_OUTPUTS,
    Amounts,
    Work,
    ceil_div,
    is_near,
)
from minissl.conv_modes.inner_product import SLAB
from minissl.conv_modes.shape import ConvShape
from minissl.kernels.cpu.inner_product import block_rows
from minissl.kernels.cpu.micro.batch_product import panel_images
from minissl.kernels.cpu.micro.isa import Isa, chosen
from minissl.kernels.cpu.micro.sparse_layout import channel_blocks, pixel_layout
from minissl.kernels.cpu.micro.sparse_tile import ENTRY as PACKED_BYTES
from minissl.kernels.cpu.sparse_product import FEW, PANEL_BYTES, WIDE

#: bytes of a non-zero: its value, and its column in 16 bits
ENTRY_BYTES = 6


def gemm(work: Work) -> Amounts:
    """Cost of GEMM."""
    return _dense(work, work.shape.filters, work.shape.columns)


def _dense(work: Work, F: int, K: int) -> Amounts:
    block = block_rows(F)
    outputs = min(F, work.busiest(ceil_div(F, block)) * block)  # of the busiest thread
    where = _level(F * K * work.itemsize, work.threads)
    amounts: Amounts = {
        "call": 1,
        "product_call": work.busiest(ceil_div(F, block)),
        "product_write": work.images * outputs,
    }
    if work.images == 1:
        return {**amounts, f"vector_{where}": outputs * K}
    of_block = work.images * min(F, block)
    if of_block * K <= SMALL_GEMM and of_block <= SMALL_OUTPUTS:
        return {**amounts, "product_small": work.images * outputs * K}
    amounts["product_input"] = amounts["product_call"] * work.images * K
    return {**amounts, "product": work.images * outputs * K, f"product_{where}": outputs * K}


def _level(size: float, threads: int) -> str:
    """Return the nearest cache of all threads that holds some bytes."""
    return "l2" if is_near(size / threads) else "l3" if size <= L3_BYTES else "memory"


def ccnmm(work: Work) -> Amounts:
    """Cost of CCNMM: a smaller dense product, between a gathering and a scattering."""
    (F,), (K,), N = work.rows, work.columns, work.images
    moved = N * work.shape.filters
    if F == 0 or K == 0:
        return {"squeeze_call": 1, "take": moved}
    if work.shape.columns > K:
        moved += N * K
    if work.shape.filters > F:
        moved += 2 * N * F
    return {**_dense(work, F, K), "squeeze_call": 1, "take": moved}


def spmdm(work: Work) -> Amounts:
    """Cost of SPMDM: slab after slab of columns, the non-zeros of each on all threads."""
    F, K = work.shape.filters, work.shape.columns
    N, T = work.images, work.threads
    isa = chosen() if work.itemsize == np.dtype(np.float32).itemsize else None
    if isa is not None and N >= FEW:
        return _tile_of_batch(isa, work)
    slabs = ceil_div(K, SLAB)
    far = 0 if is_near(work.nonzeros * ENTRY_BYTES / T) else work.nonzeros / T
    amounts: Amounts = {"call": 1, "take": 2 * N * F * (slabs - 1)}
    if N < FEW:
        amounts["region"] = slabs - 1
        amounts["dot"] = work.nonzeros * N / T
        amounts["dot_row"] = F * N * slabs / T
        amounts["dot_far"] = far
        return amounts
    wave = WIDE * max(1, PANEL_BYTES // max(1, min(K, SLAB) * WIDE * work.itemsize))
    wide = panel_columns(N)
    amounts["region"] = 2 * slabs * ceil_div(N, wave) - 1
    amounts["spread"] = K * wide / T
    amounts["csr_far"] = far
    amounts["product_write"] = slabs * N * F / T
    return {**amounts, **rows_times_panels(work, wide, slabs * ceil_div(N, WIDE))}


def _tile_of_batch(isa: Isa, work: Work) -> Amounts:
    """Count what :mod:`minissl.kernels.cpu.micro.batch_product` does, and no slabs."""
    F, K = work.shape.filters, work.shape.columns
    N, T = work.images, work.threads
    width = panel_images(N, isa.lanes)
    count = ceil_div(N, width)
    shape = ConvShape(K, (1, width), F, (1, 1))
    layout = pixel_layout(isa, shape)
    assert layout is not None, "a kernel of one pixel moves nothing"
    tile, passes = layout.tile, count * len(layout.columns) / T
    vectors = tile.width * tile.lanes / isa.lanes
    blocks = channel_blocks(shape, layout, max(1, *work.channels))
    far = not is_near(work.nonzeros * PACKED_BYTES / T)
    return {
        "call": 1,
        "region": 1,
        "sparse_call": 1,
        "sparse": work.nonzeros * vectors * passes,
        "sparse_entry": work.nonzeros * passes,
        "sparse_visit": F * blocks * vectors * passes,
        "csr_far": far * work.nonzeros * passes,
        "spread": sum(work.channels) * width * count / T,
        "product_write": N * F / T,
    }
