"""What every mode costs: units of each term on the busiest thread.

A cost function takes the :class:`.work.Work` of a layer and returns term -> units, counted from
how its kernel divides the work; ``minissl.machine.constants.TERMS`` says what a unit is. It
knows no time: the constants of a machine turn units into seconds. A new mode is one more function
in one of the tables, and samples of it in the calibration measure its terms.
"""

from __future__ import annotations

from collections.abc import Callable

from minissl.conv_modes.cost import direct, lowered, products
from minissl.conv_modes.cost.work import Amounts, Work

__all__ = ["CONVOLUTION", "INNER_PRODUCT", "Amounts", "Work"]

#: ``conv_mode`` -> cost of a convolution
CONVOLUTION: dict[str, Callable[[Work], Amounts | None]] = {
    "LOWERED_GEMM": lowered.gemm,
    "LOWERED_CSRMM": lowered.csrmm,
    "LOWERED_CCNMM": direct.ccnmm,
    "DIRECT_SCONV": direct.sconv,
    "DIRECT_DCONV": direct.dconv,
    "WINOGRAD": direct.winograd,
}

#: the ``conv_mode`` that executes a ``gemm_mode`` -> cost of an inner product
INNER_PRODUCT: dict[str, Callable[[Work], Amounts | None]] = {
    "LOWERED_GEMM": products.gemm,
    "LOWERED_CSRMM": products.spmdm,
    "LOWERED_CCNMM": products.ccnmm,
}
