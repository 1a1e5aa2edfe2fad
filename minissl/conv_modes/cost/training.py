r"""Cost of the three passes of a convolution that is trained, by lowering and by register tiles.

Lowering takes, forward, what LOWERED_GEMM takes; backward each chunk gathers d_y besides, and

* for the gradient of the weights adds a matrix of the weights' size,
* for that of the input raises the lowered matrix, reading and writing: two units for each number.

The direct passes (:mod:`minissl.kernels.cpu.micro.correlation`, ``.weight_gradient``) count their
own vector operations, N images on T threads::

    vector operations of an image x N / T  [tile]

Where only living filters and channels are computed, these are copied: the input, forward and once
more for the gradient of the weights, and d_x; the output, and d_y for both gradients [write].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.conv_modes.cost import lowered
from minissl.conv_modes.cost.work import Amounts, Work, ceil_div, is_near
from minissl.conv_modes.shape import ConvShape


def dense(shape: ConvShape, images: int, itemsize: int) -> Work:
    """Return the work of all weights, on one thread."""
    return Work(
        shape,
        images,
        1,
        np.full(shape.filters, shape.columns),
        (shape.rows,) * shape.groups,
        (shape.columns,) * shape.groups,
        (shape.channels // shape.groups,) * shape.groups,
        itemsize,
    )


def lowered_pass(name: str, work: Work) -> Amounts:
    """Cost of a pass by lowering, of the rows and columns that are kept.

    Parameters
    ----------
    name : {"forward", "weights", "input"}
    """
    amounts = lowered.ccnmm(work)
    if name == "forward":
        return amounts
    K = ceil_div(sum(work.columns), work.shape.groups)
    if name == "weights":
        B = lowered.images_per_chunk(work.images, K, work.pixels, work.itemsize)
        matrices = sum(
            rows * columns for rows, columns in zip(work.rows, work.columns, strict=True)
        )
        amounts["write"] += matrices * ceil_div(work.images, B)
        return amounts
    term = "lower" if is_near(K * work.pixels * work.itemsize) else "lower_far"
    amounts[term] = amounts.get(term, 0) + sum(work.columns) * work.pixels * work.images
    return amounts


def direct_pass(kernel: Any, work: Work) -> Amounts:
    """Cost of a pass by direct or Winograd's tiles, which count their vector operations."""
    return {"call": 1, "region": 1, "tile": kernel.cost() * work.busiest(work.images)}


def channel_copies(whole: ConvShape, narrow: ConvShape, images: int) -> Amounts:
    """Cost of bringing living channels together, and outputs and d_x to their places."""
    moved = 0
    for all_of_them, kept, (height, width) in (
        (whole.channels, narrow.channels, whole.size),
        (whole.filters, narrow.filters, whole.output),
    ):
        if kept < all_of_them:
            moved += (2 * kept + all_of_them) * height * width
    return {"region": 3, "write": images * moved}
