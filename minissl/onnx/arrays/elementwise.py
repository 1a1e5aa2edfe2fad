"""Operators that work element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.onnx.arrays.table import FUNCTIONS, Attributes, Function, as_first


def _erf(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return erf(x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _divide(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Quotients; those of whole numbers are cut, not rounded down."""
    if x.dtype.kind == "f":
        return x / y
    quotient = np.floor_divide(x, y)
    return quotient + ((quotient < 0) & (quotient * y != x))


def _clip(a: Attributes, x: np.ndarray, low: Any = None, high: Any = None) -> np.ndarray:
    low = a.get("min") if low is None else low
    high = a.get("max") if high is None else high
    x = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


def _shift(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.left_shift(x, y) if a["direction"] == "LEFT" else np.right_shift(x, y)


def _gelu(a: Attributes, x: np.ndarray) -> np.ndarray:
    if a.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def _is_inf(a: Attributes, x: np.ndarray) -> np.ndarray:
    wanted = np.where(x > 0, a.get("detect_positive", 1), a.get("detect_negative", 1))
    return np.isinf(x) & (wanted == 1)


SELU = 1.67326319217681884765625, 1.05070102214813232421875  # alpha, gamma as float32

_ELEMENTWISE: dict[str, Function] = {
    "Abs": lambda a, x: np.abs(x),
    "Acos": lambda a, x: np.arccos(x),
    "Acosh": lambda a, x: np.arccosh(x),
    "Add": lambda a, x, y: x + y,
    "Asin": lambda a, x: np.arcsin(x),
    "Asinh": lambda a, x: np.arcsinh(x),
    "Atan": lambda a, x: np.arctan(x),
    "Atanh": lambda a, x: np.arctanh(x),
    "BitShift": _shift,
    "BitwiseAnd": lambda a, x, y: x & y,
    "BitwiseNot": lambda a, x: ~x,
    "BitwiseOr": lambda a, x, y: x | y,
    "BitwiseXor": lambda a, x, y: x ^ y,
    "Ceil": lambda a, x: np.ceil(x),
    "Celu": lambda a, x: (
        np.maximum(x, 0)
        + np.minimum(0, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0) / a.get("alpha", 1.0)))
    ),
    "Clip": _clip,
    "Cos": lambda a, x: np.cos(x),
    "Cosh": lambda a, x: np.cosh(x),
    "Div": _divide,
    "Elu": lambda a, x: np.where(x > 0, x, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Erf": lambda a, x: _erf(x),
    "Exp": lambda a, x: np.exp(x),
    "Floor": lambda a, x: np.floor(x),
    "Gelu": _gelu,
    "HardSigmoid": lambda a, x: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda a, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda a, x: np.where(x < 0, a.get("alpha", 0.01) * x, x),
    "Log": lambda a, x: np.log(x),
    "Max": lambda a, *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Mean": lambda a, *xs: sum(xs[1:], start=xs[0]) / len(xs),
    "Min": lambda a, *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "Mish": lambda a, x: x * np.tanh(np.logaddexp(0, x)),
    "Mod": lambda a, x, y: np.fmod(x, y) if a.get("fmod", 0) else np.mod(x, y),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "PRelu": lambda a, x, slope: np.where(x < 0, slope * x, x),
    "Pow": lambda a, x, y: np.power(x, y),
    "Reciprocal": lambda a, x: 1 / x,
    "Relu": lambda a, x: np.maximum(x, 0),
    "Round": lambda a, x: np.rint(x),
    "Selu": lambda a, x: (
        a.get("gamma", SELU[1])
        * np.where(x > 0, x, a.get("alpha", SELU[0]) * np.expm1(np.minimum(x, 0)))
    ),
    "Shrink": lambda a, x: (
        np.where(x < -a.get("lambd", 0.5), x + a.get("bias", 0.0), 0)
        + np.where(x > a.get("lambd", 0.5), x - a.get("bias", 0.0), 0)
    ),
    "Sigmoid": lambda a, x: _sigmoid(x),
    "Sign": lambda a, x: np.sign(x),
    "Sin": lambda a, x: np.sin(x),
    "Sinh": lambda a, x: np.sinh(x),
    "Softplus": lambda a, x: np.logaddexp(0, x),
    "Softsign": lambda a, x: x / (1 + np.abs(x)),
    "Sqrt": lambda a, x: np.sqrt(x),
    "Sub": lambda a, x, y: x - y,
    "Sum": lambda a, *xs: sum(xs[1:], start=xs[0]),
    "Swish": lambda a, x: x * _sigmoid(a.get("alpha", 1.0) * x),
    "Tan": lambda a, x: np.tan(x),
    "Tanh": lambda a, x: np.tanh(x),
    "ThresholdedRelu": lambda a, x: np.where(x > a.get("alpha", 1.0), x, 0),
}
FUNCTIONS.update({name: as_first(function) for name, function in _ELEMENTWISE.items()})

FUNCTIONS.update(
    {
        "And": lambda a, x, y: np.logical_and(x, y),
        "Equal": lambda a, x, y: np.equal(x, y),
        "Greater": lambda a, x, y: np.greater(x, y),
        "GreaterOrEqual": lambda a, x, y: np.greater_equal(x, y),
        "IsInf": _is_inf,
        "IsNaN": lambda a, x: np.isnan(x),
        "Less": lambda a, x, y: np.less(x, y),
        "LessOrEqual": lambda a, x, y: np.less_equal(x, y),
        "Not": lambda a, x: np.logical_not(x),
        "Or": lambda a, x, y: np.logical_or(x, y),
        "Where": lambda a, c, x, y: np.where(c, x, y),
        "Xor": lambda a, x, y: np.logical_xor(x, y),
    }
)
