"""Connectivity: which weights may move while a sparsified network is fine-tuned.

A mask holds 1 where a weight learns and 0 where it is frozen. It multiplies the update
(:func:`minissl.kernels.reference.update.apply_update`), not the weights: frozen weights are zero
when the mask is made, and stay so because they never move.

==================== ==============================================================================
CONNECTED            everything learns; no mask
DISCONNECTED_ELTWISE every zero weight is frozen
DISCONNECTED_GRPWISE rows and columns that are zero as a whole are frozen, columns within each
                     conv-group band; a lone zero in a living row and column may grow again
==================== ==============================================================================

Zero blocks of a tiling that are neither a full row nor a full column are not frozen by GRPWISE.

Dimensions: g conv groups, R rows and C columns of the weight matrix.
"""

from __future__ import annotations

import numpy as np

from minissl.errors import ConfigError
from minissl.sparsity.groups import bands
from minissl.sparsity.zero_out import is_small

#: the values of ``connectivity_mode``, in the order of their numbers in the prototxt's enum
MODES = ("CONNECTED", "DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE")

#: layers whose weights can be frozen
FREEZABLE = ("Convolution", "Deconvolution", "InnerProduct")


def mask_of(w: np.ndarray, mode: str, conv_groups: int = 1) -> np.ndarray | None:
    """Return the mask of a weight blob, made when weights are loaded.

    Parameters
    ----------
    w : ndarray
        The weights, (F, C/g, kh, kw) or (F, K), already zeroed out
        (:func:`minissl.sparsity.zero_out.zero_out`): GRPWISE looks for exact zeros.
    mode : {"CONNECTED", "DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"}
    conv_groups : int
        g; each band of R/g rows has columns of its own.

    Returns
    -------
    ndarray of the shape and dtype of w, or None for CONNECTED.

    Raises
    ------
    ConfigError
        For an unknown mode, or conv groups that do not divide the rows.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown connectivity_mode '{mode}'; choose one of {', '.join(MODES)}")
    if mode == "CONNECTED":
        return None
    if mode == "DISCONNECTED_ELTWISE":
        return (~is_small(w)).astype(w.dtype)
    alive = bands(w.reshape(w.shape[0], -1), conv_groups) != 0  # (g, R/g, C)
    living_rows = alive.any(axis=2, keepdims=True)  # (g, R/g, 1)
    living_columns = alive.any(axis=1, keepdims=True)  # (g, 1, C)
    return (living_rows & living_columns).reshape(w.shape).astype(w.dtype)
