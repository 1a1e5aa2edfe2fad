"""Learning-rate policies: the rate at iteration i, from a solver's ``lr_policy``.

===========  ==========================================================
fixed        base
step         base * gamma ^ floor(i / stepsize)
exp          base * gamma ^ i
inv          base * (1 + gamma * i) ^ -power
multistep    base * gamma ^ (number of ``stepvalue`` passed)
poly         base * (1 - i / max_iter) ^ power
sigmoid      base / (1 + exp(-gamma * (i - stepsize)))
===========  ==========================================================

Fields of a prototxt are float32; the arithmetic is double, except the product ``gamma * i`` of
``inv``, which the published program forms in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.errors import ConfigError

#: of e; a float64 holds no larger power
LARGEST_EXPONENT = 700.0
POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")


def check(solver: Any) -> None:
    """Refuse a policy that is unknown or lacks a field it needs.

    Raises
    ------
    ConfigError
        With the name of the field.
    """
    policy = solver.lr_policy
    if policy not in POLICIES:
        raise ConfigError(f"unknown lr_policy '{policy}'; use one of {', '.join(POLICIES)}")
    if policy in ("step", "sigmoid") and solver.stepsize < 1:
        raise ConfigError(f"lr_policy '{policy}' needs a stepsize of at least 1")
    if policy == "poly" and solver.max_iter < 1:
        raise ConfigError("lr_policy 'poly' needs max_iter")
    if policy in ("step", "exp", "inv", "multistep") and not solver.gamma >= 0:
        raise ConfigError(f"gamma is {solver.gamma:g}; lr_policy '{policy}' needs 0 or more")
    if policy == "multistep" and not solver.stepvalue:
        raise ConfigError("lr_policy 'multistep' needs at least one stepvalue")


def course(solver: Any) -> list[float]:
    """Return the rate of every iteration up to ``max_iter``."""
    passed, rates = 0, []
    for iteration in range(solver.max_iter):
        passed = steps_passed(solver, iteration, passed)
        rates.append(rate(solver, iteration, passed))
    return rates


def compress(solver: Any, iterations: int) -> None:
    """Let a solver run through the whole course of its rates in fewer iterations (or more).

    With r = iterations / max_iter, iteration r * i then has the rate that iteration i had, but for
    the rounding of steps to whole iterations; each rate of ``multistep`` keeps one iteration at
    least. Changes ``max_iter`` and the fields that the policy reads.
    """
    whole = solver.max_iter
    ratio = iterations / whole
    solver.max_iter = iterations
    latest = iterations - 1
    for number, value in reversed(list(enumerate(solver.stepvalue))):
        solver.stepvalue[number] = max(1, round(value * ratio))
        if value < whole:
            solver.stepvalue[number] = max(0, min(solver.stepvalue[number], latest))
            latest = solver.stepvalue[number] - 1
    solver.stepsize = max(1, round(solver.stepsize * ratio)) if solver.stepsize else 0
    if solver.lr_policy in ("inv", "sigmoid"):
        solver.gamma /= ratio
    elif solver.lr_policy == "exp":
        solver.gamma **= 1 / ratio


def steps_passed(solver: Any, iteration: int, passed: int) -> int:
    """Count the stepvalues passed, given those passed so far: at most one more per iteration."""
    values = solver.stepvalue
    return passed + 1 if passed < len(values) and iteration >= values[passed] else passed


def rate(solver: Any, iteration: int, passed: int = 0) -> float:
    """Return the learning rate of an iteration.

    Parameters
    ----------
    solver : SolverParameter
        lr_policy, base_lr, gamma, power, stepsize, stepvalue, max_iter.
    iteration : int
        i, counted from 0.
    passed : int
        For ``multistep``: stepvalues passed, see :func:`steps_passed`.

    Raises
    ------
    ConfigError
        When it is larger than numbers can be.
    """
    try:
        return _rate(solver, iteration, passed)
    except (OverflowError, ZeroDivisionError):
        raise ConfigError(
            f"the learning rate of iteration {iteration} is beyond all numbers; change "
            "gamma or power"
        ) from None


def _rate(solver: Any, iteration: int, passed: int) -> float:
    base, gamma, power = solver.base_lr, solver.gamma, solver.power
    policy = solver.lr_policy
    if policy == "step":
        return base * gamma ** (iteration // solver.stepsize)
    if policy == "exp":
        return base * gamma**iteration
    if policy == "inv":
        product = float(np.float32(gamma) * np.float32(iteration))
        return base * (1 + product) ** -power
    if policy == "multistep":
        return base * gamma**passed
    if policy == "poly":
        return base * max(0.0, 1 - iteration / solver.max_iter) ** power
    if policy == "sigmoid":
        exponent = -gamma * (iteration - solver.stepsize)
        return base / (1 + math.exp(exponent)) if exponent < LARGEST_EXPONENT else 0.0
    return base
