"""ONNX operators as functions of NumPy arrays.

Constants are folded with them, and the backend runs what no layer of minissl computes. A function
gets the node's attributes as a dict (with the version of the operators under ``"opset"``), then the
inputs, None for one that is left out; it returns an array, or a tuple of them. Results have the
type that ONNX demands.

Windows that slide (convolution, pooling) are in :mod:`minissl.onnx.array_windows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.errors import ConfigError

Attributes = dict[str, Any]
Function = Callable[..., Any]

FUNCTIONS: dict[str, Function] = {}


def operator(*names: str) -> Callable[[Function], Function]:
    """Make a function known under the names of ONNX operators."""

    def add(function: Function) -> Function:
        FUNCTIONS.update(dict.fromkeys(names, function))
        return function

    return add


# --- element by element ---


def _as_first(function: Function) -> Function:
    """Return the result in the type of the first input, as ONNX demands of most operators."""

    def typed(a: Attributes, x: Any, *more: Any) -> Any:
        return np.asarray(function(a, x, *more)).astype(x.dtype)

    return typed


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
FUNCTIONS.update({name: _as_first(function) for name, function in _ELEMENTWISE.items()})

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

# --- sums and extremes over axes ---


def _axes(a: Attributes, x: np.ndarray, given: Any = None) -> tuple[int, ...] | None:
    """Return the axes to reduce, from the attribute (old) or the input (new); () for none."""
    axes = a.get("axes") if given is None else given.ravel().tolist()
    if axes:
        return tuple(int(axis) for axis in axes)
    return () if a.get("noop_with_empty_axes", 0) else None


def _reduction(function: Function) -> Function:
    def reduced(a: Attributes, x: np.ndarray, axes: Any = None) -> np.ndarray:
        return function(x, axis=_axes(a, x, axes), keepdims=bool(a.get("keepdims", 1)))

    return _as_first(reduced)


def _log_sum_exp(x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    wide: Any = x.astype(np.float64)
    return np.logaddexp.reduce(wide, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]


def _index_of(function: Function) -> Function:
    """The place of the first (or last) extreme along an axis."""

    def found(a: Attributes, x: np.ndarray) -> np.ndarray:
        axis = a.get("axis", 0)
        if a.get("select_last_index", 0):
            places = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
        else:
            places = function(x, axis=axis)
        if a.get("keepdims", 1):
            places = np.expand_dims(places, axis)
        return np.asarray(places, dtype=np.int64)

    return found


_REDUCTIONS: dict[str, Function] = {
    "ReduceL1": lambda x, **to: np.sum(np.abs(x), **to),
    "ReduceL2": lambda x, **to: np.sqrt(np.sum(np.square(x.astype(np.float64)), **to)),
    "ReduceLogSum": lambda x, **to: np.log(np.sum(x, **to)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": lambda x, **to: np.maximum.reduce(x, initial=_lowest(x), **to),
    "ReduceMean": lambda x, **to: np.mean(x, **to),
    "ReduceMin": lambda x, **to: np.minimum.reduce(x, initial=_highest(x), **to),
    "ReduceProd": lambda x, **to: np.prod(x, **to),
    "ReduceSum": lambda x, **to: np.sum(x, **to),
    "ReduceSumSquare": lambda x, **to: np.sum(np.square(x), **to),
}
FUNCTIONS.update({name: _reduction(function) for name, function in _REDUCTIONS.items()})
FUNCTIONS.update({"ArgMax": _index_of(np.argmax), "ArgMin": _index_of(np.argmin)})


def _lowest(x: np.ndarray) -> Any:
    if x.dtype.kind == "f":
        return -np.inf
    return False if x.dtype == bool else np.iinfo(x.dtype).min


def _highest(x: np.ndarray) -> Any:
    if x.dtype.kind == "f":
        return np.inf
    return True if x.dtype == bool else np.iinfo(x.dtype).max


# --- softmax, normalization, products ---


def _rows(a: Attributes, x: np.ndarray) -> tuple[np.ndarray, int]:
    """Return what a softmax sees: the axis alone, or before opset 13 all from it on, folded."""
    if a["opset"] >= 13:
        return x, a.get("axis", -1)
    start = a.get("axis", 1) % (x.ndim or 1)
    return x.reshape(math.prod(x.shape[:start]), -1), 1


@operator("Softmax")
def _softmax(a: Attributes, x: np.ndarray) -> np.ndarray:
    rows, axis = _rows(a, x)
    y = np.exp(rows - rows.max(axis=axis, keepdims=True))
    return (y / y.sum(axis=axis, keepdims=True)).reshape(x.shape)


@operator("LogSoftmax")
def _log_softmax(a: Attributes, x: np.ndarray) -> np.ndarray:
    rows, axis = _rows(a, x)
    rows = rows - rows.max(axis=axis, keepdims=True)
    return (rows - np.log(np.exp(rows).sum(axis=axis, keepdims=True))).reshape(x.shape)


@operator("Hardmax")
def _hardmax(a: Attributes, x: np.ndarray) -> np.ndarray:
    rows, axis = _rows(a, x)
    y = np.zeros_like(rows)
    np.put_along_axis(y, np.expand_dims(rows.argmax(axis), axis), 1, axis)
    return y.reshape(x.shape)


@operator("Gemm")
def _gemm(a: Attributes, x: np.ndarray, w: np.ndarray, c: Any = None) -> np.ndarray:
    x, w = (x.T if a.get("transA", 0) else x), (w.T if a.get("transB", 0) else w)
    y = a.get("alpha", 1.0) * (x @ w)
    return (y if c is None else y + a.get("beta", 1.0) * c).astype(x.dtype)


@operator("MatMul")
def _matmul(a: Attributes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x @ y


@operator("Einsum")
def _einsum(a: Attributes, *xs: np.ndarray) -> np.ndarray:
    return np.einsum(a["equation"], *xs)


@operator("LRN")
def _lrn(a: Attributes, x: np.ndarray) -> np.ndarray:
    before, behind = (a["size"] - 1) // 2, a["size"] // 2
    padding = [(0, 0), (before, behind)] + [(0, 0)] * (x.ndim - 2)
    squares = np.pad(np.square(x), padding)
    windows = sum(squares[:, i : i + x.shape[1]] for i in range(a["size"]))
    scale = a.get("bias", 1.0) + a.get("alpha", 1e-4) / a["size"] * windows
    return (x / scale ** a.get("beta", 0.75)).astype(x.dtype)


def _per_channel(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


@operator("BatchNormalization")
def _batch_normalization(a: Attributes, x: Any, scale: Any, b: Any, mean: Any, var: Any) -> Any:
    training = a.get("training_mode", 0)
    running = mean, var
    if training:
        axes = (0, *range(2, x.ndim))
        keep = a.get("momentum", 0.9)
        mean, var = x.mean(axis=axes), x.var(axis=axes)
        running = tuple(
            (keep * old + (1 - keep) * new).astype(old.dtype)
            for old, new in zip(running, (mean, var), strict=True)
        )
    mean, var, scale, b = (_per_channel(v, x) for v in (mean, var, scale, b))
    y = (x - mean) / np.sqrt(var + a.get("epsilon", 1e-5)) * scale + b
    return (y.astype(x.dtype), *running) if training else y.astype(x.dtype)


@operator("InstanceNormalization")
def _instance_normalization(a: Attributes, x: Any, scale: Any, b: Any) -> np.ndarray:
    axes = tuple(range(2, x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    y = (x - mean) / np.sqrt(var + a.get("epsilon", 1e-5))
    return (y * _per_channel(scale, x) + _per_channel(b, x)).astype(x.dtype)


@operator("LayerNormalization")
def _layer_normalization(a: Attributes, x: Any, scale: Any, b: Any = None) -> Any:
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + a.get("epsilon", 1e-5))
    y = (x - mean) * inverse * scale
    return (y if b is None else y + b).astype(x.dtype), mean, inverse.astype(x.dtype)


@operator("MeanVarianceNormalization")
def _mean_variance(a: Attributes, x: np.ndarray) -> np.ndarray:
    axes = tuple(a.get("axes", (0, 2, 3)))
    mean, deviation = x.mean(axis=axes, keepdims=True), x.std(axis=axes, keepdims=True)
    return ((x - mean) / (deviation + 1e-9)).astype(x.dtype)


@operator("LpNormalization")
def _lp_normalization(a: Attributes, x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, ord=a.get("p", 2), axis=a.get("axis", -1), keepdims=True)
    return np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype)


@operator("Dropout")
def _dropout(a: Attributes, x: Any, ratio: Any = None, training: Any = None) -> Any:
    """Only with ``training_mode`` values are left out; the draw is NumPy's of old."""
    ratio = a.get("ratio", 0.5) if ratio is None else float(ratio)
    if training is None or not bool(training) or not ratio:
        return x, np.ones(x.shape, dtype=bool)
    kept = np.random.RandomState(a.get("seed", 0)).uniform(0, 1, x.shape) >= ratio
    return (x * kept / (1 - ratio)).astype(x.dtype), kept


