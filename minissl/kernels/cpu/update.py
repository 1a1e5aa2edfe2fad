"""The update of a parameter: single steps, and all of them in one pass over its weights.

Small parameters are updated by one thread: to wake the others takes longer.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import (
    PARTS,
    apart_kernel,
    kernel,
    parallel_kernel,
    prange,
    step,
)
from minissl.kernels.cpu.regularization import (
    add_l1,
    add_l2,
    tile_add_scaled,
    tile_square_sums,
)

#: numbers that a thread takes through the whole update before the next ones
RUN = 4096

#: parameters of fewer numbers are not worth a second thread
SMALL = 8 * RUN


@parallel_kernel
def _sgd(d_w, history, rate, momentum):
    for i in prange(d_w.size):
        history[i] = rate * d_w[i] + momentum * history[i]
        d_w[i] = history[i]


@parallel_kernel
def _nesterov(d_w, history, rate, momentum):
    more = d_w.dtype.type(1) + momentum  # 1 + momentum would be a double
    for i in prange(d_w.size):
        previous = history[i]
        history[i] = rate * d_w[i] + momentum * previous
        d_w[i] = more * history[i] - momentum * previous


@parallel_kernel
def _adam(d_w, m, v, rate, beta1, beta2, delta, one):
    for i in prange(d_w.size):
        m[i] = beta1 * m[i] + (one - beta1) * d_w[i]
        v[i] = beta2 * v[i] + (one - beta2) * d_w[i] * d_w[i]
        d_w[i] = rate * m[i] / (np.sqrt(v[i]) + delta)


@parallel_kernel
def _adagrad(d_w, history, rate, delta):
    for i in prange(d_w.size):
        history[i] += d_w[i] * d_w[i]
        d_w[i] = rate * d_w[i] / (np.sqrt(history[i]) + delta)


@parallel_kernel
def _rmsprop(d_w, history, rate, decay, delta, one):
    for i in prange(d_w.size):
        history[i] = decay * history[i] + (one - decay) * d_w[i] * d_w[i]
        d_w[i] = rate * d_w[i] / (np.sqrt(history[i]) + delta)


@parallel_kernel
def _adadelta(d_w, squares, steps, rate, decay, delta, one):
    for i in prange(d_w.size):
        squares[i] = decay * squares[i] + (one - decay) * d_w[i] * d_w[i]
        u = d_w[i] * np.sqrt((steps[i] + delta) / (squares[i] + delta))
        steps[i] = decay * steps[i] + (one - decay) * u * u
        d_w[i] = rate * u


@parallel_kernel
def _subtract(w, d_w):
    for i in prange(w.size):
        w[i] -= d_w[i]


@parallel_kernel
def _subtract_masked(w, d_w, mask):
    for i in prange(w.size):
        d_w[i] *= mask[i]
        w[i] -= d_w[i]


@parallel_kernel
def _zero_out(w, limit):
    for i in prange(w.size):
        if -limit < w[i] < limit:
            w[i] = 0


@kernel
def has_non_finite(run):
    """Whether there is NaN or infinity: only they are not 0 when taken from themselves."""
    found = False
    for i in range(run.size):
        found = found | (run[i] - run[i] != 0)
    return found


@parallel_kernel
def _non_finite_parts(w, length, found):
    for part in prange(found.size):
        found[part] = has_non_finite(w[part * length : (part + 1) * length])


@apart_kernel
def _step_run(
    w, d_w, history, mask, masked, average, decay, is_l1, rate, momentum, nesterov, limit
):
    """Take a run of weights through the update in one loop; return whether one is not finite.

    Every line computes what one of the single kernels computes, but for infinite weights, whose
    step is NaN also where ``decay`` is 0. What does not depend on the weight is decided before the
    loop, by the compiler.
    """
    zero, more = w.dtype.type(0), w.dtype.type(1) + momentum  # 1 + momentum would be a double
    found = False
    for i in range(w.size):
        d = average * d_w[i]
        if is_l1:
            d += decay if w[i] > 0 else (-decay if w[i] < 0 else zero)
        else:
            d += decay * w[i]
        previous = history[i]
        history[i] = rate * d + momentum * previous
        d = more * history[i] - momentum * previous if nesterov else history[i]
        if masked:
            d *= mask[i]
        d_w[i] = d
        moved = w[i] - d
        w[i] = zero if -limit < moved < limit else moved
        found = found | (moved - moved != 0)
    return found


@parallel_kernel
def _step_runs(
    w, d_w, history, mask, masked, average, decay, is_l1, rate, momentum, nesterov, limit
):
    """Let every thread take runs of its own; return how many have a weight that is not finite."""
    count = 0
    for part in prange((w.size + RUN - 1) // RUN):
        first, last = part * RUN, min(w.size, (part + 1) * RUN)
        count += _step_run(
            w[first:last], d_w[first:last], history[first:last], mask[first:last],
            masked, average, decay, is_l1, rate, momentum, nesterov, limit,
        )  # fmt: skip
    return count


def sgd_step(
    w, d_w, history, average, decay, multiplier, groups, rate, momentum, nesterov, mask, threshold
) -> bool:
    """Run the whole update of a parameter; see the reference."""
    number = w.dtype.type
    kind, strength = decay or ("L2", 0.0)
    if multiplier is not None or groups:  # these come between what is done in one pass
        if average != 1:
            d_w *= number(average)
        if strength:
            (add_l1 if kind == "L1" else add_l2)(w, strength, multiplier, d_w)
        matrix, d_matrix = (a.reshape(w.shape[0] if w.ndim else 1, -1) for a in (w, d_w))
        for ydim, xdim, pull in groups:
            _add_group_lasso(matrix, ydim, xdim, pull, d_matrix)
        average, strength = 1, 0.0
    nothing = np.empty(0, w.dtype)
    flat = [a.reshape(-1) for a in (w, d_w, history, nothing if mask is None else mask)]
    constants = [number(value) for value in (rate, momentum)]
    run = _step_run if w.size < SMALL else _step_runs
    found = run(
        *flat, mask is not None, number(average), number(strength), kind == "L1",
        *constants, bool(nesterov), number(threshold),
    )  # fmt: skip
    return not found


def _add_group_lasso(matrix, ydim, xdim, strength, d_matrix) -> None:
    """d_w += strength * w / ||w_g|| for every tile."""
    sums = np.empty((matrix.shape[0] // ydim, matrix.shape[1] // xdim))
    tile_square_sums(matrix, ydim, xdim, sums)
    norms = np.sqrt(sums, out=sums)
    some = norms != 0
    factors = np.where(some, strength / np.where(some, norms, 1.0), 0.0)
    tile_add_scaled(matrix, factors, ydim, xdim, d_matrix)


def sgd_update(d_w, history, rate, momentum) -> None:
    """SGD with momentum; see the reference."""
    number = d_w.dtype.type
    _sgd(d_w.reshape(-1), history.reshape(-1), number(rate), number(momentum))


def nesterov_update(d_w, history, rate, momentum) -> None:
    """Nesterov's accelerated gradient; see the reference."""
    number = d_w.dtype.type
    _nesterov(d_w.reshape(-1), history.reshape(-1), number(rate), number(momentum))


