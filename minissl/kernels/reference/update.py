"""How a gradient becomes a step, and the step new weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minissl.kernels.reference.regularization import (
    add_l1,
    add_l2,
    tile_add_scaled,
    tile_square_sums,
)
from minissl.kernels.reference.types import Array


def sgd_update(d_w: Array, history: Array, rate: float, momentum: float) -> None:
    """H = momentum * h + rate * d_w; the step, left in d_w, is h."""
    history *= d_w.dtype.type(momentum)
    history += d_w.dtype.type(rate) * d_w
    d_w[...] = history


def nesterov_update(d_w: Array, history: Array, rate: float, momentum: float) -> None:
    """h_new = momentum * h + rate * d_w; the step is (1 + momentum) * h_new - momentum * h."""
    momentum = d_w.dtype.type(momentum)
    previous = history.copy()
    history *= momentum
    history += d_w.dtype.type(rate) * d_w
    d_w[...] = (1 + momentum) * history - momentum * previous


def adam_update(
    d_w: Array, m: Array, v: Array, rate: float, beta1: float, beta2: float, delta: float
) -> None:
    """m, v: running means of d_w and d_w^2; the step is rate * m / (sqrt(v) + delta).

    ``rate`` already holds the bias correction sqrt(1 - beta2^t) / (1 - beta1^t).
    """
    one, b1, b2 = d_w.dtype.type(1), d_w.dtype.type(beta1), d_w.dtype.type(beta2)
    m *= b1
    m += (one - b1) * d_w
    v *= b2
    v += (one - b2) * d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * m / (np.sqrt(v) + d_w.dtype.type(delta))


def adagrad_update(d_w: Array, history: Array, rate: float, delta: float) -> None:
    """H = h + d_w^2; the step is rate * d_w / (sqrt(h) + delta)."""
    history += d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * d_w / (np.sqrt(history) + d_w.dtype.type(delta))


def rmsprop_update(d_w: Array, history: Array, rate: float, decay: float, delta: float) -> None:
    """h: running mean of d_w^2; the step is rate * d_w / (sqrt(h) + delta)."""
    one, decay = d_w.dtype.type(1), d_w.dtype.type(decay)
    history *= decay
    history += (one - decay) * d_w * d_w
    d_w[...] = d_w.dtype.type(rate) * d_w / (np.sqrt(history) + d_w.dtype.type(delta))


def adadelta_update(
    d_w: Array, squares: Array, steps: Array, rate: float, decay: float, delta: float
) -> None:
    """squares, steps: running means of d_w^2 and of u^2; the step is rate * u.

    u = d_w * sqrt((steps + delta) / (squares + delta)), with the new ``squares`` and the old
    ``steps``.
    """
    one, decay, delta = d_w.dtype.type(1), d_w.dtype.type(decay), d_w.dtype.type(delta)
    squares *= decay
    squares += (one - decay) * d_w * d_w
    d_w *= np.sqrt((steps + delta) / (squares + delta))
    steps *= decay
    steps += (one - decay) * d_w * d_w
    d_w *= d_w.dtype.type(rate)


def apply_update(w: Array, d_w: Array, mask: Array | None) -> None:
    """``d_w *= mask`` (frozen weights do not move), then ``w -= d_w``."""
    if mask is not None:
        d_w *= mask
    w -= d_w


def zero_out(w: Array, threshold: float) -> None:
    """Set every weight with -threshold < w < threshold to exactly 0 (strict)."""
    limit = w.dtype.type(threshold)
    w[(w < limit) & (w > -limit)] = 0


def sgd_step(
    w: Array,
    d_w: Array,
    history: Array,
    average: float,
    decay: tuple[str, float] | None,
    multiplier: Array | None,
    groups: Sequence[tuple[int, int, float]],
    rate: float,
    momentum: float,
    nesterov: bool,
    mask: Array | None,
    threshold: float,
) -> bool:
    """Run the whole update of a parameter: the single steps, one after the other.

    ``d_w *= average``, weight decay, group lasso, momentum, mask, ``w -= d_w``, zero-out.

    Parameters
    ----------
    w, d_w, history : arrays of one shape, changed
    decay : ("L1" or "L2", strength) or None
    multiplier, mask : arrays or None
    groups : sequence of (rows, columns, strength)
        Tiles of the weights seen as a matrix (rows = ``shape[0]``).
    threshold : float
        Of the zero-out; 0 for none.

    Returns
    -------
    bool
        Whether no weight is NaN or infinite; a backend that does not wait for results says True.
    """
    d_w *= d_w.dtype.type(average)
    if decay:
        kind, strength = decay
        (add_l1 if kind == "L1" else add_l2)(w, strength, multiplier, d_w)
    matrix, d_matrix = (a.reshape(w.shape[0] if w.ndim else 1, -1) for a in (w, d_w))  # (R, C)
    for ydim, xdim, strength in groups:
        sums = np.empty((matrix.shape[0] // ydim, matrix.shape[1] // xdim))
        tile_square_sums(matrix, ydim, xdim, sums)
        some = sums != 0
        factors = np.where(some, strength / np.sqrt(np.where(some, sums, 1.0)), 0.0)
        tile_add_scaled(matrix, factors, ydim, xdim, d_matrix)
    (nesterov_update if nesterov else sgd_update)(d_w, history, rate, momentum)
    apply_update(w, d_w, mask)
    if threshold:
        zero_out(w, threshold)
    return all_finite(w)


def all_finite(w: Array) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(w).all())


def are_finite(arrays: Any) -> bool:
    """Whether no element of any array is NaN or infinite."""
    return all(all_finite(array) for array in arrays)
