"""DIRECT_SCONV: single weights times the image, without lowering (SkimCaffe's direct convolution).

Lowering copies each pixel kh * kw times, and a sparse product then reads most of those copies only
a few times. Here a non-zero weight w[f, c, r, q] is an offset into the image: it adds w times the
image of channel c, moved by (r, q), to the output of filter f.
"""

from __future__ import annotations

from typing import Any

from minissl.conv_modes.lowered_csrmm import LoweredCsrmm
from minissl.conv_modes.micro import micro_kernel
from minissl.conv_modes.shape import ConvShape


class DirectSconv(LoweredCsrmm):
    """Only the non-zero weights are stored and multiplied, where they apply.

    The weights are those of :class:`minissl.conv_modes.lowered_csrmm.LoweredCsrmm`. ``fast`` is the
    register-blocked kernel, prepared for them; None where the plain one must do.
    """

    has_stages = False

    def __init__(self, shape: ConvShape, w: Any, b: Any, kernels: Any):
        super().__init__(shape, w, b, kernels)
        self.fast = micro_kernel(
            kernels, "sparse_convolution", shape, self.values, self.columns, self.row_start, self.b
        )

    def forward(self, x: Any, y: Any, relu: bool = False, **_stages: int) -> None:
        """Convolve x into y, rectified if asked."""
        if self.fast is not None:
            self.fast.run(x, y, relu)
            return
        self.kernels.conv_sconv(
            x,
            self.values,
            self.columns,
            self.row_start,
            self.b,
            *self.shape.geometry,
            self.shape.groups,
            y,
            relu,
        )

    def images_per_chunk(self, N: int) -> int:
        """Return how many images are computed together: those that share vectors."""
        return self.fast.images_per_chunk(N) if self.fast is not None else 1

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as they were packed, and of their copies for the fast kernel."""
        return super().nbytes + (self.fast.nbytes if self.fast is not None else 0)