@operator("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(a: Attributes, x: Any, labels: Any, weight: Any = None) -> Any:
    """Mean (or sum) of -w[label] * x[label]; labels equal to ``ignore_index`` do not count."""
    ignored = labels == a["ignore_index"] if "ignore_index" in a else np.zeros(labels.shape, bool)
    safe = np.where(ignored, 0, labels)
    chosen = np.take_along_axis(x, np.expand_dims(safe, 1), axis=1).squeeze(1)
    w = np.ones(labels.shape, x.dtype) if weight is None else weight[safe]
    w = np.where(ignored, 0, w)
    loss = -chosen * w
    kind = a.get("reduction", "mean")
    if kind == "none":
        return loss.astype(x.dtype)
    return np.asarray(loss.sum() / w.sum() if kind == "mean" else loss.sum(), dtype=x.dtype)


@operator("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(a: Attributes, x: Any, labels: Any, weight: Any = None) -> Any:
    log_p = _log_softmax({"opset": 13, "axis": 1}, x).astype(x.dtype)
    return _negative_log_likelihood(a, log_p, labels, weight), log_p


# --- types and shapes ---


def type_of(number: int) -> np.dtype:
    """Return the NumPy type of a ``TensorProto.DataType``; refuse what NumPy does not have."""
    from minissl.onnx import library

    dtype = np.dtype(library.load().helper.tensor_dtype_to_np_dtype(number))
    if dtype.isbuiltin != 1 or dtype.kind not in "biuf":
        raise ConfigError(f"element type {number} is not one that minissl computes with.")
    return dtype


@operator("Cast", "CastLike")
def _cast(a: Attributes, x: np.ndarray, like: Any = None) -> np.ndarray:
    dtype = type_of(a["to"]) if like is None else like.dtype
    if any(one.isbuiltin != 1 or one.kind not in "biuf" for one in (x.dtype, dtype)):
        raise ConfigError("only numbers of NumPy's own types are cast.")
    return x.astype(dtype)


@operator("Constant")
def _constant(a: Attributes) -> np.ndarray:
    for name, dtype in (("value_float", "f4"), ("value_floats", "f4")):
        if name in a:
            return np.array(a[name], dtype)
    for name in ("value_int", "value_ints"):
        if name in a:
            return np.array(a[name], np.int64)
    return a["value"] if "value" in a else a["sparse_value"]


@operator("ConstantOfShape")
def _constant_of_shape(a: Attributes, shape: np.ndarray) -> np.ndarray:
    value = a.get("value", np.zeros(1, np.float32))
    return np.full(tuple(shape), value.reshape(-1)[0], value.dtype)


@operator("Concat")
def _concat(a: Attributes, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, axis=a.get("axis", 1))


@operator("Expand")
def _expand(a: Attributes, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x * np.ones(tuple(shape), x.dtype)


@operator("EyeLike")
def _eye_like(a: Attributes, x: np.ndarray) -> np.ndarray:
    rows, columns = x.shape
    dtype = type_of(a["dtype"]) if "dtype" in a else x.dtype
    return np.eye(rows, columns, k=a.get("k", 0), dtype=dtype)


@operator("Flatten")
def _flatten(a: Attributes, x: np.ndarray) -> np.ndarray:
    axis = a.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Gather")
def _gather(a: Attributes, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, indices, axis=a.get("axis", 0))


@operator("GatherElements")
def _gather_elements(a: Attributes, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = a.get("axis", 0)
    return np.take_along_axis(x, np.where(indices < 0, indices + x.shape[axis], indices), axis)


@operator("Identity")
def _identity(a: Attributes, x: np.ndarray) -> np.ndarray:
    return x


@operator("Pad")
def _pad(a: Attributes, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    amounts: Any = a.get("pads", a.get("paddings")) if pads is None else pads.tolist()
    axes = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = amounts[i], amounts[i + len(amounts) // 2]
    cut = tuple(
        slice(max(0, -before), length - max(0, -behind))
        for (before, behind), length in zip(widths, x.shape, strict=True)
    )
    widths = [(max(0, before), max(0, behind)) for before, behind in widths]
    mode = a.get("mode", "constant")
    if mode == "constant":
        fill = a.get("value", 0) if value is None else value.reshape(-1)[0]
        return np.pad(x[cut], widths, constant_values=fill)
    if mode not in ("reflect", "edge", "wrap"):
        raise ConfigError(f"mode {mode} of Pad is unknown.")
    return np.pad(x[cut], widths, mode)


@operator("Range")
def _range(a: Attributes, start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> np.ndarray:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def reshaped(shape: tuple[int, ...], target: list[int], allow_zero: bool = False) -> list[int]:
    """Return the shape that Reshape gives: 0 keeps a length, -1 takes what is left over.

    Raises
    ------
    ConfigError
        If the numbers of elements differ.
    """
    if not allow_zero:
        if any(length == 0 and i >= len(shape) for i, length in enumerate(target)):
            raise ConfigError(f"a value of shape {shape} cannot be reshaped to {target}.")
        target = [shape[i] if length == 0 else length for i, length in enumerate(target)]
    size, rest = math.prod(shape), math.prod(length for length in target if length != -1)
    if target.count(-1) == 1 and rest > 0 and size % rest == 0:
        target = [size // rest if length == -1 else length for length in target]
    if min(target, default=0) < 0 or math.prod(target) != size:
        raise ConfigError(f"a value of shape {shape} cannot be reshaped to {target}.")
    return target


@operator("Reshape")
def _reshape(a: Attributes, x: np.ndarray, shape: Any = None) -> np.ndarray:
    target = a["shape"] if shape is None else shape.tolist()
    return x.reshape(reshaped(x.shape, target, bool(a.get("allowzero", 0))))


@operator("Shape")
def _shape(a: Attributes, x: np.ndarray) -> np.ndarray:
    return np.array(x.shape[slice(a.get("start", 0), a.get("end"))], dtype=np.int64)


@operator("Size")
def _size(a: Attributes, x: np.ndarray) -> np.ndarray:
    return np.array(x.size, dtype=np.int64)


def slices(
    a: Attributes, rank: int, starts: Any, ends: Any, axes: Any, steps: Any
) -> tuple[slice, ...]:
    """Return what Slice takes of each axis; settings are attributes before opset 10."""
    starts, ends = (
        a[name] if given is None else given.tolist()
        for name, given in (("starts", starts), ("ends", ends))
    )
    axes = a.get("axes", range(len(starts))) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    chosen = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # going backward, -1 could not be told from the last element
        chosen[axis] = slice(start, None if step < 0 and end < -(2**31) else end, step)
    return tuple(chosen)


@operator("Slice")
def _slice(
    a: Attributes, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> np.ndarray:
    return x[slices(a, x.ndim, starts, ends, axes, steps)]


def split_sizes(a: Attributes, length: int, outputs: Any, sizes: Any = None) -> list[int]:
    """Return the lengths of the parts that Split makes."""
    if sizes is not None:
        return [int(size) for size in sizes]
    if a.get("split"):
        return list(a["split"])
    part = -(-length // outputs)
    return [part] * (outputs - 1) + [length - part * (outputs - 1)]


@operator("Split")
def _split(a: Attributes, x: np.ndarray, sizes: Any = None) -> tuple[np.ndarray, ...]:
    axis = a.get("axis", 0)
    parts = split_sizes(a, x.shape[axis], a.get("num_outputs", a["outputs"]), sizes)
    return tuple(np.split(x, np.cumsum(parts)[:-1], axis=axis))


@operator("Squeeze")
def _squeeze(a: Attributes, x: np.ndarray, axes: Any = None) -> np.ndarray:
    return np.squeeze(x, _axes({"axes": a.get("axes")}, x, axes))


@operator("Tile")
def _tile(a: Attributes, x: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    return np.tile(x, repeats)


@operator("Transpose")
def _transpose(a: Attributes, x: np.ndarray) -> np.ndarray:
    return np.transpose(x, a.get("perm"))


@operator("Trilu")
def _trilu(a: Attributes, x: np.ndarray, k: Any = None) -> np.ndarray:
    return (np.triu if a.get("upper", 1) else np.tril)(x, 0 if k is None else int(k))


@operator("Unsqueeze")
def _unsqueeze(a: Attributes, x: np.ndarray, axes: Any = None) -> np.ndarray:
    return np.expand_dims(x, _axes(a, x, axes) or ())


@operator("DepthToSpace")
def _depth_to_space(a: Attributes, x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    b = a["blocksize"]
    if a.get("mode", "DCR") == "DCR":
        parts, order = (n, b, b, c // b**2, h, w), (0, 3, 4, 1, 5, 2)
    else:
        parts, order = (n, c // b**2, b, b, h, w), (0, 1, 4, 2, 5, 3)
    return x.reshape(parts).transpose(order).reshape(n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def _space_to_depth(a: Attributes, x: np.ndarray) -> np.ndarray:
    n, c, h, w = x.shape
    b = a["blocksize"]
    order = (0, 3, 5, 1, 2, 4) if a.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    parts = x.reshape(n, c, h // b, b, w // b, b).transpose(order)
    return parts.reshape(n, c * b**2, h // b, w // b)


@operator("CumSum")
def _cumsum(a: Attributes, x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    along = int(axis)
    y = np.flip(x, along) if a.get("reverse", 0) else x
    y = np.cumsum(y, axis=along, dtype=x.dtype) - (y if a.get("exclusive", 0) else 0)
    return np.flip(y, along) if a.get("reverse", 0) else y


# --- calling them ---


def call(
    op: str, attributes: Attributes, opset: int, outputs: int, inputs: list[Any]
) -> list[np.ndarray]:
    """Run one operator; return its outputs.

    Raises
    ------
    ConfigError
        If the operator is not in the table, or the inputs do not fit it.
    """
    from minissl.onnx import array_windows  # noqa: F401  # fills the table

    function = FUNCTIONS.get(op)
    if function is None:
        raise ConfigError(f"the operator {op} is not one that minissl computes.")
    try:
        with np.errstate(all="ignore"):
            result = function({**attributes, "opset": opset, "outputs": outputs}, *inputs)
    except (
        *(ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError),
        *(MemoryError, np.exceptions.AxisError),
    ) as reason:
        raise ConfigError(f"{op} does not fit its inputs: {str(reason)[:160]}.") from None
    results = result if isinstance(result, tuple) else (result,)
    return [np.asarray(array) for array in results[:outputs]]
