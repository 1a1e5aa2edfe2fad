"""The update of a parameter, one pass over its weights each."""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import PARTS, kernel, parallel_kernel, prange, step


@parallel_kernel
def _sgd(d_w, history, rate, momentum):
    for i in prange(d_w.size):
        history[i] = rate * d_w[i] + momentum * history[i]
        d_w[i] = history[i]


@parallel_kernel
def _nesterov(d_w, history, rate, momentum):
    for i in prange(d_w.size):
        previous = history[i]
        history[i] = rate * d_w[i] + momentum * previous
        d_w[i] = (1 + momentum) * history[i] - momentum * previous


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
def count_non_finite(run):
    """Count NaN and infinity: the only numbers that are not 0 when taken from themselves."""
    count = 0
    for i in range(run.size):
        count += run[i] - run[i] != 0
    return count


@parallel_kernel
def _non_finite_parts(w, length, counts):
    for part in prange(counts.size):
        counts[part] = count_non_finite(w[part * length : (part + 1) * length])


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
    counts = np.empty(PARTS, np.int64)
    _non_finite_parts(w.reshape(-1), step(w.size), counts)
    return not counts.any()


def are_finite(arrays) -> bool:
    """Whether no element of any array is NaN or infinite."""
    return all(all_finite(array) for array in arrays)
