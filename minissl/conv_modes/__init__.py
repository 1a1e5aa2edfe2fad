"""How a convolution with sparse weights is executed: one file per ``conv_mode``.

========================  =============================================================
``LOWERED_GEMM``          lower the image, multiply by the dense weight matrix
``LOWERED_CSRMM``         lower the image, multiply by the weights in compressed rows
``LOWERED_CCNMM``         lower only the kept columns, multiply by the packed dense matrix;
                          at inference direct tiles replace both where they are faster
``DIRECT_SCONV``          no lowering: each non-zero weight times the image, moved
``DIRECT_DCONV``          no lowering: every weight times the image, moved
``WINOGRAD``              no lowering, 3 x 3 and 5 x 5 weights in fewer multiplications
``AUTO``                  whichever of these :mod:`minissl.conv_modes.auto` predicts to be
                          the fastest
========================  =============================================================

:func:`prepare` packs the weights of a layer once; the object it returns runs the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from minissl.conv_modes.direct_dconv import DirectDconv
from minissl.conv_modes.direct_sconv import DirectSconv
from minissl.conv_modes.lowered_ccnmm import LoweredCcnmm
from minissl.conv_modes.lowered_csrmm import LoweredCsrmm
from minissl.conv_modes.lowered_gemm import LoweredGemm
from minissl.conv_modes.micro import micro_kernel
from minissl.conv_modes.shape import ConvShape
from minissl.conv_modes.winograd import WinogradMode, why_not
from minissl.errors import ConfigError

__all__ = [
    "DENSE_MODES", "MODES", "ConvShape", "Prepared", "executed_mode", "offered_modes", "prepare",
    "supports",
]  # fmt: skip


class Prepared(Protocol):
    """Weights packed for one mode."""

    #: whether lowering and product can be timed alone (``stages``)
    has_stages: bool

    def forward(self, x: Any, y: Any, relu: bool = False, **stages: int) -> None:
        """Convolve x (N, C, H, W) into y (N, F, P, Q), bias included; ``relu`` rectifies y.

        Any N will do: a fused step gives some images of its batch at a time.
        """

    def images_per_chunk(self, N: int) -> int:
        """Return how many images of N are computed together.

        A batch that is divided between such chunks gives bitwise what it gives as a whole; 1 where
        every image is computed by itself.
        """

    def dense(self) -> Any:
        """Return the weights as they were, (F, C/G, kh, kw)."""

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel of an image, which the mode really executes."""

    @property
    def nbytes(self) -> int:
        """Bytes the packed weights take."""


MODES: dict[str, Callable[..., Prepared]] = {
    "LOWERED_GEMM": LoweredGemm,
    "LOWERED_CSRMM": LoweredCsrmm,
    "LOWERED_CCNMM": LoweredCcnmm.for_inference,
    "DIRECT_SCONV": DirectSconv,
    "DIRECT_DCONV": DirectDconv,
    "WINOGRAD": WinogradMode,
}

#: modes that multiply by every weight
DENSE_MODES = ("LOWERED_GEMM", "DIRECT_DCONV", "WINOGRAD")


def executed_mode(mode: str, is_compacted: bool) -> str:
    """Return the mode that really runs: a compacted layer has no room for a dense one.

    Parameters
    ----------
    mode : str
        The mode that was asked for.
    is_compacted : bool
        Whether the layer holds only some of its columns (``kept_columns``).
    """
    return "LOWERED_CCNMM" if is_compacted and mode in DENSE_MODES else mode


def offered_modes(shape: ConvShape, kernels: Any) -> tuple[str, ...]:
    """Return the modes that a layer can run in: all, but for WINOGRAD where it does not apply."""
    return tuple(mode for mode in MODES if mode != "WINOGRAD" or why_not(shape, kernels) is None)


def supports(mode: str, shape: ConvShape, kernels: Any, dtype: Any = "float32") -> bool:
    """Whether a backend has kernels of a mode's own for a shape, made to be fast.

    Every mode but WINOGRAD executes every shape. A mode without register tiles (see
    :mod:`minissl.kernels.cpu.micro`) does it by plain loops, which no one would choose for speed.

    Parameters
    ----------
    mode : str
        One of ``MODES``.
    shape : ConvShape
        Geometry of the layer.
    kernels : module
        Backend that would execute it.
    dtype : dtype
        Of images and weights.
    """
    if mode.startswith("LOWERED"):
        return True
    if mode == "WINOGRAD":
        return micro_kernel(kernels, "winograd_convolution", shape, dtype, False) is not None
    return bool(micro_kernel(kernels, "supports", shape, dtype))


def prepare(
    mode: str,
    shape: ConvShape,
    w: Any,
    b: Any,
    kernels: Any,
    kept_columns: list[list[int]] | None = None,
) -> Prepared:
    """Pack the weights of a convolution for one ``conv_mode``.

    Parameters
    ----------
    mode : str
        One of ``MODES``.
    shape : ConvShape
        Geometry of the layer.
    w : array
        Weights (F, C/G, kh, kw); for a compacted layer only the values of its kept columns.
    b : array or None
        Bias (F,).
    kernels : module
        Backend that will execute it.
    kept_columns : list of lists, optional
        For each conv group, the columns that a compacted layer keeps; a dense mode then runs as
        LOWERED_CCNMM.

    Raises
    ------
    ConfigError
        For a mode this version cannot execute.
    """
    if mode not in MODES:
        raise ConfigError(
            f"conv_mode {mode} is not part of this version; choose one of {', '.join(MODES)}"
        )
    if kept_columns:
        w = kernels.xp.asarray(shape.scatter_columns(w, kept_columns))
    mode = executed_mode(mode, bool(kept_columns))
    return MODES[mode](shape, w, b, kernels)
