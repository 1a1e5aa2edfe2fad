"""DIRECT_DCONV: every weight times the image, without lowering; DIRECT_SCONV's dense sister."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.conv_modes.micro import every_weight, micro_kernel
from minissl.conv_modes.shape import ConvShape

#: Below this share of useful lanes (few filters in a conv group) pixels share a vector instead.
LEAST_EFFICIENCY = 0.5


class DirectDconv:
    """The dense convolution by direct tiles, any stride, pad, dilation and number of groups."""

    has_stages = False

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        self.shape, self.w, self.kernels = shape, w, kernels
        self.b = kernels.xp.zeros(shape.filters, w.dtype) if b is None else b
        self.every: Any = None  # the weights as compressed rows, where no fast kernel takes them
        G, rows, columns = shape.groups, shape.rows, shape.columns
        self.fast = micro_kernel(
            kernels,
            "dense_convolution",
            shape,
            w.reshape(-1),
            np.arange(shape.filters),
            np.arange(G + 1) * rows,
            np.tile(np.arange(columns), G),
            np.arange(G + 1) * columns,
            self.b,
        )
        if self.fast is not None and self.fast.efficiency < LEAST_EFFICIENCY:
            weights = every_weight(shape, w)
            sparse = micro_kernel(kernels, "sparse_convolution", shape, *weights, self.b)
            self.fast = sparse or self.fast

    def forward(self, x: Any, y: Any, relu: bool = False, **_stages: int) -> None:
        """Convolve x into y, rectified if asked."""
        if self.fast is not None:
            self.fast.run(x, y, relu)
            return
        if self.every is None:
            self.every = [self.kernels.xp.asarray(a) for a in every_weight(self.shape, self.w)]
        geometry, groups = self.shape.geometry, self.shape.groups
        self.kernels.conv_sconv(x, *self.every, self.b, *geometry, groups, y, relu)

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are computed together: those that share vectors."""
        return self.fast.images_per_chunk(N) if self.fast is not None else 1

    def dense(self) -> Any:
        """Return the weights (F, C/G, kh, kw)."""
        return self.w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: every weight."""
        return int(self.w.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, and of their copy for the fast kernel."""
        return int(self.w.nbytes) + (self.fast.nbytes if self.fast is not None else 0)
