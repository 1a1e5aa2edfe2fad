"""AUTO: predict the time of every mode from operations and bytes, and take the shortest.

    time(mode) = sum over terms of  units(mode, layer)  x  nanoseconds(machine, threads)

The units come from :mod:`minissl.conv_modes.cost`, one function for each mode, and the constants
from :mod:`minissl.machine`, measured by ``minissl doctor --calibrate``. Nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minissl import machine as machines
from minissl.conv_modes.cost import CONVOLUTION, INNER_PRODUCT, Work
from minissl.conv_modes.shape import ConvShape
from minissl.kernels import cpu
from minissl.machine import Machine

#: what a net asks for to have the model choose
AUTO = "AUTO"


@dataclass(frozen=True)
class Choice:
    """What the model says of a layer.

    Attributes
    ----------
    mode : str
        The ``conv_mode`` with the shortest predicted time.
    seconds : dict
        Predicted time of every mode.
    calibrated : bool
        Whether the constants were measured on this machine.
    """

    mode: str
    seconds: dict[str, float]
    calibrated: bool

    def in_words(self) -> str:
        """Describe the choice: ``LOWERED_CCNMM (predicted 0.12 ms; LOWERED_GEMM 0.30, ...)``."""
        others = ", ".join(
            f"{mode} {1e3 * seconds:.3g}"
            for mode, seconds in sorted(self.seconds.items(), key=lambda item: item[1])
            if mode != self.mode
        )
        how = "" if self.calibrated else "; not calibrated, run 'minissl doctor --calibrate'"
        return f"{self.mode} (predicted {1e3 * self.seconds[self.mode]:.3g} ms; {others}{how})"


def predict(
    shape: ConvShape,
    w: Any,
    images: int,
    threads: int,
    machine: Machine | None = None,
    kernels: Any = cpu,
) -> Choice:
    """Choose the mode of a convolution.

    Parameters
    ----------
    shape : ConvShape
        Geometry of the layer.
    w : array
        Weights (F, C/G, kh, kw), with their zeros.
    images, threads : int
        Batch, and threads that run it.
    machine : Machine, optional
        Its constants; by default those of this machine.
    kernels : module
        Backend that will execute it. Without register tiles it is not asked to run WINOGRAD.
    """
    has_tiles = getattr(kernels, "micro", None) is not None
    costs = {mode: cost for mode, cost in CONVOLUTION.items() if has_tiles or mode != "WINOGRAD"}
    return _choose(costs, Work.of(shape, w, images, threads), machine)


def predict_inner_product(
    w: Any, images: int, threads: int, machine: Machine | None = None
) -> Choice:
    """Choose the mode of an inner product with weights (F, K); parameters as :func:`predict`."""
    F, K = w.shape
    return _choose(INNER_PRODUCT, Work.of(product_shape(F, K), w, images, threads), machine)


def product_shape(F: int, K: int) -> ConvShape:
    """Return the convolution of one pixel that an inner product is."""
    return ConvShape(K, (1, 1), F, (1, 1))


def _choose(costs: Any, work: Work, machine: Machine | None) -> Choice:
    machine = machine or machines.current()
    seconds = {}
    for mode, cost in costs.items():
        amounts = cost(work)
        if amounts is not None:  # None: the mode cannot run this layer fast
            seconds[mode] = machine.seconds(amounts, work.threads)
    return Choice(min(seconds, key=lambda mode: seconds[mode]), seconds, machine.calibrated)
