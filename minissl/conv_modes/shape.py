"""Geometry of one convolution, as the modes need it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minissl.backend import to_host
from minissl.kernels.geometry import convolution_output

Pair = tuple[int, int]


class ConvShape(NamedTuple):
    """C channels of H x W pixels, F filters of kh x kw, in ``groups`` conv groups."""

    channels: int
    size: Pair
    filters: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def columns(self) -> int:
        """K = C/G * kh * kw, the columns of the weight matrix."""
        return self.channels // self.groups * self.kernel[0] * self.kernel[1]

    @property
    def rows(self) -> int:
        """F/G, the rows of the weight matrix of one conv group."""
        return self.filters // self.groups

    @property
    def output(self) -> Pair:
        """(P, Q), the size of the output."""
        P, Q = (
            convolution_output(*axis)
            for axis in zip(
                self.size, self.kernel, self.stride, self.pad, self.dilation, strict=True
            )
        )
        return P, Q

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(F, C/G, kh, kw)."""
        return (self.filters, self.channels // self.groups, *self.kernel)

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, Pair]:
        """(kernel, stride, pad, dilation), in the order the lowering kernels take them."""
        return self.kernel, self.stride, self.pad, self.dilation

    def bands(self, w: Any) -> Any:
        """See the weights as (G, F/G, K): one matrix for each conv group."""
        return w.reshape(self.groups, self.rows, self.columns)

    def gather_columns(self, w: Any, kept: list[list[int]]) -> np.ndarray:
        """Keep only some columns of each group: (F, kept) for one group, else flat."""
        bands = self.bands(to_host(w))
        packed = [band[:, columns] for band, columns in zip(bands, kept, strict=True)]
        if self.groups == 1:
            return np.ascontiguousarray(packed[0])
        return np.concatenate([matrix.reshape(-1) for matrix in packed])

    def scatter_columns(self, packed: Any, kept: list[list[int]]) -> np.ndarray:
        """Undo :meth:`gather_columns`, with zeros in the dropped columns."""
        flat = to_host(packed).reshape(-1)
        w = np.zeros((self.groups, self.rows, self.columns), flat.dtype)
        start = 0
        for band, columns in zip(w, kept, strict=True):
            stop = start + self.rows * len(columns)
            band[:, columns] = flat[start:stop].reshape(self.rows, len(columns))
            start = stop
        return w.reshape(self.weight_shape)
