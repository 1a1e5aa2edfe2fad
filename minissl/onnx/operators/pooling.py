"""Pooling and reductions, as layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.onnx.arrays.windows import pooled_counts, window_settings
from minissl.onnx.graph import Node
from minissl.onnx.operators.shapes import axes_of, axis_of, reshape
from minissl.onnx.operators.table import MAX_PADDED, operator
from minissl.onnx.translation import Inexpressible, Translation


@operator("MaxPool", "AveragePool")
def _pool(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape, a = t.shape(x), node.attributes
    if len(node.outputs) > 1 and node.outputs[1]:
        raise Inexpressible(f"{node}: Caffe numbers maxima within a plane, ONNX within the blob.")
    if len(shape) == 3:
        y = _pooled(t, node, reshape(t, node, x, (*shape[:2], 1, shape[2])), signals=True)
        N, C, _, L = t.shape(y)
        reshape(t, node, y, (N, C, L), node.outputs[:1])
        return
    if len(shape) != 4 or "kernel_shape" not in a:
        raise Inexpressible(f"{node}: Caffe pools images, not blobs of shape {shape}.")
    _pooled(t, node, x)


def _pooled(t: Translation, node: Node, x: str, signals: bool = False) -> str:
    """Pool images, rounding the number of windows up or down, whichever is right.

    Only where windows begin and how many there are matters to a maximum; what hangs over the edge
    does not count. A mean divides by its area, where Caffe counts the padding and ONNX counts it
    only if asked, what hangs over the edge included: then a Scale layer with the ratio follows.
    """
    a = node.attributes
    sizes = t.shape(x)[2:]
    one = [1] if signals else []  # the row that makes a signal an image
    settings = window_settings(a, sizes[len(one) :], a["kernel_shape"])
    kernel, stride, dilation = ([*one, *numbers] for numbers in settings[:3])
    half = len(settings[3]) // 2
    zero = [0] * len(one)
    first, last = [*zero, *settings[3][:half]], [*zero, *settings[3][half:]]
    if dilation != [1, 1]:
        raise Inexpressible(f"{node}: Caffe has no pooling with dilation.")
    wanted = pooled_counts(
        sizes, kernel, stride, dilation, first + last, bool(a.get("ceil_mode", 0))
    )
    whole = kernel, stride, first
    kernel, stride, first = _cut_to_image(sizes, wanted, *whole)
    even = [pooled_counts(sizes, kernel, stride, dilation, first * 2, up) for up in (True, False)]
    if min(wanted) < 1 or math.prod(wanted) > MAX_PADDED:
        raise Inexpressible(f"{node}: {wanted} windows are out of range.")
    if wanted not in even:
        raise Inexpressible(f"{node}: its padding {first + last} is uneven beyond Caffe's pooling.")
    mean = node.op == "AveragePool"
    ratio = np.ones(1)
    if mean:
        padding = (whole[2], last) if a.get("count_include_pad", 0) else ([0, 0], [0, 0])
        theirs = zip(sizes, wanted, *whole, *padding, strict=True)
        ours = zip(sizes, wanted, kernel, stride, first, first, first, strict=True)
        rows, columns = (
            _lengths(*one) / _lengths(*other) for one, other in zip(ours, theirs, strict=True)
        )
        ratio = np.outer(rows, columns)
    fields = {
        **({"pool": "AVE"} if mean else {}),
        **{f"{k.removesuffix('_size')}{s}": v for k, s, v in _pool_numbers(kernel, stride, first)},
        **({} if wanted == even[0] else {"round_mode": "FLOOR"}),
    }
    corrected = bool((ratio != 1).any())
    tops = () if signals or corrected else node.outputs[:1]
    y = t.layer(node, "Pooling", [x], tops, pooling_param=fields)[0]
    if corrected:
        scale = {"axis": 2, "num_axes": 2}
        tops = () if signals else node.outputs[:1]
        blobs = [ratio.astype(np.float32)]
        y = t.layer(node, "Scale", [y], tops, blobs, scale_param=scale)[0]
    return y


def _pool_numbers(kernel: Any, stride: Any, pad: Any) -> list[tuple[str, str, int]]:
    """Return (field, suffix, number): one for both axes where they are equal."""
    numbers = []
    for name, (h, w), usual in (
        ("kernel_size", kernel, None),
        ("stride", stride, 1),
        ("pad", pad, 0),
    ):
        if h != w:
            numbers += [(name, "_h", h), (name, "_w", w)]
        elif h != usual:
            numbers.append((name, "_size" if name == "kernel_size" else "", h))
    return numbers


def _cut_to_image(sizes: Any, counts: Any, kernel: Any, stride: Any, pad: Any) -> Any:
    """Return kernel, stride and padding, where a single window of the whole image is no larger.

    Caffe has no window that is larger than the image and hangs over its end alone.
    """
    cut = [
        (size, 1, 0) if count == 1 and k - p >= size else (k, s, p)
        for size, count, k, s, p in zip(sizes, counts, kernel, stride, pad, strict=True)
    ]
    return tuple(list(numbers) for numbers in zip(*cut, strict=True))


def _lengths(
    size: int, count: int, kernel: int, stride: int, pad: int, before: int, behind: int
) -> np.ndarray:
    """Return how much of each window counts along an axis: the image and what pads it.

    Windows begin at -`pad`; what counts are the pixels from -`before` to `size` + `behind`.
    """
    start = np.arange(count) * stride - pad
    counted = np.minimum(start + kernel, size + behind) - np.maximum(start, -before)
    if counted.min() < 1:
        raise ConfigError("a window lies in the padding alone.")
    return counted


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(t: Translation, node: Node) -> None:
    _global(t, node, t.blob(node, 0), node.op == "GlobalAveragePool", node.outputs[:1])


def _global(t: Translation, node: Node, x: str, mean: bool, tops: Any) -> str:
    if len(t.shape(x)) != 4:
        raise Inexpressible(f"{node}: Caffe pools images, not blobs of shape {t.shape(x)}.")
    fields = {**({"pool": "AVE"} if mean else {}), "global_pooling": True}
    return t.layer(node, "Pooling", [x], tops, pooling_param=fields)[0]


_REDUCTIONS = {"ReduceSum": "SUM", "ReduceL1": "ASUM", "ReduceSumSquare": "SUMSQ"}


@operator("ReduceMean", "ReduceSum", "ReduceL1", "ReduceSumSquare", "ReduceMax")
def _reduce(t: Translation, node: Node) -> None:
    """Pool all pixels, or reduce all axes from one on."""
    x = t.blob(node, 0)
    shape, axes = t.shape(x), axes_of(t, node)
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        t.alias(node, x)
        return
    reduced = sorted(axis_of(node, axis, len(shape)) for axis in axes or range(len(shape)))
    keeps = bool(node.attributes.get("keepdims", 1))
    target = tuple(
        1 if axis in reduced else length
        for axis, length in enumerate(shape)
        if keeps or axis not in reduced
    )
    if reduced == [2, 3] and len(shape) == 4 and node.op in ("ReduceMean", "ReduceMax"):
        tops = node.outputs[:1] if keeps else ()
        y = _global(t, node, x, node.op == "ReduceMean", tops)
    elif node.op == "ReduceMax" or reduced != list(range(reduced[0], len(shape))):
        raise Inexpressible(f"{node}: Caffe reduces all axes from one on, not {reduced}.")
    else:
        kind = _REDUCTIONS.get(node.op, "MEAN")
        fields = {"operation": kind, "axis": reduced[0]}
        tops = () if target != shape[: reduced[0]] else node.outputs[:1]
        y = t.layer(node, "Reduction", [x], tops, reduction_param=fields)[0]
    if not tops:
        reshape(t, node, y, target, node.outputs[:1])
