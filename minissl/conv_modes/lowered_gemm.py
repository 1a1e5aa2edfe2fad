"""LOWERED_GEMM: the dense product, the baseline every other mode is measured against."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.conv_modes.shape import ConvShape


class LoweredGemm:
    """Y[g] = W[g] @ im2col(X[g]) + b."""

    has_stages = True

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        self.shape, self.w, self.b, self.kernels = shape, w, b, kernels

    def forward(self, x: Any, y: Any, relu: bool = False, **stages: int) -> None:
        """Convolve x into y, rectified if asked; ``stages`` restricts the work for timing."""
        s = self.shape
        self.kernels.conv_forward(
            x, self.w, self.b, s.stride, s.pad, s.dilation, s.groups, y, relu, **stages
        )

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are lowered together."""
        pixels = prod(self.shape.output)
        return self.kernels.images_per_chunk(N, self.shape.columns, pixels, self.w.itemsize)

    def dense(self) -> Any:
        """Return the weights (F, C/G, kh, kw)."""
        return self.w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: every weight."""
        return int(self.w.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return int(self.w.nbytes)
