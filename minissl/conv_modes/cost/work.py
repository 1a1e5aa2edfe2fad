"""What the cost functions know of a layer, its weights, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.shape import ConvShape

#: term -> units on the busiest thread
Amounts = dict[str, float]


@dataclass(frozen=True, eq=False)
class Work:
    """A layer with its zeros, for a batch and a number of threads.

    Attributes
    ----------
    shape : ConvShape
        Of a convolution; an inner product of K inputs and F outputs is one of 1 x 1 pixel.
    images, threads : int
        N and T.
    row_nonzeros : (F,)
        Non-zeros of each filter.
    rows, columns : tuple of int
        Rows and columns of each conv group that are not zero as a whole.
    channels : tuple of int
        Input channels of each conv group that some weight reads.
    itemsize : int
        Bytes of a number.
    """

    shape: ConvShape
    images: int
    threads: int
    row_nonzeros: np.ndarray
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    channels: tuple[int, ...]
    itemsize: int = 4

    @classmethod
    def of(cls, shape: ConvShape, w: Any, images: int, threads: int) -> Work:
        """Count the zeros of weights (F, C/G, kh, kw)."""
        w = to_host(w)
        bands = shape.bands(w) != 0  # (G, F/G, K)
        per_row = np.count_nonzero(bands, axis=2)  # (G, F/G)
        columns = bands.any(axis=1)  # (G, K)
        channels = columns.reshape(shape.groups, shape.channels // shape.groups, -1).any(axis=2)
        return cls(
            shape,
            images,
            threads,
            per_row.reshape(-1),
            tuple(int(n) for n in np.count_nonzero(per_row, axis=1)),
            tuple(int(n) for n in np.count_nonzero(columns, axis=1)),
            tuple(int(n) for n in np.count_nonzero(channels, axis=1)),
            w.dtype.itemsize,
        )

    @property
    def pixels(self) -> int:
        """P * Q, the pixels of an output."""
        P, Q = self.shape.output
        return P * Q

    @property
    def nonzeros(self) -> int:
        """Weights that are not zero."""
        return int(self.row_nonzeros.sum())

    def busiest(self, tasks: int) -> int:
        """Return how many of some equal tasks the busiest thread has."""
        return ceil_div(tasks, self.threads)


def ceil_div(n: int, d: int) -> int:
    """Return n / d, rounded up."""
    return -(-n // d)


def padded(n: int, to: int) -> int:
    """Return n, rounded up to a multiple."""
    return ceil_div(n, to) * to


def is_near(size: float) -> bool:
    """Whether some bytes stay in a second-level cache, of which 1 MB is common."""
    return size <= L2_BYTES


#: Bytes of common caches, and how many rows and columns of C a register tile of GEMM holds.
L1_BYTES, L2_BYTES, L3_BYTES = 32 * 1024, 1024 * 1024, 24 * 1024 * 1024
GEMM_ROWS, GEMM_COLUMNS = 4, 16
#: OpenBLAS packs nothing for products of up to so many multiply-adds; with transposed weights, as
#: inner products have them, only where there are no more than so many outputs.
SMALL_GEMM, SMALL_OUTPUTS = 1_000_000, 1200
