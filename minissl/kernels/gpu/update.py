"""Update rules, and the whole update of a parameter in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy

from minissl.kernels.gpu.raw import each
from minissl.kernels.gpu.regularization import tile_factors

#: kinds of groups that :func:`sgd_step` takes
MOST_TERMS = 4


def sgd_update(d_w, history, rate, momentum) -> None:
    """H = momentum * h + rate * d_w; see the reference."""
    each("update", "sgd", d_w, d_w.size, float(rate), float(momentum), d_w.size, d_w, history)


def nesterov_update(d_w, history, rate, momentum) -> None:
    """As :func:`sgd_update`, looking ahead; see the reference."""
    each("update", "nesterov", d_w, d_w.size, float(rate), float(momentum), d_w.size, d_w, history)


def adam_update(d_w, m, v, rate, beta1, beta2, delta) -> None:
    """m, v: running means of d_w and d_w^2; see the reference."""
    numbers = float(rate), float(beta1), float(beta2), float(delta)
    each("update", "adam", d_w, d_w.size, *numbers, d_w.size, d_w, m, v)


def adagrad_update(d_w, history, rate, delta) -> None:
    """H = h + d_w^2; see the reference."""
    each("update", "adagrad", d_w, d_w.size, float(rate), float(delta), d_w.size, d_w, history)


def rmsprop_update(d_w, history, rate, decay, delta) -> None:
    """h: running mean of d_w^2; see the reference."""
    numbers = float(rate), float(decay), float(delta)
    each("update", "rmsprop", d_w, d_w.size, *numbers, d_w.size, d_w, history)


def adadelta_update(d_w, squares, steps, rate, decay, delta) -> None:
    """squares, steps: running means of d_w^2 and of the steps; see the reference."""
    numbers = float(rate), float(decay), float(delta)
    each("update", "adadelta", d_w, d_w.size, *numbers, d_w.size, d_w, squares, steps)


def apply_update(w, d_w, mask) -> None:
    """``d_w *= mask``, then ``w -= d_w``; see the reference."""
    each("update", "apply_step", w, w.size, mask, w.size, w, d_w)


def zero_out(w, threshold) -> None:
    """Set every weight with -threshold < w < threshold to exactly 0; see the reference."""
    each("update", "zero_out", w, w.size, float(threshold), w.size, w)


def sgd_step(
    w: Any,
    d_w: Any,
    history: Any,
    average: float,
    decay: tuple[str, float] | None,
    multiplier: Any,
    groups: Sequence[tuple[int, int, float]],
    rate: float,
    momentum: float,
    nesterov: bool,
    mask: Any,
    threshold: float,
) -> bool:
    """Run the whole update of a parameter: the norms of its groups, then one pass over it.

    It is what the single kernels compute one after the other: ``d_w *= average``, weight decay,
    group lasso, momentum, mask, ``w -= d_w``, zero-out.

    Parameters
    ----------
    w, d_w, history : arrays of one shape, changed
    decay : ("L1" or "L2", strength) or None
    multiplier, mask : arrays or None
    groups : sequence of (rows, columns, strength)
        Tiles of the weights seen as a matrix; at most ``MOST_TERMS``.
    threshold : float
        Of the zero-out; 0 for none.

    Returns
    -------
    True
        The host does not wait to see whether all weights are finite.
    """
    matrix = w.reshape(w.shape[0] if w.ndim else 1, -1)
    factors: list[Any] = []
    for ydim, xdim, strength in groups:
        factors += [tile_factors(matrix, ydim, xdim, strength), ydim, xdim]
    factors += [None, 1, 1] * (MOST_TERMS - len(groups))
    kind, strength = decay or ("L2", 0.0)
    each(
        "step", "sgd_step", w, w.size,
        float(average), float(strength), int(kind == "L1"), multiplier,
        *factors, len(groups), matrix.shape[1],
        float(rate), float(momentum), int(nesterov), mask, float(threshold),
        w.size, w, d_w, history,
    )  # fmt: skip
    return True


def are_finite(arrays) -> bool:
    """Whether no element of any array is NaN or infinite; the host waits for it once."""
    finite = cupy.ones(1, "int32")
    for array in arrays:
        array = cupy.ascontiguousarray(array)
        each("decay", "note_non_finite", array, array.size, array, array.size, finite)
    return bool(finite.get()[0])


def all_finite(w) -> bool:
    """Whether no element is NaN or infinite; see the reference."""
    return are_finite([w])
