"""Group norms and decays in one pass over the weights each; R rows, C columns."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.raw import THREADS, blocks, each, threads_for

#: most parts into which a sum is split; fixed, so that results never depend on the device
PARTS = 256
#: tiles at least so wide have a block of threads of their own
WIDE = 32


def _tiles(w, ydim, xdim, strength, out) -> None:
    (R, C), terms = w.shape, ydim * xdim
    if xdim >= WIDE:
        blocks(
            "tiles", "wide_tiles", w, out.size,
            w, C, ydim, xdim, float(strength), out, threads=threads_for(terms),
        )  # fmt: skip
    else:
        count = R // ydim * -(-(C // xdim) // 32)
        blocks("tiles", "narrow_tiles", w, count, w, C, ydim, xdim, float(strength), out)


def tile_square_sums(w, ydim, xdim, sums) -> None:
    """||w_g||^2 of every tile; see the reference."""
    _tiles(w, ydim, xdim, 0.0, sums)


def tile_factors(w, ydim, xdim, strength):
    """Return strength / ||w_g|| of every tile, 0 where a tile is zero."""
    factors = cupy.empty((w.shape[0] // ydim, w.shape[1] // xdim))
    _tiles(w, ydim, xdim, strength, factors)
    return factors


def tile_add_scaled(w, factors, ydim, xdim, d_w) -> None:
    """d_w += factors[tile] * w; see the reference."""
    each("tiles", "add_scaled_tiles", w, w.size, w, factors, w.size, w.shape[1], ydim, xdim, d_w)


def tile_scale(factors, ydim, xdim, w) -> None:
    """``w *= factors[tile]``, exactly +0 where the factor is 0; see the reference."""
    each("tiles", "scale_tiles", w, w.size, factors, w.size, w.shape[1], ydim, xdim, w)


def add_l2(w, strength, multiplier, d_w) -> None:
    """d_w += strength * multiplier * w; see the reference."""
    each("decay", "add_decay", w, w.size, w, float(strength), multiplier, 0, w.size, d_w)


def add_l1(w, strength, multiplier, d_w) -> None:
    """d_w += strength * multiplier * sign(w); see the reference."""
    each("decay", "add_decay", w, w.size, w, float(strength), multiplier, 1, w.size, d_w)


def _penalty(w, multiplier, is_l1) -> float:
    parts = cupy.empty(max(1, min(PARTS, -(-w.size // THREADS))))
    blocks("decay", "partial_penalty", w, parts.size, w, multiplier, is_l1, w.size, parts)
    return float(parts.get().sum())


def sum_of_squares(w, multiplier=None) -> float:
    """Sum of multiplier * w^2; see the reference. The host waits for it."""
    return _penalty(w, multiplier, 0)


def sum_of_magnitudes(w, multiplier=None) -> float:
    """Sum of |multiplier * w|; see the reference. The host waits for it."""
    return _penalty(w, multiplier, 1)
