"""WINOGRAD: 3 x 3 and 5 x 5 weights by sums of weights times sums of pixels.

The formula, :mod:`minissl.kernels.winograd`, needs a quarter of the multiplications of 3 x 3
weights and 9 of 25 of 5 x 5 weights, whatever is zero. Its outputs are right to about 5e-6 of the
largest one in float32 (1e-5 with 300 channels), where the other modes are right to 1e-6.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from minissl.conv_modes.micro import micro_kernel
from minissl.conv_modes.shape import ConvShape
from minissl.errors import ConfigError
from minissl.kernels.winograd import Winograd, conv_winograd, covers


def why_not(shape: ConvShape, kernels: Any) -> str | None:
    """Return why a layer cannot run in this mode, in a few words; None where it can."""
    if not covers(shape):
        return (
            "conv_mode WINOGRAD is for 3 x 3 and 5 x 5 weights with stride 1, dilation 1, one conv "
            "group and a pad below the kernel's size; choose another mode, or AUTO"
        )
    if kernels.xp is not np:
        return "conv_mode WINOGRAD runs on the CPU only; choose another mode, or AUTO"
    return None


class WinogradMode:
    """The dense convolution in fewer multiplications.

    Raises
    ------
    ConfigError
        For a geometry that the formula does not cover, and on a GPU.
    """

    has_stages = False

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        reason = why_not(shape, kernels)
        if reason:
            raise ConfigError(reason)
        self.shape, self.w, self.b, self.kernels = shape, w, b, kernels
        self.fast = self._kernel(rectifies=False)
        self.transformed = None if self.fast is None else self.fast.packed(w)

    def _kernel(self, rectifies: bool) -> Any:
        return micro_kernel(
            self.kernels, "winograd_convolution", self.shape, self.w.dtype, rectifies
        )

    @cached_property
    def _rectifying(self) -> Any:
        return self._kernel(rectifies=True)

    def forward(self, x: Any, y: Any, relu: bool = False, **_stages: int) -> None:
        """Convolve x into y, rectified if asked."""
        if self.fast is not None:
            kernel = self._rectifying if relu else self.fast
            kernel.run_packed(x, self.transformed, self.b, y)
            return
        conv_winograd(x, self.w, self.b, self.shape.pad, y)
        if relu:
            self.kernels.relu_forward(y, 0.0, y)

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are multiplied together; each would give the same by itself."""
        return 1 if self.fast is None else min(N, self.fast.images)

    def dense(self) -> Any:
        """Return the weights (F, C, kh, kw)."""
        return self.w

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel: 36 for each tile of outputs, filter and channel."""
        s, (P, Q) = self.shape, self.shape.output
        of_each = Winograd(s.kernel[0]).multiplications((P, Q))
        return round(s.filters * s.channels * of_each / (P * Q))

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, and of what they are transformed to."""
        return int(self.w.nbytes) + (0 if self.transformed is None else self.transformed.nbytes)
