"""The update rules against formulas written anew and against a problem solved on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minissl import backend as backends
from minissl.blob import Parameter
from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.prototxt import parse_solver
from minissl.solvers import update_rules

RATES = [0.1, 0.05, 0.2, 0.01]


WITHOUT_MOMENTUM = "AdaGrad", "RMSProp"


def solver(kind, more=""):
    momentum = "" if kind in WITHOUT_MOMENTUM else "momentum: 0.9"
    return parse_solver(f'type: "{kind}" {momentum} {more}')


def gradient(i, shape=(3, 4), dtype=np.float64):
    return np.random.default_rng(i).normal(size=shape).astype(dtype)


def steps(kind, backend, more="", gradients=gradient, dtype=np.float64):
    """The steps that four different gradients and rates give."""
    kernels = backends.get(backend)
    rule = update_rules.create(solver(kind, more), kernels)
    spec, xp = proto.ParamSpec(), kernels.xp
    parameter = Parameter("ip", 0, (3, 4), "weight", spec, dtype=dtype, xp=xp)
    history = [xp.zeros((3, 4), dtype) for _ in range(rule.buffers)]
    taken = []
    for i, rate in enumerate(RATES):
        backends.assign(parameter.diff, gradients(i))
        rule.compute(parameter, history, rate, i)
        taken.append(backends.to_host(parameter.diff).copy())
    return taken


def expected_sgd():
    """The unrolled sum: h_i = sum over j of momentum^(i-j) * rate_j * g_j."""
    m = float(np.float32(0.9))
    return [
        sum(m ** (i - j) * RATES[j] * gradient(j) for j in range(i + 1)) for i in range(len(RATES))
    ]


def test_sgd(backend):
    for found, expected in zip(steps("SGD", backend), expected_sgd(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_nesterov(backend):
    """One more momentum step: the step is momentum * h + rate * g with the new h."""
    m = float(np.float32(0.9))
    found = steps("Nesterov", backend)
    for i, h in enumerate(expected_sgd()):
        np.testing.assert_allclose(found[i], m * h + RATES[i] * gradient(i), rtol=1e-12)


def test_adam(backend):
    b1, b2, delta = (float(np.float32(x)) for x in (0.9, 0.99, 0.001))
    found = steps("Adam", backend, "momentum2: 0.99 delta: 0.001")
    for i, rate in enumerate(RATES):
        weights1 = [(1 - b1) * b1 ** (i - j) for j in range(i + 1)]
        weights2 = [(1 - b2) * b2 ** (i - j) for j in range(i + 1)]
        m = sum(w * gradient(j) for j, w in enumerate(weights1))
        v = sum(w * gradient(j) ** 2 for j, w in enumerate(weights2))
        # the weights of the means add up to 1 - beta^t: that is what the correction divides by
        correction = math.sqrt(sum(weights2)) / sum(weights1)
        expected = rate * correction * m / (np.sqrt(v) + delta)
        np.testing.assert_allclose(found[i], expected, rtol=1e-12)


def test_first_step_of_adam_is_the_rate(backend):
    """Whatever the size of the gradient: the step is rate * sign(g) while delta is small."""
    for scale in (1e-3, 1.0, 1e3):
        found = steps("Adam", backend, "delta: 1e-12", lambda i, s=scale: s * gradient(i))[0]
        np.testing.assert_allclose(found, RATES[0] * np.sign(gradient(0)), rtol=1e-6)


def test_adagrad(backend):
    """By hand: the sum of all squares so far, under a root."""
    delta = float(np.float32(0.01))
    found = steps("AdaGrad", backend, "delta: 0.01")
    for i, rate in enumerate(RATES):
        root = np.sqrt(sum(gradient(j) ** 2 for j in range(i + 1)))
        np.testing.assert_allclose(found[i], rate * gradient(i) / (root + delta), rtol=1e-12)


def test_rmsprop(backend):
    """By hand: the unrolled mean, the newest square weighted by 1 - rms_decay."""
    decay, delta = (float(np.float32(x)) for x in (0.8, 0.01))
    found = steps("RMSProp", backend, "rms_decay: 0.8 delta: 0.01")
    for i, rate in enumerate(RATES):
        mean = sum((1 - decay) * decay ** (i - j) * gradient(j) ** 2 for j in range(i + 1))
        expected = rate * gradient(i) / (np.sqrt(mean) + delta)
        np.testing.assert_allclose(found[i], expected, rtol=1e-12)


def test_adadelta(backend):
    """Element by element in plain Python: the new mean of squares, the old mean of steps."""
    decay, delta = (float(np.float32(x)) for x in (0.9, 0.001))
    found = steps("AdaDelta", backend, "delta: 0.001")
    squares = moved = 0.0
    for i, rate in enumerate(RATES):
        g = float(gradient(i)[1, 2])
        squares = decay * squares + (1 - decay) * g * g
        u = g * math.sqrt(moved + delta) / math.sqrt(squares + delta)
        moved = decay * moved + (1 - decay) * u * u
        assert found[i][1, 2] == pytest.approx(rate * u, rel=1e-12)


@pytest.mark.parametrize("kind", update_rules.RULES)
def test_backends_agree_in_float32(kind):
    one, other = (steps(kind, name, dtype=np.float32) for name in ("numpy", "numba"))
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "rate", "iterations"),
    [
        ("SGD", 0.05, 400),
        ("Nesterov", 0.05, 400),
        ("Adam", 0.3, 900),
        ("AdaGrad", 0.5, 900),
        ("RMSProp", 0.1, 900),
        ("AdaDelta", 1.0, 900),
    ],
)
def test_least_squares(kind, rate, iterations, backend):
    """Each rule reaches the solution of the normal equations."""
    rng = np.random.default_rng(3)
    a, target = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    solution = np.linalg.solve(a.T @ a, a.T @ target)
    kernels = backends.get(backend)
    more = "delta: 1e-6" if kind == "AdaDelta" else ""
    rule = update_rules.create(solver(kind, more), kernels)
    spec, xp = proto.ParamSpec(), kernels.xp
    parameter = Parameter("ip", 0, (3, 1), "weight", spec, dtype=np.float64, xp=xp)
    history = [xp.zeros((3, 1)) for _ in range(rule.buffers)]
    w = np.zeros((3, 1))
    for i in range(iterations):
        backends.assign(parameter.diff, a.T @ (a @ w - target) / len(a))
        decaying = rate / (1 + 0.1 * i) if kind in ("Adam", "RMSProp") else rate
        rule.compute(parameter, history, decaying, i)
        w -= backends.to_host(parameter.diff)
    assert np.linalg.norm(solution) > 0.1
    np.testing.assert_allclose(w, solution, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "RMSPorp"', "unknown solver type 'RMSPorp'; use one of SGD, .*RMSProp, AdaDelta"),
        ('type: "AdaGrad" momentum: 0.9', "AdaGrad has no momentum, but momentum is 0.9; remove"),
        ('type: "RMSProp" momentum: 0.9', "RMSProp has no momentum"),
        ('type: "RMSProp" rms_decay: 1', "rms_decay is 1; it must be at least 0 and below 1"),
        ('type: "AdaGrad" group_lasso_method: "proximal"', "AdaGrad changes by itself; use SGD"),
        ('type: "AdaDelta" group_lasso_method: "proximal"', "AdaDelta changes by itself"),
        ("momentum: 1", "momentum is 1; it must be at least 0 and below 1"),
        ("momentum: -0.5", "momentum is -0.5"),
    ],
)
def test_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        update_rules.create(parse_solver(text), backends.get("numpy"))
