"""Group norms and decays in one pass over the weights each.

R rows, C columns; a tile is ydim rows by xdim columns. Sums are accumulated in double.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import PARTS, parallel_kernel, prange, step


@parallel_kernel
def _tile_square_sums(w, ydim, xdim, length, sums):
    """A thread owns ``length`` neighbouring tiles of a band of ydim rows."""
    bands, tiles = sums.shape
    parts = (tiles + length - 1) // length
    for block in prange(bands * parts):
        band = block // parts
        first = block % parts * length
        last = min(tiles, first + length)
        for tile in range(first, last):
            sums[band, tile] = 0.0
        for row in range(band * ydim, (band + 1) * ydim):
            for tile in range(first, last):
                total = 0.0
                for column in range(tile * xdim, (tile + 1) * xdim):
                    value = np.float64(w[row, column])
                    total += value * value
                sums[band, tile] += total


def tile_square_sums(w, ydim, xdim, sums) -> None:
    """||w_g||^2 of every tile; see the reference."""
    _tile_square_sums(w, ydim, xdim, step(sums.shape[1]), sums)


@parallel_kernel
def tile_add_scaled(w, factors, ydim, xdim, d_w):
    """d_w += factors[tile] * w; see the reference."""
    for row in prange(w.shape[0]):
        for tile in range(factors.shape[1]):
            factor = factors[row // ydim, tile]
            for column in range(tile * xdim, (tile + 1) * xdim):
                d_w[row, column] += factor * w[row, column]


@parallel_kernel
def tile_scale(factors, ydim, xdim, w):
    """``w *= factors[tile]``, exactly +0 where the factor is 0; see the reference."""
    for row in prange(w.shape[0]):
        for tile in range(factors.shape[1]):
            factor = factors[row // ydim, tile]
            for column in range(tile * xdim, (tile + 1) * xdim):
                w[row, column] = factor * w[row, column] if factor != 0.0 else 0.0


@parallel_kernel
def _add_scaled(w, strength, d_w):
    for i in prange(w.size):
        d_w[i] += strength * w[i]


@parallel_kernel
def _add_sign(w, strength, d_w):
    for i in prange(w.size):
        if w[i] > 0:
            d_w[i] += strength
        elif w[i] < 0:
            d_w[i] -= strength


@parallel_kernel
def _add_scaled_by(w, strength, multiplier, d_w):
    for i in prange(w.size):
        d_w[i] += strength * w[i] * multiplier[i]


@parallel_kernel
def _add_sign_by(w, strength, multiplier, d_w):
    for i in prange(w.size):
        if w[i] > 0:
            d_w[i] += strength * multiplier[i]
        elif w[i] < 0:
            d_w[i] -= strength * multiplier[i]


@parallel_kernel
def _partial_squares(w, length, partial):
    for part in prange(partial.size):
        total = 0.0
        for i in range(part * length, min(w.size, (part + 1) * length)):
            value = np.float64(w[i])
            total += value * value
        partial[part] = total


@parallel_kernel
def _partial_magnitudes(w, length, partial):
    for part in prange(partial.size):
        total = 0.0
        for i in range(part * length, min(w.size, (part + 1) * length)):
            total += abs(np.float64(w[i]))
        partial[part] = total


def add_l2(w, strength, multiplier, d_w) -> None:
    """d_w += strength * multiplier * w; see the reference."""
    w, d_w, strength = w.reshape(-1), d_w.reshape(-1), w.dtype.type(strength)
    if multiplier is None:
        _add_scaled(w, strength, d_w)
    else:
        _add_scaled_by(w, strength, multiplier.reshape(-1), d_w)


def add_l1(w, strength, multiplier, d_w) -> None:
    """d_w += strength * multiplier * sign(w); see the reference."""
    w, d_w, strength = w.reshape(-1), d_w.reshape(-1), w.dtype.type(strength)
    if multiplier is None:
        _add_sign(w, strength, d_w)
    else:
        _add_sign_by(w, strength, multiplier.reshape(-1), d_w)


def sum_of_squares(w, multiplier=None) -> float:
    """Sum of multiplier * w^2; see the reference."""
    if multiplier is not None:
        return float((np.square(w, dtype=np.float64) * multiplier).sum())
    partial = np.empty(PARTS)
    _partial_squares(w.reshape(-1), step(w.size), partial)
    return float(partial.sum())


def sum_of_magnitudes(w, multiplier=None) -> float:
    """Sum of |multiplier * w|; see the reference."""
    partial = np.empty(PARTS)
    values = w if multiplier is None else w * multiplier
    _partial_magnitudes(values.reshape(-1), step(w.size), partial)
    return float(partial.sum())
