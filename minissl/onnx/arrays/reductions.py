"""Operators that reduce axes: sums, extremes and where those are."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.onnx.arrays.table import FUNCTIONS, Attributes, Function, as_first


def reduced_axes(a: Attributes, x: np.ndarray, given: Any = None) -> tuple[int, ...] | None:
    """Return the axes to reduce, from the attribute (old) or the input (new); () for none."""
    axes = a.get("axes") if given is None else given.ravel().tolist()
    if axes:
        return tuple(int(axis) for axis in axes)
    return () if a.get("noop_with_empty_axes", 0) else None


def _reduction(function: Function) -> Function:
    def reduced(a: Attributes, x: np.ndarray, axes: Any = None) -> np.ndarray:
        return function(x, axis=reduced_axes(a, x, axes), keepdims=bool(a.get("keepdims", 1)))

    return as_first(reduced)


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