def adam_update(d_w, m, v, rate, beta1, beta2, delta) -> None:
    """Adam; see the reference."""
    constants = [d_w.dtype.type(value) for value in (rate, beta1, beta2, delta, 1)]
    _adam(d_w.reshape(-1), m.reshape(-1), v.reshape(-1), *constants)


def adagrad_update(d_w, history, rate, delta) -> None:
    """AdaGrad; see the reference."""
    number = d_w.dtype.type
    _adagrad(d_w.reshape(-1), history.reshape(-1), number(rate), number(delta))


def rmsprop_update(d_w, history, rate, decay, delta) -> None:
    """RMSProp; see the reference."""
    constants = [d_w.dtype.type(value) for value in (rate, decay, delta, 1)]
    _rmsprop(d_w.reshape(-1), history.reshape(-1), *constants)


def adadelta_update(d_w, squares, steps, rate, decay, delta) -> None:
    """AdaDelta; see the reference."""
    constants = [d_w.dtype.type(value) for value in (rate, decay, delta, 1)]
    _adadelta(d_w.reshape(-1), squares.reshape(-1), steps.reshape(-1), *constants)


def apply_update(w, d_w, mask) -> None:
    """W -= mask * d_w; see the reference."""
    if mask is None:
        _subtract(w.reshape(-1), d_w.reshape(-1))
    else:
        _subtract_masked(w.reshape(-1), d_w.reshape(-1), mask.reshape(-1))


def zero_out(w, threshold) -> None:
    """Small weights become exactly zero; see the reference."""
    _zero_out(w.reshape(-1), w.dtype.type(threshold))


def all_finite(w) -> bool:
    """Whether no element is NaN or infinite."""
    if w.size < SMALL:
        return not has_non_finite(w.reshape(-1))
    found = np.empty(PARTS, np.bool_)
    _non_finite_parts(w.reshape(-1), step(w.size), found)
    return not found.any()


def are_finite(arrays) -> bool:
    """Whether no element of any array is NaN or infinite."""
    return all(all_finite(array) for array in arrays)
