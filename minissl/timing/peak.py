"""How many operations a second this machine reaches in dense products.

Not the figure of a data sheet, but what the BLAS that this program calls reaches here and now, with
as many threads: every thread multiplies a 512 x 512 matrix by a 512 x 256 one, which is the product
of a 1 x 1 convolution of one image (:mod:`minissl.kernels.cpu.convolution`). It is multiplied over
and over for a short while before the rounds and again after them; the fastest counts, since others
can only slow it down.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from minissl import backend as backends

#: the matrices, (FILTERS, CHANNELS) and (CHANNELS, PIXELS)
FILTERS, CHANNELS, PIXELS = 512, 512, 256
SIZES = f"{FILTERS} x {CHANNELS} times {CHANNELS} x {PIXELS}"
#: seconds, each time
WHILE = 0.05


class Peak:
    """The rate of dense products, measured whenever :meth:`measure` is called.

    Parameters
    ----------
    kernels : module
        Backend that multiplies.
    dtype : data type
    """

    def __init__(self, kernels: Any, dtype: Any):
        xp = kernels.xp
        is_numba = backends.name_of(kernels) == "numba"
        self.kernels = kernels
        self.images = backends.threads() if is_numba else 1
        rng = np.random.default_rng(0)
        self.x = xp.asarray(rng.random((self.images, CHANNELS, 1, PIXELS)).astype(dtype))
        self.w = xp.asarray(rng.random((FILTERS, CHANNELS, 1, 1)).astype(dtype))
        self.b = xp.zeros(FILTERS, self.x.dtype)
        self.y = xp.empty((self.images, FILTERS, 1, PIXELS), self.x.dtype)
        self.product_alone: dict[str, int] = {}
        self.seconds = float("inf")
        if is_numba:
            from minissl.kernels.cpu.stages import MULTIPLY

            self.product_alone = {"stages": MULTIPLY}

    def measure(self) -> None:
        """Multiply for a while; the first time lowers as well, and warms up."""
        self._multiply()
        first = time.perf_counter()
        now = first
        while now == first or now < first + WHILE:
            start = now
            self._multiply(**self.product_alone)
            now = time.perf_counter()
            self.seconds = min(self.seconds, now - start)

    def _multiply(self, **stages: int) -> None:
        one, none = (1, 1), (0, 0)
        self.kernels.conv_forward(self.x, self.w, self.b, one, none, one, 1, self.y, **stages)

    @property
    def gflops(self) -> float:
        """The best rate so far, in 1e9 operations a second (2 for a multiply-add)."""
        return 2 * self.images * FILTERS * CHANNELS * PIXELS / self.seconds / 1e9
