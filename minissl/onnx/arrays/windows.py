"""Operators whose windows slide over any number of spatial axes, as functions of arrays.

The layers of minissl work on images; these also serve signals (1-D), volumes (3-D), and options
that Caffe does not have. Inputs are (N, C, *spatial).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.onnx.arrays.table import Attributes, operator


def same_pads(a: Attributes, sizes: Any, kernel: Any, stride: Any, dilation: Any) -> list[int]:
    """Return the padding (all begins, then all ends) that ``pads`` or ``auto_pad`` asks for.

    SAME makes ceil(size / stride) windows; an odd pixel goes to the end (UPPER) or begin (LOWER).
    """
    mode = a.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(a.get("pads") or [0] * 2 * len(sizes))
    if mode == "VALID":
        return [0] * 2 * len(sizes)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise ConfigError(f"auto_pad {mode} is unknown; use SAME_UPPER, SAME_LOWER or VALID.")
    totals = [
        max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return small + large if mode == "SAME_UPPER" else large + small


def window_settings(a: Attributes, sizes: Any, kernel: Any) -> tuple[Any, Any, Any, list[int]]:
    """Return kernel, strides, dilations and pads, one number for each spatial axis.

    Raises
    ------
    ConfigError
        If their numbers do not agree, or one is too small.
    """
    rank = len(sizes)
    stride = list(a.get("strides") or [1] * rank)
    dilation = list(a.get("dilations") or [1] * rank)
    if not len(kernel) == len(stride) == len(dilation) == rank:
        raise ConfigError(f"kernel, strides and dilations must have {rank} numbers each.")
    if min([*kernel, *stride, *dilation], default=1) < 1:
        raise ConfigError("kernel, strides and dilations must be at least 1.")
    pads = same_pads(a, sizes, kernel, stride, dilation)
    if len(pads) != 2 * rank or min(pads, default=0) < 0:
        raise ConfigError(f"pads must be {2 * rank} numbers that are not negative.")
    return kernel, stride, dilation, pads


def _windows(x: np.ndarray, kernel: Any, stride: Any, dilation: Any, counts: Any) -> np.ndarray:
    """Return a view (N, C, *counts, *kernel) of a padded input."""
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    starts = tuple(slice(0, (n - 1) * s + 1, s) for n, s in zip(counts, stride, strict=True))
    steps = tuple(slice(None, None, d) for d in dilation)
    chosen = (slice(None), slice(None), *starts, *steps)
    return view[chosen]


def _padded(x: np.ndarray, pads: Any, value: Any) -> np.ndarray:
    rank = x.ndim - 2
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    return np.pad(x, widths, constant_values=value)


@operator("Conv")
def _conv(a: Attributes, x: np.ndarray, w: np.ndarray, b: Any = None) -> np.ndarray:
    kernel, stride, dilation, pads = window_settings(a, x.shape[2:], w.shape[2:])
    x = _padded(x, pads, 0)
    counts = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    groups, rank = a.get("group", 1), len(kernel)
    view = _windows(x, kernel, stride, dilation, counts)
    parts = []
    for part, weights in zip(np.split(view, groups, 1), np.split(w, groups, 0), strict=True):
        taken = [1, *range(2 + rank, 2 + 2 * rank)]
        y = np.tensordot(part, weights, axes=(taken, list(range(1, 2 + rank))))
        parts.append(np.moveaxis(y, -1, 1))
    y = np.concatenate(parts, axis=1)
    return (y if b is None else y + b.reshape(-1, *[1] * rank)).astype(w.dtype)


@operator("ConvTranspose")
def _conv_transpose(a: Attributes, x: np.ndarray, w: np.ndarray, b: Any = None) -> np.ndarray:
    kernel = w.shape[2:]
    rank, groups = len(kernel), a.get("group", 1)
    settings = {k: v for k, v in a.items() if k != "auto_pad"}
    _, stride, dilation, pads = window_settings(settings, x.shape[2:], kernel)
    extra = a.get("output_padding") or [0] * rank
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    full = [s * (n - 1) + e for s, n, e in zip(stride, x.shape[2:], spans, strict=True)]
    wanted = a.get("output_shape")
    if a.get("auto_pad", "NOTSET").startswith("SAME") and wanted is None:
        wanted = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is not None:
        wanted = list(wanted)[-rank:]
        totals = [max(0, size + e - n) for size, e, n in zip(full, extra, wanted, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = large + small if a.get("auto_pad") == "SAME_LOWER" else small + large
    size = [f + e for f, e in zip(full, extra, strict=True)]
    size = size if wanted is None else [max(n, m) for n, m in zip(size, wanted, strict=True)]
    size = size if wanted is None else [max(n, m) for n, m in zip(size, wanted, strict=True)]
    sums = np.zeros((len(x), w.shape[1] * groups, *size), x.dtype)
    for g in range(groups):
        c, f = x.shape[1] // groups, w.shape[1]
        part, weights = x[:, g * c : (g + 1) * c], w[g * c : (g + 1) * c]
        for place in np.ndindex(*kernel):
            here = (..., *place)
            y = np.tensordot(part, weights[here], axes=(1, 0))
            there = tuple(
                slice(p * d, p * d + s * (n - 1) + 1, s)
                for p, d, s, n in zip(place, dilation, stride, x.shape[2:], strict=True)
            )
            target = (slice(None), slice(g * f, (g + 1) * f), *there)
            sums[target] += np.moveaxis(y, -1, 1)
    inside = tuple(
        slice(before, size - behind)
        for before, behind, size in zip(pads[:rank], pads[rank:], sums.shape[2:], strict=True)
    )
    cut: Any = (..., *inside)
    y = sums[cut]
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def pooled_counts(
    sizes: Any, kernel: Any, stride: Any, dilation: Any, pads: Any, ceil: bool
) -> list[int]:
    """Return the numbers of windows of a pooling.

    Rounded up, a last window that would begin in the padding at the end is dropped.
    """
    counts = []
    rank = len(sizes)
    for i, size in enumerate(sizes):
        room = size + pads[i] + pads[i + rank] - dilation[i] * (kernel[i] - 1) - 1
        count = (-(-room // stride[i]) if ceil else room // stride[i]) + 1
        if ceil and (count - 1) * stride[i] >= size + pads[i]:
            count -= 1
        counts.append(count)
    return counts


def _pooled(a: Attributes, x: np.ndarray, value: Any) -> tuple[np.ndarray, Any]:
    """Return the windows (N, C, *counts, *kernel), with `value` in the padding; and settings."""
    settings = window_settings(a, x.shape[2:], a["kernel_shape"])
    kernel, stride, dilation, pads = settings
    rank = len(kernel)
    counts = pooled_counts(x.shape[2:], *settings, bool(a.get("ceil_mode", 0)))
    if min(counts, default=0) < 1:
        raise ConfigError(f"no window of {kernel} fits an input of {x.shape[2:]}.")
    ends = [
        max(0, (n - 1) * s + d * (k - 1) + 1 - size - before)
        for n, s, d, k, size, before in zip(
            counts, stride, dilation, kernel, x.shape[2:], pads[:rank], strict=True
        )
    ]
    padded = _padded(x, [*pads[:rank], *ends], value)
    return _windows(padded, kernel, stride, dilation, counts), (settings, counts)


@operator("MaxPool")
def _max_pool(a: Attributes, x: np.ndarray) -> Any:
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    windows, (settings, counts) = _pooled(a, x, lowest)
    kernel, stride, dilation, pads = settings
    rank = len(kernel)
    flat = windows.reshape(*windows.shape[: 2 + rank], math.prod(kernel))
    y = flat.max(axis=-1)
    if a["outputs"] < 2:
        return y
    places = np.unravel_index(flat.argmax(axis=-1), kernel)
    grids = np.meshgrid(*map(np.arange, counts), indexing="ij")
    at = [
        grid * s - before + d * place
        for grid, s, before, d, place in zip(
            grids, stride, pads[:rank], dilation, places, strict=True
        )
    ]
    order = list(range(rank))
    if a.get("storage_order", 0):
        order.reverse()
    index: Any = 0
    for axis in order:
        index = index * x.shape[2 + axis] + at[axis]
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * rank)
    return y, (planes * math.prod(x.shape[2:]) + index).astype(np.int64)


@operator("AveragePool")
def _average_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    """Sums by areas: pixels of the image, or with ``count_include_pad`` of its padding, too."""
    windows, (settings, counts) = _pooled(a, x, 0)
    kernel, stride, dilation, pads = settings
    rank = len(kernel)
    counts_padding = a.get("count_include_pad", 0)
    area: Any = np.ones((), dtype=np.int64)
    for i in range(rank):
        size = x.shape[2 + i]
        first = np.arange(counts[i])[:, None] * stride[i] - pads[i]
        at = first + dilation[i] * np.arange(kernel[i])  # (windows, kernel)
        low, high = (-pads[i], size + pads[i + rank]) if counts_padding else (0, size)
        area = np.multiply.outer(area, ((at >= low) & (at < high)).sum(axis=1))
    sums = windows.sum(axis=tuple(range(2 + rank, 2 + 2 * rank)))
    return (sums / area).astype(x.dtype)


@operator("LpPool")
def _lp_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    windows, (settings, _) = _pooled(a, np.abs(x), 0)
    rank, p = len(settings[0]), a.get("p", 2)
    sums = (windows**p).sum(axis=tuple(range(2 + rank, 2 + 2 * rank)))
    return (sums ** (1 / p)).astype(x.dtype)


@operator("GlobalAveragePool")
def _global_average_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("GlobalMaxPool")
def _global_max_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)
