"""Tiles of a weight matrix (groups), and weight decay."""

from __future__ import annotations

import numpy as np

from minissl.kernels.reference.types import Array


def tile_square_sums(w: Array, ydim: int, xdim: int, sums: Array) -> None:
    """Sum of squares of every tile of ydim rows by xdim columns: ||w_g||^2 of each group.

    Parameters
    ----------
    w : (R, C)
    sums : float64 (R/ydim, C/xdim), written; double, so that tiny float32 weights do not underflow
    """
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    np.square(tiles, dtype=np.float64).sum(axis=(1, 3), out=sums)


def tile_add_scaled(w: Array, factors: Array, ydim: int, xdim: int, d_w: Array) -> None:
    """d_w += factors[tile] * w, one float64 factor for each tile (ydim rows, xdim columns)."""
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    d_tiles = d_w.reshape(tiles.shape)
    d_tiles += (factors[:, None, :, None] * tiles).astype(w.dtype)


def tile_scale(factors: Array, ydim: int, xdim: int, w: Array) -> None:
    """``w *= factors[tile]``, one float64 factor for each tile; a factor of 0 leaves exactly +0."""
    R, C = w.shape
    tiles = w.reshape(R // ydim, ydim, C // xdim, xdim)
    by_tile = factors[:, None, :, None]
    tiles[...] = np.where(by_tile == 0, 0.0, by_tile * tiles)


def add_l2(w: Array, strength: float, multiplier: Array | None, d_w: Array) -> None:
    """d_w += strength * multiplier * w (multiplier: one number per weight, None for 1)."""
    decay = w.dtype.type(strength) * w
    d_w += decay if multiplier is None else decay * multiplier


def add_l1(w: Array, strength: float, multiplier: Array | None, d_w: Array) -> None:
    """d_w += strength * multiplier * sign(w), with sign(0) = 0."""
    decay = w.dtype.type(strength) * np.sign(w)
    d_w += decay if multiplier is None else decay * multiplier


def sum_of_squares(w: Array, multiplier: Array | None = None) -> float:
    """Sum of multiplier * w^2, accumulated in float64."""
    squares = np.square(w, dtype=np.float64)
    return float(squares.sum() if multiplier is None else (squares * multiplier).sum())


def sum_of_magnitudes(w: Array, multiplier: Array | None = None) -> float:
    """Sum of |multiplier * w|, accumulated in float64."""
    values = w if multiplier is None else w * multiplier
    return float(np.abs(values).sum(dtype=np.float64))
