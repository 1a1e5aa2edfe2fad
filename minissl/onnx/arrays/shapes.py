"""Operators that make constants, or change the type, the shape or the order of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.onnx.arrays.reductions import reduced_axes
from minissl.onnx.arrays.table import Attributes, operator


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


def pad_widths(a: Attributes, rank: int, pads: Any, axes: Any = None) -> list[tuple[int, int]]:
    """Return (before, behind) for each axis; settings are attributes before opset 11."""
    amounts: Any = a.get("pads", a.get("paddings")) if pads is None else pads.tolist()
    axes = range(rank) if axes is None else [axis % rank for axis in axes.tolist()]
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = amounts[i], amounts[i + len(amounts) // 2]
    return widths


@operator("Pad")
def _pad(a: Attributes, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    widths = pad_widths(a, x.ndim, pads, axes)
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
    return np.squeeze(x, reduced_axes({"axes": a.get("axes")}, x, axes))


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
    return np.expand_dims(x, reduced_axes(a, x, axes) or ())


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
