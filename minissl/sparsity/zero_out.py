"""Zero-out: weights too small to matter become exactly 0 after every update.

The gradient of group lasso drives a dying group around zero but never onto it; this threshold makes
it exactly 0. A later gradient may bring it back (:mod:`minissl.solvers.revivals`): only a mask
keeps zeros (:mod:`.connectivity`). The threshold is strict: -1e-4 < w < 1e-4 becomes 0,
a weight of 1e-4 stays. The comparison is made in the precision of the weights: in float32 the
threshold is float32(1e-4).
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minissl.kernels import reference

#: the published threshold
ZERO_THRESHOLD = 1e-4


def is_small(w: np.ndarray, threshold: float = ZERO_THRESHOLD) -> np.ndarray:
    """Return where |w| < threshold, strictly, in the precision of ``w``; NaN is not small."""
    return np.abs(w) < w.dtype.type(threshold)


def zero_out(
    w: np.ndarray, threshold: float = ZERO_THRESHOLD, kernels: ModuleType = reference
) -> None:
    """Set every weight with |w| < threshold to exactly 0, in place."""
    # narrowed here, so that no backend compares a float32 weight with a float64 threshold
    kernels.zero_out(w, w.dtype.type(threshold))


def applies_to(role: str, *, enabled: bool = True, original: bool = False) -> bool:
    """Return whether a parameter of this role is zeroed out.

    Parameters
    ----------
    role : {"weight", "bias", "scale", "statistic"}
        Of the parameter. Small biases, scales of channels and batch statistics are not sparsity:
        they are left alone.
    enabled : bool
        The switch; False leaves every parameter alone.
    original : bool
        As the published program: every learnable blob, biases and statistics too.
    """
    return enabled and (original or role == "weight")
