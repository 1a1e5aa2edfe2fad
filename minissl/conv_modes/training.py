"""How a convolution that is trained runs: each of its three passes lowered, or by register tiles.

=========  ===================================================================
forward    y    = W * x + b
weights    d_w += d_y on x,    and with it  d_b += sum of d_y
input      d_x  = W^T * d_y
=========  ===================================================================

By lowering they are products of matrices (:mod:`minissl.kernels.cpu.convolution`), as the paper
describes them. Direct tiles compute the same sums in another order, Winograd's tiles a 3 x 3
or 5 x 5 convolution in fewer multiplications (:mod:`minissl.kernels.cpu.micro`). Which is faster
depends on the shape: the performance model behind ``conv_mode: AUTO`` says so, for each pass. It is
asked for one thread, so that the choice, and with it every rounding, does not depend on the number
of threads.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

import numpy as np

from minissl import machine as machines
from minissl.conv_modes.cost.training import dense, direct_pass, lowered_pass
from minissl.conv_modes.cost.work import Work
from minissl.conv_modes.shape import ConvShape

log = logging.getLogger("minissl")

LOWERED = "lowered"
PASSES = ("forward", "weights", "input")

#: Numbers in the vectors of the machine that the constants of an uncalibrated one come from.
DEFAULT_LANES = 16


class TrainedConvolution:
    """The three passes of one layer.

    Parameters
    ----------
    shape : ConvShape
        Geometry of the layer.
    images : int
        The batch the passes are chosen for; any other may be run.
    kernels : module
        Backend that executes them.
    dtype : numpy.dtype
        Of all arrays.
    lowers : bool
        Lower in every pass, whatever is faster.
    """

    def __init__(self, shape: ConvShape, images: int, kernels: Any, dtype: Any, lowers: bool):
        self.shape, self.images, self.kernels = shape, images, kernels
        self.dtype, self.lowers = np.dtype(dtype), lowers
        self.geometry = shape.stride, shape.pad, shape.dilation, shape.groups

    def _direct(self, name: str) -> Any:
        """Return the kernel of a pass that does not lower, None where lowering is faster."""
        micro = getattr(self.kernels, "micro", None)
        found = None if self.lowers or micro is None else self._tiles(micro, name)
        if found is None:
            return None
        seconds = self.predict(name, found)
        chosen = min(seconds, key=lambda way: seconds[way])
        log.debug("%s, %s: %s, predicted %s", self.shape, name, chosen, seconds)
        return None if chosen == LOWERED else found

    def _tiles(self, micro: Any, name: str) -> Any:
        return micro.training_pass(name, self.shape, self.dtype)

    def predict(self, name: str, kernel: Any) -> dict[str, float]:
        """Return the predicted seconds of a pass, on one thread, for both ways by their names."""
        machine, work = machines.current(), self._all_weights
        # GEMM has the same vectors as the tiles; constants of another machine are of its vectors
        share = 1.0 if machine.calibrated else kernel.lanes / DEFAULT_LANES
        return {
            LOWERED: machine.seconds(lowered_pass(name, work), 1),
            kernel.way: machine.seconds(direct_pass(kernel, work), 1) * share,
        }

    @property
    def _all_weights(self) -> Work:
        return dense(self.shape, self.images, self.dtype.itemsize)

    def seconds(self) -> float:
        """Return the predicted seconds of the three passes over all weights, on one thread."""
        return sum(self._pass_seconds(name) for name in PASSES)

    def packed_seconds(self, mask: Any) -> float:
        """Return the same where only kept rows and columns are lowered.

        Parameters
        ----------
        mask : (F, C/G, kh, kw)
            0 where a weight is frozen at zero.
        """
        kept = Work.of(self.shape, mask, self.images, 1)
        return sum(machines.current().seconds(lowered_pass(name, kept), 1) for name in PASSES)

    def _pass_seconds(self, name: str) -> float:
        kernel = getattr(self, f"direct_{name}")
        if kernel is None:
            return machines.current().seconds(lowered_pass(name, self._all_weights), 1)
        return self.predict(name, kernel)[kernel.way]

    @property
    def lowers_all(self) -> bool:
        """Whether every pass is lowered."""
        return set(self.passes().values()) == {LOWERED}

    @cached_property
    def direct_forward(self) -> Any:
        """What runs the forward pass without lowering; None where lowering is faster."""
        return self._direct("forward")

    @cached_property
    def direct_weights(self) -> Any:
        """The same of the gradient of the weights."""
        return self._direct("weights")

    @cached_property
    def direct_input(self) -> Any:
        """The same of the gradient of the input."""
        return self._direct("input")

    @property
    def mode(self) -> str:
        """The ``conv_mode`` that the forward pass amounts to."""
        way = LOWERED if self.direct_forward is None else self.direct_forward.way
        return {LOWERED: "LOWERED_GEMM", "direct": "DIRECT_DCONV", "winograd": "WINOGRAD"}[way]

    def passes(self) -> dict[str, str]:
        """Return how each pass runs: "direct", "winograd" or "lowered"."""
        found = {name: getattr(self, f"direct_{name}") for name in PASSES}
        return {name: LOWERED if one is None else one.way for name, one in found.items()}

    def forward(self, x: Any, w: Any, b: Any, y: Any) -> None:
        """Compute y from x; b may be None."""
        if self.direct_forward is not None:
            self.direct_forward.run(x, w, b, y)
        else:
            self.kernels.conv_forward(x, w, b, *self.geometry, y)

    def backward_weights(self, x: Any, d_y: Any, d_w: Any, d_b: Any) -> None:
        """Add to d_w and, unless it is None, to d_b."""
        if self.direct_weights is not None:
            self.direct_weights.run(x, d_y, d_w, d_b)
            return
        if d_b is not None:
            self.kernels.conv_backward_bias(d_y, d_b)
        self.kernels.conv_backward_weights(x, d_y, *self.geometry, d_w)

    def backward_input(self, d_y: Any, w: Any, d_x: Any) -> None:
        """Compute d_x from d_y."""
        if self.direct_input is not None:
            self.direct_input.run(d_y, w, None, d_x)
        else:
            self.kernels.conv_backward_input(d_y, w, *self.geometry, d_x)
