"""Group lasso, the regularizer of structured sparsity learning (SSL paper, equation 1).

    R(W)   = lambda * sum_g ||w_g||          ||w_g|| = sqrt(sum of the group's squared weights)
    dR/dw  = lambda * w / ||w_g||

The gradient pulls every group towards zero with the same force whatever its norm, so weak groups
are worn away first; the threshold of :mod:`.zero_out`, or :mod:`.proximal`, makes them exactly 0.
Three conventions, all of them the published program's:

* no factor sqrt(size of the group): lambda means the same for a row and for a column;
* no epsilon under the root: a group whose norm is 0 has gradient 0;
* norms are those of the current weights, also when several terms overlap.

Squares are summed in double: float32 weights, denormals included, never lose their norm. In
float64 a group of weights below about 1e-162 counts as zero, as its squares do.

Dimensions: W and its gradient are R x C matrices, tiles are ``ydimen`` rows by ``xdimen`` columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from minissl.kernels import reference
from minissl.sparsity.groups import Shape, Tile, block_tiles, tile_of
from minissl.sparsity.strength import strength_of


@dataclass(frozen=True)
class GroupTerm:
    """One term ``strength * sum_g ||w_g||`` of the regularizer, its groups given by a tile."""

    tile: Tile
    strength: float


def group_norms(
    matrix: np.ndarray, tile: Tile, kernels: ModuleType = reference
) -> np.ndarray:  # float64 (R/ydimen, C/xdimen)
    """Return ||w_g|| of every group, float64 of shape (R/ydimen, C/xdimen)."""
    R, C = matrix.shape
    sums = kernels.xp.empty((R // tile.ydimen, C // tile.xdimen))
    kernels.tile_square_sums(matrix, tile.ydimen, tile.xdimen, sums)
    return kernels.xp.sqrt(sums, out=sums)


def penalty(
    matrix: np.ndarray, tile: Tile, strength: float, kernels: ModuleType = reference
) -> float:
    """Return strength * sum_g ||w_g|| (SSL paper, equation 1)."""
    return strength * float(group_norms(matrix, tile, kernels).sum())


def add_gradient(
    d_matrix: np.ndarray,
    matrix: np.ndarray,
    tile: Tile,
    strength: float,
    kernels: ModuleType = reference,
) -> None:
    """Add strength * w / ||w_g|| to ``d_matrix``; a group of norm 0 adds 0.

    Parameters
    ----------
    d_matrix : ndarray (R, C)
        Gradient of the weights, added to.
    matrix : ndarray (R, C)
        The weights, C-contiguous, float32 or float64.
    tile : Tile
        Must divide the matrix (:func:`minissl.sparsity.groups.check_tile`).
    strength : float
        lambda of this term.
    kernels : module
        The backend.
    """
    norms = group_norms(matrix, tile, kernels)  # (R/ydimen, C/xdimen)
    xp, some = kernels.xp, norms != 0
    # dividing where the norm is not 0, and nothing else, is what keeps zeros at 0 and lets NaN show
    factors = xp.where(some, strength / xp.where(some, norms, 1.0), 0.0)
    kernels.tile_add_scaled(matrix, factors, tile.ydimen, tile.xdimen, d_matrix)


def terms_of(
    parameter_spec, solver_param, shape: Shape, conv_groups: int = 1, where: str = "param"
) -> list[GroupTerm]:
    """Read the group-lasso terms of a parameter from its prototxt, those of strength 0 left out.

    ======= ============================================ ========================================
    groups  strength                                     tile
    ======= ============================================ ========================================
    columns kernel_shape_decay * kernel_shape_decay_mult 1 x rows of a conv-group band
    rows    breadth_decay * breadth_decay_mult           C x 1
    blocks  block_group_decay * block_decay_mult         xdimen x ydimen, over the whole matrix
    ======= ============================================ ========================================

    The order is the published program's: columns, rows, then blocks as listed.

    Parameters
    ----------
    parameter_spec : ParamSpec
    solver_param : SolverParameter
    shape : tuple of int
        Of the parameter; a bias is N x 1.
    conv_groups : int
        ``group`` of the owning convolution, for its bias too; 1 for any other layer.
    where : str
        Layer and blob, for messages.

    Raises
    ------
    ConfigError
        When a block does not divide the weight matrix.
    """
    columns = GroupTerm(
        tile_of("column", shape, conv_groups),
        strength_of(solver_param.kernel_shape_decay, parameter_spec.kernel_shape_decay_mult),
    )
    rows = GroupTerm(
        tile_of("row", shape, conv_groups),
        strength_of(solver_param.breadth_decay, parameter_spec.breadth_decay_mult),
    )
    blocks = [
        GroupTerm(tile, strength_of(solver_param.block_group_decay, block.block_decay_mult))
        for tile, block in zip(
            block_tiles(parameter_spec, shape, where),
            parameter_spec.block_group_lasso,
            strict=True,
        )
    ]
    return [term for term in (columns, rows, *blocks) if term.strength != 0]
