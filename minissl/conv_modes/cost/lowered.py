r"""Cost of the convolutions by lowering (:mod:`minissl.kernels.cpu.convolution` and below).

N images are taken in chunks of B, each lowered to a matrix of K rows and n = B P Q columns, one
for each of G conv groups, and multiplied. GEMM, per chunk and group::

    [gemm_call]  +  F/G K n [gemm]  +  F/G K [gemm_weight]  +  K n [lower]  +  F/G n [write]

Kept rows and columns (CCNMM) have the same terms with fewer rows and columns; threads take whole
chunks. Compressed rows run chunk after chunk, each on all threads: nnz n [csr], and as much again
for moving the lowered matrix into panels.
"""

from __future__ import annotations

from collections.abc import Sequence

from minissl.conv_modes.cost.work import (
    GEMM_COLUMNS,
    GEMM_ROWS,
    L1_BYTES,
    SMALL_GEMM,
    Amounts,
    Work,
    ceil_div,
    is_near,
    padded,
)
from minissl.kernels.cpu.convolution import images_per_chunk
from minissl.kernels.cpu.sparse_product import HALF, NARROW, PANEL_BYTES, TASKS, WIDE


def gemm(work: Work) -> Amounts:
    """Cost of LOWERED_GEMM: every row and every column."""
    s = work.shape
    B = images_per_chunk(work.images, s.columns, work.pixels, work.itemsize)
    return _dense(work, B, [s.rows] * s.groups, [s.columns] * s.groups)


def ccnmm(work: Work) -> Amounts:
    """Cost of LOWERED_CCNMM: kept rows and columns; removed filters only write their bias."""
    per_group = ceil_div(sum(work.columns), work.shape.groups)
    B = images_per_chunk(work.images, per_group, work.pixels, work.itemsize)
    return _dense(work, B, work.rows, work.columns)


def _dense(work: Work, B: int, rows: Sequence[int], columns: Sequence[int]) -> Amounts:
    """Lower and multiply by GEMM, a chunk of B images per task."""
    chunks = work.busiest(ceil_div(work.images, B))
    images = min(work.images, chunks * B)  # of the busiest thread
    n = images * work.pixels
    amounts = Amounts(call=1, gemm_call=0, gemm=0, gemm_small=0, gemm_weight=0, gemm_pack=0)
    amounts.update(work.far("lower_blob", sum(work.channels)))
    lowered = 0
    for kept, K in zip(rows, columns, strict=True):
        if kept == 0 or K == 0:
            continue
        amounts["gemm_call"] += chunks
        lowered += K * n
        if kept * K * min(B, work.images) * work.pixels <= SMALL_GEMM:  # of a whole chunk
            amounts["gemm_small"] += kept * K * n
            continue
        width = chunks * padded(ceil_div(n, chunks), GEMM_COLUMNS)
        amounts["gemm"] += padded(kept, GEMM_ROWS) * K * width
        amounts["gemm_weight"] += chunks * kept * K
        amounts["gemm_pack"] += K * n
    matrix = max(columns) * min(B, work.images) * work.pixels * work.itemsize
    amounts["lower" if is_near(matrix) else "lower_far"] = lowered
    amounts.update(_runs(work, lowered, "lower_strided"))
    amounts["write"] = work.shape.filters * n
    return amounts


def _runs(work: Work, lowered: float, strided_term: str) -> Amounts:
    """Count the runs of pixels that are lowered, and what their stride costs."""
    strided = work.shape.stride[1] > 1
    return {
        "lower_row": lowered / work.shape.output[1],
        strided_term: lowered if strided else 0,
    }


def panel_columns(n: int) -> int:
    """Columns of the panels that n columns take, each as wide as the kernel makes it."""
    whole, rest = divmod(n, WIDE)
    last = 0 if rest == 0 else next(w for w in (NARROW, HALF, WIDE) if rest <= w)
    return whole * WIDE + last


def rows_times_panels(work: Work, columns: int, panels: int) -> Amounts:
    """Count what compressed rows cost that are multiplied by panels, of some columns in all."""
    T = work.threads
    panel = work.shape.columns * min(columns // panels, WIDE) * work.itemsize
    return {
        "csr_l1" if panel <= L1_BYTES else "csr": work.nonzeros * columns / T,
        "csr_entry": work.nonzeros * panels / T,
        "csr_single": int((work.row_nonzeros % 8).sum()) * panels / T,
        "csr_row": work.shape.filters * panels / T,
    }


def csrmm(work: Work) -> Amounts:
    """Cost of LOWERED_CSRMM: lowering into panels, and every non-zero times each panel."""
    s = work.shape
    K, T = s.columns, work.threads
    B = max(1, min(work.images, PANEL_BYTES // max(1, K * work.pixels * work.itemsize)))
    chunks = ceil_div(work.images, B)
    n = work.images * work.pixels
    per_chunk = ceil_div(n, chunks)
    wide = chunks * panel_columns(per_chunk)  # columns, with what fills up the panels
    panels = ceil_div(per_chunk, WIDE)
    tasks = chunks * s.groups * panels * ceil_div(TASKS, panels)
    moved = s.groups * K * n / T
    return {
        **work.far("lower_blob", s.channels),
        "call": 1,
        "region": 2 * chunks * s.groups,
        "panel" if is_near(K * per_chunk * work.itemsize) else "panel_far": moved,
        **_runs(work, moved, "panel_strided"),
        **rows_times_panels(work, wide, panels * chunks),
        "csr_task": tasks / T,
        "write": s.filters * n / T,
    }
