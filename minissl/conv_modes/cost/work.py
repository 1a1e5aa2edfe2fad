"""What the cost functions know of a layer, its weights, and how it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.shape import ConvShape
from minissl.machine.caches import second_level_bytes

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

    def far(self, term: str, channels: int) -> Amounts:
        """Count what is read and written, where images and outputs are beyond the L2 caches."""
        s = self.shape
        H, W = s.size
        images = self.images / self.threads  # of each thread
        whole = images * (s.channels * H * W + s.filters * self.pixels)
        used = images * (channels * H * W + s.filters * self.pixels)
        return {} if is_near(whole * self.itemsize) else {term: used}

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
    """Whether some bytes stay in the second-level cache of a core."""
    return size <= L2_BYTES


#: Bytes of caches, the second level as this machine has it, and how many rows and columns of C a
#: register tile of GEMM holds.
L1_BYTES, L2_BYTES, L3_BYTES = 32 * 1024, second_level_bytes(), 24 * 1024 * 1024
GEMM_ROWS, GEMM_COLUMNS = 4, 16
#: OpenBLAS packs nothing for products of up to so many multiply-adds; with transposed weights, as
#: inner products have them, only where there are no more than so many outputs.
SMALL_GEMM, SMALL_OUTPUTS = 1_000_000, 1200
