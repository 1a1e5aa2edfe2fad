"""One function for each ONNX operator that Caffe's layers can express.

A function reads the node's attributes and constants and adds layers. What it cannot express it
refuses in one sentence (:class:`~minissl.onnx.translation.Inexpressible`).

Dimensions: N images, C channels, H x W pixels, F filters, K inputs of a product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.blob import Shape
from minissl.errors import ConfigError
from minissl.onnx.array_windows import pooled_counts, window_settings
from minissl.onnx.arrays import reshaped, slices, split_sizes
from minissl.onnx.graph import Graph, Node
from minissl.onnx.translation import Inexpressible, Translation

OPERATORS: dict[str, Callable[[Translation, Node], None]] = {}

#: elements of a kernel that zeros are added to, and windows of a pooling that are counted
MAX_PADDED = 2**24

Operator = Callable[[Translation, Node], None]


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Make a function known under the names of ONNX operators."""

    def add(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return add


# --- shapes ---


def reshape(t: Translation, node: Node, blob: str, target: Shape, tops: Any = ()) -> str:
    """Give a blob another shape; lengths that stay are written so that any batch fits."""
    shape = t.shape(blob)
    if shape == target and not tops:
        return blob
    if len(target) == 2 and shape[:1] == target[:1] and len(shape) > 2:
        return t.layer(node, "Flatten", [blob], tops)[0]
    dims = list(target)
    for i, (old, new) in enumerate(zip(shape, target, strict=False)):
        if old != new:
            break
        dims[i] = 0
    if len(dims) > 0 and dims.count(0) == len(dims) - 1 and dims[-1]:
        dims[-1] = -1
    return t.layer(node, "Reshape", [blob], tops, reshape_param={"shape": {"dim": dims}})[0]


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    if not -rank <= axis < rank:
        raise Inexpressible(f"{node}: its input has no axis {axis}, only {rank} of them.")
    return axis % rank


@operator("Reshape")
def _reshape(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    given = t.constant(node, 1)
    wanted = node.attributes.get("shape") if given is None else given.tolist()
    if wanted is None:
        raise Inexpressible(f"{node}: its shape is missing.")
    allow_zero = bool(node.attributes.get("allowzero", 0))
    reshape(t, node, x, tuple(reshaped(t.shape(x), wanted, allow_zero)), node.outputs[:1])


@operator("Flatten")
def _flatten(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape = t.shape(x)
    axis = node.attributes.get("axis", 1)
    axis = len(shape) if axis == len(shape) else axis_of(node, axis, len(shape))
    target = math.prod(shape[:axis]), math.prod(shape[axis:])
    reshape(t, node, x, target, node.outputs[:1])


def _axes(t: Translation, node: Node) -> list[int] | None:
    given = t.constant(node, 1)
    axes = node.attributes.get("axes") if given is None else given.ravel().tolist()
    return None if axes is None else [int(axis) for axis in axes]


@operator("Squeeze")
def _squeeze(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape, axes = t.shape(x), _axes(t, node)
    gone = {i for i, length in enumerate(shape) if length == 1}
    if axes is not None:
        gone &= {axis_of(node, axis, len(shape)) for axis in axes}
    target = tuple(length for i, length in enumerate(shape) if i not in gone)
    reshape(t, node, x, target, node.outputs[:1])


@operator("Unsqueeze")
def _unsqueeze(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    target = list(t.shape(x))
    axes = _axes(t, node) or []
    rank = len(target) + len(axes)
    for axis in sorted(axis_of(node, axis, rank) for axis in axes):
        target.insert(axis, 1)
    reshape(t, node, x, tuple(target), node.outputs[:1])


@operator("Transpose")
def _transpose(t: Translation, node: Node) -> None:
    """Only where no element moves in memory: axes of length 1 change their place."""
    x = t.blob(node, 0)
    shape = t.shape(x)
    order = node.attributes.get("perm") or list(range(len(shape)))[::-1]
    longer = [axis for axis in order if shape[axis] != 1]
    if longer != sorted(longer):
        raise Inexpressible(f"{node}: Caffe has no layer that exchanges axes.")
    reshape(t, node, x, tuple(shape[axis] for axis in order), node.outputs[:1])


@operator("Concat")
def _concat(t: Translation, node: Node) -> None:
    blobs = [t.blob(node, i) for i in range(len(node.inputs))]
    axis = node.attributes.get("axis", 1)
    t.layer(node, "Concat", blobs, node.outputs, concat_param={"axis": axis})


def _sliced(t: Translation, node: Node, x: str, axis: int, points: list[int], tops: Any) -> None:
    """Cut a blob into parts; those without a name are silenced."""
    names = [top or f"{node.outputs[0]}_rest_{axis}_{i}" for i, top in enumerate(tops)]
    fields = {"axis": axis, "slice_point": points}
    made = t.layer(node, "Slice", [x], names, slice_param=fields)
    rest = [blob for blob, top in zip(made, tops, strict=True) if not top]
    if rest:
        t.silence(node, rest)


@operator("Split")
def _split(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    axis = axis_of(node, node.attributes.get("axis", 0), len(t.shape(x)))
    sizes = split_sizes(node.attributes, t.shape(x)[axis], len(node.outputs), t.constant(node, 1))
    if min(sizes) < 1:
        raise Inexpressible(f"{node}: Caffe has no empty blobs, but its parts are {sizes}.")
    if len(sizes) == 1:
        t.alias(node, x)
        return
    _sliced(t, node, x, axis, np.cumsum(sizes)[:-1].tolist(), node.outputs)


@operator("Slice")
def _slice(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape = t.shape(x)
    given = [t.constant(node, i) for i in range(1, 5)]
    ranges = [
        one.indices(length)
        for one, length in zip(slices(node.attributes, len(shape), *given), shape, strict=True)
    ]
    cut = [axis for axis, r in enumerate(ranges) if r != (0, shape[axis], 1)]
    for axis in cut:
        start, stop, step = ranges[axis]
        if step != 1 or stop <= start:
            raise Inexpressible(f"{node}: Caffe cuts blobs into parts, without steps.")
        kept = node.outputs[0] if axis == cut[-1] else f"{node.outputs[0]}_axis_{axis}"
        bounds = [(0, start, ""), (start, stop, kept), (stop, shape[axis], "")]
        there = [bound for bound in bounds if bound[0] < bound[1]]
        points = [low for low, _, _ in there[1:]]
        _sliced(t, node, x, axis, points, [name for _, _, name in there])
        x = t.named(kept)
    if not cut:
        t.alias(node, x)


# --- products ---


@operator("Conv")
def _conv(t: Translation, node: Node) -> None:
    x, (w, b) = t.blob(node, 0), (t.required(node, 1), t.constant(node, 2))
    shape = t.shape(x)
    if len(shape) == 3 and w.ndim == 3:
        _conv_of_signals(t, node, x, w, b)
        return
    if len(shape) != 4 or w.ndim != 4:
        raise Inexpressible(f"{node}: Caffe convolves images, not blobs of shape {shape}.")
    _convolution(t, node, x, w, b, window_settings(node.attributes, shape[2:], w.shape[2:]))


def _conv_of_signals(t: Translation, node: Node, x: str, w: np.ndarray, b: Any) -> None:
    """Look at signals (N, C, L) as images of one row."""
    shape = t.shape(x)
    _, (s,), (d,), (before, behind) = window_settings(node.attributes, shape[2:], w.shape[2:])
    image = reshape(t, node, x, (*shape[:2], 1, shape[2]))
    w = w[:, :, None, :]
    settings = w.shape[2:], [1, s], [1, d], [0, before, 0, behind]
    y = _convolution(t, node, image, w, b, settings, tops=())
    N, F, _, L = t.shape(y)
    reshape(t, node, y, (N, F, L), node.outputs[:1])


def _convolution(
    t: Translation, node: Node, x: str, w: Any, b: Any, settings: Any, tops: Any = None
) -> str:
    """Add a convolution of images; unequal padding becomes zeros in the kernel."""
    _, stride, dilation, pads = settings
    groups = node.attributes.get("group", 1)
    w, pad = _even_padding(node, w, pads, dilation)
    fields: dict[str, Any] = {
        "num_output": w.shape[0],
        "bias_term": b is not None,
        "group": groups,
        **_two("kernel_size", w.shape[2:]),
        **_two("stride", stride, 1),
        **_two("pad", pad, 0),
        **({} if list(dilation) == [1, 1] else {"dilation": list(dilation)}),
    }
    return t.layer(
        node,
        "Convolution",
        [x],
        node.outputs if tops is None else tops,
        blobs=[w] if b is None else [w, b],
        name=t.weight_name(node),
        convolution_param=fields,
    )[0]


def _even_padding(node: Node, w: np.ndarray, pads: Any, dilation: Any) -> tuple[np.ndarray, Any]:
    """Return weights and padding (h, w) that is the same on both sides.

    The smaller side gets the padding of the larger one, and the kernel rows of zeros on that side,
    which read nothing but the padding that was added.
    """
    widths = [(0, 0), (0, 0)]
    for before, behind, step in zip(pads[:2], pads[2:], dilation, strict=True):
        more, rest = divmod(abs(before - behind), step)
        if rest:
            raise Inexpressible(
                f"{node}: its padding {list(pads)} is uneven in a way that Caffe cannot express."
            )
        widths.append((more, 0) if before < behind else (0, more))
    sides = [n + sum(more) for n, more in zip(w.shape, widths, strict=True)]
    if math.prod(sides) > max(MAX_PADDED, w.size):
        raise Inexpressible(f"{node}: its padding {list(pads)} is out of range.")
    pad = [max(before, behind) for before, behind in zip(pads[:2], pads[2:], strict=True)]
    return np.pad(w, widths), pad


def _two(name: str, values: Any, usual: int | None = None) -> dict[str, Any]:
    """Return the field of a (height, width) setting: one number, or ``_h`` and ``_w``."""
    h, w = (int(value) for value in values)
    if h == w:
        return {} if h == usual else {name: [h]}
    short = name.removesuffix("_size")
    return {f"{short}_h": h, f"{short}_w": w}


@operator("ConvTranspose")
def _conv_transpose(t: Translation, node: Node) -> None:
    x, (w, b) = t.blob(node, 0), (t.required(node, 1), t.constant(node, 2))
    shape = t.shape(x)
    a = node.attributes
    extra = any(a.get("output_padding", ()))
    if len(shape) != 4 or extra or "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise Inexpressible(f"{node}: Caffe's Deconvolution has no output shape or padding of its.")
    _, stride, dilation, pads = window_settings(a, shape[2:], w.shape[2:])
    if pads[:2] != pads[2:]:
        raise Inexpressible(f"{node}: Caffe's Deconvolution pads both sides alike, not {pads}.")
    groups = a.get("group", 1)
    fields = {
        "num_output": w.shape[1] * groups,
        "bias_term": b is not None,
        "group": groups,
        **_two("kernel_size", w.shape[2:]),
        **_two("stride", stride, 1),
        **_two("pad", pads[:2], 0),
        **({} if list(dilation) == [1, 1] else {"dilation": list(dilation)}),
    }
    blobs = [w] if b is None else [w, b]
    name = t.weight_name(node)
    t.layer(node, "Deconvolution", [x], node.outputs, blobs, name, convolution_param=fields)


@operator("Gemm")
def _gemm(t: Translation, node: Node) -> None:
    x, w, c = t.blob(node, 0), t.required(node, 1), t.constant(node, 2)
    a = node.attributes
    if a.get("transA", 0) or len(t.shape(x)) != 2 or w.ndim != 2:
        raise Inexpressible(f"{node}: InnerProduct multiplies rows, (N, K), by a matrix.")
    w = w if a.get("transB", 0) else w.T  # (F, K)
    w = w * w.dtype.type(a.get("alpha", 1.0))
    b = None
    if c is not None:
        if c.size not in (1, w.shape[0]) or (c.ndim == 2 and c.shape[0] != 1):
            raise Inexpressible(f"{node}: InnerProduct adds one number to each output, not more.")
        b = np.broadcast_to(c.ravel() * c.dtype.type(a.get("beta", 1.0)), w.shape[:1])
    _inner_product(t, node, x, w, b, axis=1)


@operator("MatMul")
def _matmul(t: Translation, node: Node) -> None:
    x, w = t.blob(node, 0), t.required(node, 1)
    if w.ndim != 2 or len(t.shape(x)) < 2:
        raise Inexpressible(f"{node}: InnerProduct multiplies rows, (N, K), by a matrix.")
    _inner_product(t, node, x, w.T, None, axis=len(t.shape(x)) - 1)


def _inner_product(t: Translation, node: Node, x: str, w: Any, b: Any, axis: int) -> None:
    fields: dict[str, Any] = {"num_output": w.shape[0], "bias_term": b is not None}
    if axis != 1:
        fields["axis"] = axis
    if w.shape[1] != t.shape(x)[axis]:
        raise Inexpressible(f"{node}: a matrix for {w.shape[1]} inputs meets {t.shape(x)}.")
    blobs = [w] if b is None else [w, b]
    name = t.weight_name(node)
    t.layer(node, "InnerProduct", [x], node.outputs, blobs, name, inner_product_param=fields)


# --- pooling ---


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
    shape, axes = t.shape(x), _axes(t, node)
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


# --- normalization and classification ---


@operator("BatchNormalization")
def _batch_normalization(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    scale, bias, mean, variance = (t.required(node, i) for i in range(1, 5))
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        raise Inexpressible(f"{node}: only batch normalization for inference has a layer.")
    one = np.ones(1, mean.dtype)
    fields = {"eps": node.attributes.get("epsilon", 1e-5)}
    name = t.weight_name(node)
    blobs = [mean, variance, one]
    y = t.layer(node, "BatchNorm", [x], (), blobs, name, batch_norm_param=fields)
    name = f"{t.layers[-1].name}_scale"
    scale_param = {"bias_term": True}
    t.layer(node, "Scale", y, node.outputs[:1], [scale, bias], name, scale_param=scale_param)


@operator("LRN")
def _lrn(t: Translation, node: Node) -> None:
    a = node.attributes
    fields = {
        "local_size": a["size"],
        "alpha": a.get("alpha", 1e-4),
        "beta": a.get("beta", 0.75),
        "k": a.get("bias", 1.0),
    }
    t.layer(node, "LRN", [t.blob(node, 0)], node.outputs, lrn_param=fields)


@operator("Softmax", "LogSoftmax")
def _softmax(t: Translation, node: Node) -> None:
    """A softmax; before opset 13 over all axes from one on, which are folded for it."""
    x = t.blob(node, 0)
    shape = t.shape(x)
    new = t.graph.opset >= 13
    axis = axis_of(node, node.attributes.get("axis", -1 if new else 1), len(shape))
    folds = not new and math.prod(shape[axis + 1 :]) > 1
    if folds:
        rows = math.prod(shape[:axis]), math.prod(shape[axis:])
        x, axis = reshape(t, node, x, rows), 1
    last = node.op == "Softmax" and not folds
    tops = node.outputs if last else ()
    y = t.layer(node, "Softmax", [x], tops, softmax_param={} if axis == 1 else {"axis": axis})[0]
    if node.op == "LogSoftmax":
        y = t.layer(node, "Log", [y], () if folds else node.outputs)[0]
    if folds:
        reshape(t, node, y, shape, node.outputs)


@operator("Dropout")
def _dropout(t: Translation, node: Node) -> None:
    x, ratio, training = t.blob(node, 0), t.constant(node, 1), t.constant(node, 2)
    if training is not None and bool(training) and not (ratio is not None and float(ratio) == 0):
        raise Inexpressible(f"{node}: it drops values at inference, which Caffe does not.")
    if len(node.outputs) > 1 and node.outputs[1] and t.readers_of(node.outputs[1]):
        raise Inexpressible(f"{node}: Caffe's Dropout does not tell what it dropped.")
    p = node.attributes.get("ratio", 0.5) if ratio is None else float(ratio)
    t.layer(node, "Dropout", [x], node.outputs[:1], dropout_param={"dropout_ratio": p})


@operator("Identity", "Cast")
def _identity(t: Translation, node: Node) -> None:
    """Another name; a Cast must keep the type of the net."""
    if node.op == "Cast" and node.attributes.get("to") != t.data_type:
        raise Inexpressible(f"{node}: a net computes with floating-point numbers of one type.")
    t.alias(node, t.blob(node, 0))


@operator("If")
def _if(t: Translation, node: Node) -> None:
    """Take the branch that a constant condition chooses."""
    chosen = bool(t.required(node, 0))
    branch = node.attributes["then_branch" if chosen else "else_branch"]
    if not isinstance(branch, Graph) or len(branch.outputs) != len(node.outputs):
        raise Inexpressible(f"{node}: its branches are damaged.")
    t.add_constants(branch.constants)
    t.run(branch.nodes, set(branch.outputs))
    for outer, inner in zip(node.outputs, branch.outputs, strict=True):
        t.alias_of(outer, inner)
