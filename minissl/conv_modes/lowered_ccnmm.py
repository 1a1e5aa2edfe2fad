r"""LOWERED_CCNMM: concatenate the non-zero rows and columns, then multiply densely.

Group lasso leaves whole rows (filters) and columns (shape fibres) of the weight matrix at zero::

        W  (F/G x K)                 packed               lowered image
    [ a . b . . c ]               [ a b c ]          kept columns only,
    [ . . . . . . ]     ->        [ d e f ]    @     (3 x P*Q) here
    [ d . e . . f ]                                 ->  rows 0 and 2 of the output

Only the kept columns are ever lowered, the product is a small dense GEMM, and its rows are
scattered to their places. Removed filters give their bias.

At inference the packed matrix is multiplied by direct register tiles where these are faster, and
then nothing is lowered at all: the kept columns are read from the image where they lie.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.micro import micro_kernel
from minissl.conv_modes.shape import ConvShape

#: Direct tiles waste lanes where a conv group keeps few filters: below this share of useful ones
#: lowering and GEMM are faster.
LEAST_EFFICIENCY = 0.15


class LoweredCcnmm:
    """The kept rows and columns of every conv group, packed one after the other.

    ``values`` holds the packed matrices; group g keeps the filters
    ``rows[row_start[g]:row_start[g + 1]]`` (counted over all filters) and the columns
    ``columns[column_start[g]:column_start[g + 1]]`` (counted within the group). The two lists rise
    within a group. Where groups begin is known to the host, whatever the backend. ``fast`` holds
    direct tiles where they are used.
    """

    has_stages = True
    fast: Any = None

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        self.shape, self.kernels = shape, kernels
        xp = kernels.xp
        rows, columns = [], []
        for g, band in enumerate(shape.bands(to_host(w))):  # (F/G, K)
            kept_rows = np.flatnonzero(band.any(axis=1))
            kept_columns = np.flatnonzero(band.any(axis=0))
            rows.append(kept_rows + g * shape.rows)
            columns.append(kept_columns)
        every_row, self.row_start = _concatenate(rows)
        every_column, self.column_start = _concatenate(columns)
        self.rows, self.columns = xp.asarray(every_row), xp.asarray(every_column)
        self.values = w.reshape(-1)[self._positions()]
        self.b = xp.zeros(shape.filters, self.values.dtype) if b is None else b

    @classmethod
    def for_inference(cls, shape: ConvShape, w: Any, b: Any, kernels: Any) -> LoweredCcnmm:
        """Pack weights that will not change, for direct tiles where these are faster."""
        packed = cls(shape, w, b, kernels)
        values, structure = packed.values, packed.structure
        fast = micro_kernel(kernels, "dense_convolution", shape, values, *structure, packed.b)
        if fast is not None and fast.efficiency >= LEAST_EFFICIENCY:
            packed.fast = fast
        return packed

    @property
    def structure(self) -> tuple[Any, Any, Any, Any]:
        """Rows and columns, as the kernels take them."""
        return self.rows, self.row_start, self.columns, self.column_start

    def forward(self, x: Any, y: Any, relu: bool = False, **stages: int) -> None:
        """Convolve x into y, rectified if asked; ``stages`` restricts the work for timing.

        The stages are those of the lowered form, also where direct tiles run.
        """
        if self.fast is not None and not stages:
            self.fast.run(x, y, relu)
            return
        geometry = self.shape.geometry
        self.kernels.conv_ccnmm(
            x, self.values, *self.structure, self.b, *geometry, y, relu, **stages
        )

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are lowered together, from the columns that are kept."""
        if self.fast is not None:
            return self.fast.images_per_chunk(N)
        columns = -(-len(self.columns) // self.shape.groups)
        pixels = prod(self.shape.output)
        return self.kernels.images_per_chunk(N, columns, pixels, self.b.itemsize)

    def backward_weights(self, x: Any, d_y: Any, d_w: Any) -> None:
        """Add the gradient of what is kept to d_w (F, C/G, kh, kw); the rest gets none."""
        d_values = self.kernels.xp.empty_like(self.values)
        self.kernels.conv_ccnmm_backward_weights(
            x, d_y, *self.structure, *self.shape.geometry, d_values
        )
        d_w.reshape(-1)[self.positions] += d_values

    def backward_input(self, d_y: Any, d_x: Any) -> None:
        """Compute d_x from d_y."""
        self.kernels.conv_ccnmm_backward_input(
            d_y, self.values, *self.structure, *self.shape.geometry, d_x
        )

    def pack(self, w: Any, b: Any) -> None:
        """Take the values of other weights (F, C/G, kh, kw) and biases, of the same structure."""
        self.fast = None
        self.values = w.reshape(-1)[self.positions]
        if b is not None:
            self.b = b

    @cached_property
    def positions(self) -> Any:
        """Where each value stands in the weights."""
        return self._positions()

    def _positions(self) -> Any:
        rows, columns = (to_host(index) for index in (self.rows, self.columns))
        found = []
        for g in range(self.shape.groups):
            kept_rows = rows[self.row_start[g] : self.row_start[g + 1]]
            kept_columns = columns[self.column_start[g] : self.column_start[g + 1]]
            found.append((kept_rows[:, None] * self.shape.columns + kept_columns).reshape(-1))
        return self.kernels.xp.asarray(np.concatenate(found))

    def dense(self) -> np.ndarray:
        """Return the weights (F, C/G, kh, kw)."""
        values = to_host(self.values)
        w = np.zeros(self.shape.weight_shape, values.dtype)
        w.reshape(-1)[to_host(self._positions())] = values
        return w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: kept rows times kept columns, summed over groups."""
        return int(self.values.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrices and their indices, and of their copy for direct tiles."""
        copy = self.fast.nbytes if self.fast is not None else 0
        return int(self.values.nbytes + self.rows.nbytes + self.columns.nbytes) + copy


def _concatenate(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join index lists; the second array says where each begins and the last ends."""
    starts = np.concatenate([[0], np.cumsum([part.size for part in parts])])
    return np.concatenate(parts).astype(np.int64), starts.astype(np.int64)
