"""Group lasso without its gradient: the proximal step, which makes groups exactly zero.

    prox(w_g) = w_g * max(0, 1 - amount / ||w_g||)

It is the v that makes amount * ||v|| + ||v - w_g||^2 / 2 smallest: each group gives up ``amount``
of its norm, and a group that has no more than that becomes zero. The gradient of the published
program, lambda * w_g / ||w_g||, takes the same off a long group, but carries a short one past zero
and back, so that a threshold has to catch it.

Dimensions: W is an R x C matrix, tiles are ``ydimen`` rows by ``xdimen`` columns.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from minissl.errors import ConfigError
from minissl.kernels import reference
from minissl.sparsity.group_lasso import group_norms
from minissl.sparsity.groups import Tile

#: the values of ``group_lasso_method``
METHODS = ("subgradient", "proximal")


def is_proximal(method: str) -> bool:
    """Return whether ``group_lasso_method`` asks for the proximal step.

    Raises
    ------
    ConfigError
        For an unknown method.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown group_lasso_method '{method}'; use one of {', '.join(METHODS)}")
    return method == "proximal"


def proximal_step(
    matrix: np.ndarray, tile: Tile, amount: float, kernels: ModuleType = reference
) -> None:
    """Shorten every group by ``amount``, in place; a group no longer than that becomes exactly 0.

    Parameters
    ----------
    matrix : ndarray (R, C)
        The weights, C-contiguous, float32 or float64. Zeros stay zero, frozen ones too.
    tile : Tile
        Must divide the matrix (:func:`minissl.sparsity.groups.check_tile`).
    amount : float
        Rate times lambda, 0 or more; 0 changes nothing.
    kernels : module
        The backend.
    """
    norms = group_norms(matrix, tile, kernels)  # (R/ydimen, C/xdimen)
    # nothing is divided by a norm of 0, and a norm of NaN shows
    long = ~(norms <= amount) & (norms != 0)
    xp = kernels.xp
    lost = xp.where(long, amount / xp.where(long, norms, 1.0), 1.0)
    kernels.tile_scale(1.0 - lost, tile.ydimen, tile.xdimen, matrix)
