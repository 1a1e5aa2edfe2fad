"""The update of a parameter, one pass over its weights each."""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import PARTS, parallel_kernel, prange, step


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


@parallel_kernel
def _finite_parts(w, length, finite):
    for part in prange(finite.size):
        finite[part] = True
        for i in range(part * length, min(w.size, (part + 1) * length)):
            if not np.isfinite(w[i]):
                finite[part] = False


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
    finite = np.empty(PARTS, np.bool_)
    _finite_parts(w.reshape(-1), step(w.size), finite)
    return bool(finite.all())
