"""The layers as ONNX nodes: one function each.

Dimensions: N images, C channels, H x W pixels, F filters, K columns of a weight matrix.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.onnx.export import Export, writes

# --- products ---


@writes("Convolution")
def _convolution(e: Export, layer: Any, bottoms: list[str]) -> None:
    stride, pad, dilation, groups = layer.geometry
    if layer.kept_columns:
        weights = _gathered_weights(e, layer)
    else:
        weights = e.array(f"{layer.name}.weight", e.parameter(layer, 0))
    bias = [e.array(f"{layer.name}.bias", e.parameter(layer, 1))] if layer.has_bias else []
    e.finish(
        layer,
        "Conv",
        [*bottoms, weights, *bias],
        kernel_shape=layer.kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=groups,
    )


def _gathered_weights(e: Export, layer: Any) -> str:
    """Return weights (F, C/g, kh, kw) that are put together from the kept columns.

    ``Gather`` takes each column from the packed matrix, with a column of zeros behind the kept
    ones for those that were left out.
    """
    g, F = layer.groups, layer.filters
    K = layer.shape.columns
    packed = e.parameter(layer, 0).ravel()
    parts, start = [], 0
    for i, kept in enumerate(layer.kept_columns):
        size = F // g * len(kept)
        band = packed[start : start + size].reshape(F // g, len(kept))
        start += size
        with_zero = np.concatenate([band, np.zeros((F // g, 1), band.dtype)], axis=1)
        places = np.full(K, len(kept), np.int64)
        places[kept] = np.arange(len(kept))
        label = f"{layer.name}.{i}" if g > 1 else layer.name
        inputs = [e.array(f"{label}.packed", with_zero), e.array(f"{label}.columns", places)]
        parts.append(e.node("Gather", inputs, f"{label}.gathered", axis=1))  # (F/g, K)
    matrix = parts[0]
    if g > 1:
        matrix = e.node("Concat", parts, f"{layer.name}.matrix", axis=0)  # (F, K)
    shape = np.array([F, K // math.prod(layer.kernel), *layer.kernel], np.int64)
    inputs = [matrix, e.array(f"{layer.name}.shape", shape)]
    return e.node("Reshape", inputs, f"{layer.name}.weight")


@writes("Deconvolution")
def _deconvolution(e: Export, layer: Any, bottoms: list[str]) -> None:
    stride, pad, dilation, groups = layer.geometry
    e.finish(
        layer,
        "ConvTranspose",
        [*bottoms, *e.parameters(layer)],
        kernel_shape=layer.kernel,
        strides=stride,
        pads=[*pad, *pad],
        dilations=dilation,
        group=groups,
    )


@writes("InnerProduct")
def _inner_product(e: Export, layer: Any, bottoms: list[str]) -> None:
    (x,) = bottoms
    shape, axis = e.shape(layer), layer.param.inner_product_param.axis
    axis += len(shape) if axis < 0 else 0
    if axis != 1 or len(shape) != 2:
        x = e.node("Flatten", [x], f"{layer.name}_rows", axis=axis)  # (outer, K)
    if layer.kept_columns is not None:
        kept = e.array(f"{layer.name}.columns", np.array(layer.kept_columns, np.int64))
        x = e.node("Gather", [x, kept], f"{layer.name}_kept", axis=1)  # (outer, kept)
    inputs = [x, *e.parameters(layer)]
    trans_b = int(not layer.transpose)
    if axis == 1:
        e.finish(layer, "Gemm", inputs, transB=trans_b)
        return
    y = e.node("Gemm", inputs, f"{layer.name}_product", transB=trans_b)  # (outer, F)
    _reshape_to(e, layer, y, from_batch=axis == 0)


@writes("Embed")
def _embed(e: Export, layer: Any, bottoms: list[str]) -> None:
    words, *bias = e.parameters(layer)
    numbers = e.node("Cast", bottoms, f"{layer.name}_numbers", to=e.onnx.TensorProto.INT64)
    if not bias:
        e.finish(layer, "Gather", [words, numbers], axis=0)
        return
    e.finish(layer, "Add", [e.node("Gather", [words, numbers], f"{layer.name}_vectors"), *bias])


# --- pooling ---


@writes("Pooling")
def _pooling(e: Export, layer: Any, bottoms: list[str]) -> None:
    """Windows that hang over the edge become padding at the end."""
    mean = layer.method == layer.param.pooling_param.AVE
    if len(layer.param.top) > 1:
        raise layer.config_error("its second top has no counterpart in ONNX; remove it")
    if layer.param.pooling_param.global_pooling:
        e.finish(layer, "GlobalAveragePool" if mean else "GlobalMaxPool", bottoms)
        return
    sizes, counts = e.shape(layer)[2:], layer.top_shape[2:]
    axes = list(zip(sizes, layer.kernel, layer.stride, layer.pad, counts, strict=True))
    ends = [
        p
        if (size + 2 * p - k) // s + 1 == n
        else max(0, (n - 1) * s + k - size - p)  # the same on both sides where it can be
        for size, k, s, p, n in axes
    ]
    if any(end >= k for end, k in zip(ends, layer.kernel, strict=True)):
        raise layer.config_error("a window lies in the padding alone, which ONNX does not allow")
    settings = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": [*layer.pad, *ends],
    }
    if not mean:
        e.finish(layer, "MaxPool", bottoms, **settings)
        return
    if not any(layer.pad):
        e.finish(layer, "AveragePool", bottoms, **settings)
        return
    # Caffe's area: that of the window within the padded image
    areas = [
        np.minimum(np.arange(n) * s - p + k, size + p) - (np.arange(n) * s - p)
        for size, k, s, p, n in axes
    ]
    ratio = np.prod(layer.kernel) / np.outer(*areas)
    if (ratio == 1).all():
        e.finish(layer, "AveragePool", bottoms, count_include_pad=1, **settings)
        return
    name = f"{layer.name}_of_whole_windows"
    y = e.node("AveragePool", bottoms, name, count_include_pad=1, **settings)
    e.finish(layer, "Mul", [y, e.array(f"{layer.name}.areas", ratio)])


# --- element by element ---

_SIMPLE = {
    "AbsVal": "Abs",
    "BNLL": "Softplus",
    "Sigmoid": "Sigmoid",
    "TanH": "Tanh",
}


@writes(*_SIMPLE)
def _simple(e: Export, layer: Any, bottoms: list[str]) -> None:
    e.finish(layer, _SIMPLE[layer.type_name], bottoms)


@writes("ReLU")
def _relu(e: Export, layer: Any, bottoms: list[str]) -> None:
    slope = layer.negative_slope
    if slope:
        e.finish(layer, "LeakyRelu", bottoms, alpha=slope)
    else:
        e.finish(layer, "Relu", bottoms)


@writes("PReLU")
def _prelu(e: Export, layer: Any, bottoms: list[str]) -> None:
    slopes = e.parameter(layer, 0).reshape(-1, *[1] * (len(e.shape(layer)) - 2))
    e.finish(layer, "PRelu", [*bottoms, e.array(f"{layer.name}.slope", slopes)])


@writes("ELU")
def _elu(e: Export, layer: Any, bottoms: list[str]) -> None:
    e.finish(layer, "Elu", bottoms, alpha=layer.param.elu_param.alpha)


@writes("Dropout")
def _dropout(e: Export, layer: Any, bottoms: list[str]) -> None:
    ratio = e.array(f"{layer.name}.ratio", np.float32(layer.ratio))
    e.finish(layer, "Dropout", [*bottoms, ratio])


@writes("Threshold")
def _threshold(e: Export, layer: Any, bottoms: list[str]) -> None:
    limit = e.array(f"{layer.name}.threshold", np.float32(layer.threshold))
    above = e.node("Greater", [*bottoms, limit], f"{layer.name}_above")
    e.finish(layer, "Cast", [above], to=e.onnx.TensorProto.FLOAT)


def _linear(e: Export, layer: Any, x: str, scale: float, shift: float, label: str) -> str:
    """Return shift + scale * x."""
    if scale != 1:
        factor = e.array(f"{layer.name}.scale", np.float32(scale))
        x = e.node("Mul", [x, factor], f"{layer.name}_scaled{label}")
    if shift != 0:
        term = e.array(f"{layer.name}.shift", np.float32(shift))
        x = e.node("Add", [x, term], f"{layer.name}_shifted{label}")
    return x


@writes("Power")
def _power(e: Export, layer: Any, bottoms: list[str]) -> None:
    x = _linear(e, layer, bottoms[0], layer.scale, layer.shift, "")
    if layer.power == 1:
        e.finish(layer, "Identity", [x])
        return
    e.finish(layer, "Pow", [x, e.array(f"{layer.name}.power", np.float32(layer.power))])


@writes("Exp")
def _exp(e: Export, layer: Any, bottoms: list[str]) -> None:
    """``base ** (shift + scale * x)``; the layer's numbers have log(base) in them."""
    e.finish(layer, "Exp", [_linear(e, layer, bottoms[0], layer.scale, layer.shift, "")])


@writes("Log")
def _log(e: Export, layer: Any, bottoms: list[str]) -> None:
    x = _linear(e, layer, bottoms[0], layer.scale, layer.shift, "")
    if layer.factor == 1:
        e.finish(layer, "Log", [x])
        return
    y = e.node("Log", [x], f"{layer.name}_natural")
    e.finish(layer, "Mul", [y, e.array(f"{layer.name}.factor", np.float32(layer.factor))])


# --- several blobs ---

_OPERATIONS = {0: "Mul", 2: "Max"}


@writes("Eltwise")
def _eltwise(e: Export, layer: Any, bottoms: list[str]) -> None:
    if layer.operation == layer.param.eltwise_param.SUM:
        terms = [
            x if coeff == 1 else _term(e, layer, x, coeff, i)
            for i, (x, coeff) in enumerate(zip(bottoms, layer.coefficients, strict=True))
        ]
        e.finish(layer, "Add" if len(terms) == 2 else "Sum", terms)
        return
    op = _OPERATIONS[layer.operation]
    while len(bottoms) > 2:
        label = f"{layer.name}_of_{len(bottoms)}"
        bottoms = [e.node(op, bottoms[:2], label), *bottoms[2:]]
    e.finish(layer, op, bottoms)


def _term(e: Export, layer: Any, x: str, coeff: float, number: int) -> str:
    factor = e.array(f"{layer.name}.coeff{number}", np.float32(coeff))
    return e.node("Mul", [x, factor], f"{layer.name}_term{number}")


@writes("Concat")
def _concat(e: Export, layer: Any, bottoms: list[str]) -> None:
    p = layer.param.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    axis %= len(e.shape(layer))
    e.fixes_batch |= axis == 0
    e.finish(layer, "Concat", bottoms, axis=axis)


@writes("Slice")
def _slice(e: Export, layer: Any, bottoms: list[str]) -> None:
    p = layer.param.slice_param
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    axis %= len(e.shape(layer))
    e.fixes_batch |= axis == 0
    sizes = e.array(f"{layer.name}.sizes", np.diff(layer.cuts).astype(np.int64))
    e.finish(layer, "Split", [*bottoms, sizes], axis=axis)


@writes("Crop")
def _crop(e: Export, layer: Any, bottoms: list[str]) -> None:
    shape = e.shape(layer)
    axes = [i for i, n in enumerate(shape) if layer.part[i] != slice(0, n)]
    e.fixes_batch |= 0 in axes
    limits = [
        e.array(f"{layer.name}.{name}", np.array(numbers, np.int64))
        for name, numbers in (
            ("starts", [layer.part[i].start for i in axes]),
            ("ends", [layer.part[i].stop for i in axes]),
            ("axes", axes),
        )
    ]
    if axes:
        e.finish(layer, "Slice", [bottoms[0], *limits])
    else:
        e.finish(layer, "Identity", bottoms[:1])


# --- normalization ---


@writes("BatchNorm")
def _batch_norm(e: Export, layer: Any, bottoms: list[str]) -> None:
    """The stored sums are divided by their factor; scale 1 and bias 0 stand for a Scale layer."""
    if layer.uses_batch:
        raise layer.config_error("statistics of the batch have no counterpart; use_global_stats")
    mean, variance, factor = (e.parameter(layer, i) for i in range(3))
    share = np.float32(0 if factor[0] == 0 else 1 / factor[0])
    names = "scale", "bias", "mean", "variance"
    values = np.ones_like(mean), np.zeros_like(mean), mean * share, variance * share
    arrays = [
        e.array(f"{layer.name}.{name}", value) for name, value in zip(names, values, strict=True)
    ]
    e.finish(layer, "BatchNormalization", [*bottoms, *arrays], epsilon=layer.eps)


def _aligned(e: Export, layer: Any, axis: int, values: np.ndarray) -> np.ndarray:
    """Give the operand of a Scale or Bias axes of length 1 up to the last axis of the bottom."""
    rank = len(e.shape(layer))
    behind = rank - axis % rank - values.ndim if values.ndim else 0
    return values.reshape((*values.shape, *[1] * behind))


def _operand(e: Export, layer: Any, bottoms: list[str], axis: int) -> str:
    """Return what a Scale or Bias applies: its parameter, or its second bottom."""
    if len(bottoms) == 1:
        values = _aligned(e, layer, axis, e.parameter(layer, 0))
        return e.array(f"{layer.name}.weight", values)
    shape = e.net.blobs[layer.param.bottom[1]].shape
    rank = len(e.shape(layer))
    behind = rank - axis % rank - len(shape) if shape else 0
    if not behind:
        return bottoms[1]
    axes = np.arange(len(shape), len(shape) + behind)
    inputs = [bottoms[1], e.array(f"{layer.name}.axes", axes.astype(np.int64))]
    return e.node("Unsqueeze", inputs, f"{layer.name}_operand")


@writes("Scale")
def _scale(e: Export, layer: Any, bottoms: list[str]) -> None:
    axis = layer.param.scale_param.axis
    factor = _operand(e, layer, bottoms, axis)
    if not layer.has_bias:
        e.finish(layer, "Mul", [bottoms[0], factor])
        return
    values = _aligned(e, layer, axis, e.parameter(layer, len(layer.parameters) - 1))
    y = e.node("Mul", [bottoms[0], factor], f"{layer.name}_product")
    e.finish(layer, "Add", [y, e.array(f"{layer.name}.bias", values)])


@writes("Bias")
def _bias(e: Export, layer: Any, bottoms: list[str]) -> None:
    axis = layer.param.bias_param.axis
    e.finish(layer, "Add", [bottoms[0], _operand(e, layer, bottoms, axis)])


@writes("LRN")
def _lrn(e: Export, layer: Any, bottoms: list[str]) -> None:
    channels, size, _ = layer.window
    if size == 1:
        settings = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
        e.finish(layer, "LRN", bottoms, size=channels, **settings)
        return
    # within a channel: x / (1 + alpha * mean of x^2 over size x size) ^ beta
    (x,) = bottoms
    squares = e.node("Mul", [x, x], f"{layer.name}_squares")
    window: dict[str, Any] = {
        "kernel_shape": [size, size],
        "pads": [size // 2] * 4,
        "count_include_pad": 1,
    }
    means = e.node("AveragePool", [squares], f"{layer.name}_means", **window)
    base = _linear(e, layer, means, layer.alpha, layer.k, "_means")
    beta = e.array(f"{layer.name}.beta", np.float32(layer.beta))
    e.finish(layer, "Div", [x, e.node("Pow", [base, beta], f"{layer.name}_divisor")])


@writes("MVN")
def _mvn(e: Export, layer: Any, bottoms: list[str]) -> None:
    """(x - mean) / (deviation + eps) over the axes behind those that are kept."""
    (x,) = bottoms
    first = 1 if layer.param.mvn_param.across_channels else 2
    axes = list(range(first, len(e.shape(layer))))
    mean = e.node("ReduceMean", [x], f"{layer.name}_mean", axes=axes)
    if not layer.scales:
        e.finish(layer, "Sub", [x, mean])
        return
    centred = e.node("Sub", [x, mean], f"{layer.name}_centred")
    squares = e.node("Mul", [centred, centred], f"{layer.name}_squares")
    variance = e.node("ReduceMean", [squares], f"{layer.name}_variance", axes=axes)
    deviation = e.node("Sqrt", [variance], f"{layer.name}_deviation")
    eps = e.array(f"{layer.name}.eps", np.float32(layer.eps))
    divisor = e.node("Add", [deviation, eps], f"{layer.name}_divisor")
    e.finish(layer, "Div", [centred, divisor])


@writes("Softmax")
def _softmax(e: Export, layer: Any, bottoms: list[str]) -> None:
    e.finish(layer, "Softmax", bottoms, axis=layer.param.softmax_param.axis)


# --- shapes ---


def _reshape_to(e: Export, layer: Any, x: str, from_batch: bool = False) -> None:
    """Reshape to the shape of the layer's top; lengths that stay are taken from the input."""
    shape = e.top_shape(layer)
    keeps = bool(shape) and shape[:1] == e.shape(layer)[:1] and not from_batch
    if not keeps:
        e.fixes_batch = True
    dims = [-1 if keeps and i == 0 else length for i, length in enumerate(shape)]
    e.finish(layer, "Reshape", [x, e.array(f"{layer.name}.shape", np.array(dims, np.int64))])


@writes("Flatten")
def _flatten(e: Export, layer: Any, bottoms: list[str]) -> None:
    p = layer.param.flatten_param
    rank = len(e.shape(layer))
    if p.axis % rank == 1 and p.end_axis % rank == rank - 1:
        e.finish(layer, "Flatten", bottoms, axis=1)
    else:
        _reshape_to(e, layer, bottoms[0], from_batch=p.axis % rank == 0)


@writes("Reshape")
def _reshape(e: Export, layer: Any, bottoms: list[str]) -> None:
    _reshape_to(e, layer, bottoms[0])


_REDUCTIONS = {1: "ReduceSum", 2: "ReduceL1", 3: "ReduceSumSquare", 4: "ReduceMean"}


@writes("Reduction")
def _reduction(e: Export, layer: Any, bottoms: list[str]) -> None:
    p = layer.param.reduction_param
    rank = len(e.shape(layer))
    axes = list(range(p.axis % rank, rank))
    e.fixes_batch |= 0 in axes
    op, inputs = _REDUCTIONS[layer.operation], bottoms
    settings: dict[str, Any] = {"keepdims": 0}
    if op == "ReduceSum":  # takes its axes as an input
        inputs = [*bottoms, e.array(f"{layer.name}.axes", np.array(axes, np.int64))]
    else:
        settings["axes"] = axes
    if p.coeff == 1:
        e.finish(layer, op, inputs, **settings)
        return
    y = e.node(op, inputs, f"{layer.name}_sums", **settings)
    e.finish(layer, "Mul", [y, e.array(f"{layer.name}.coeff", np.float32(p.coeff))])


@writes("ArgMax")
def _argmax(e: Export, layer: Any, bottoms: list[str]) -> None:
    if not layer.along_axis or layer.top_k != 1 or layer.gives_values:
        raise layer.config_error("only the position of one maximum along an axis is written")
    axis = layer.param.argmax_param.axis
    where = e.node("ArgMax", bottoms, f"{layer.name}_where", axis=axis, select_last_index=1)
    e.finish(layer, "Cast", [where], to=e.onnx.TensorProto.FLOAT)


@writes("Tile")
def _tile(e: Export, layer: Any, bottoms: list[str]) -> None:
    rank = len(e.shape(layer))
    axis = layer.param.tile_param.axis % rank
    e.fixes_batch |= axis == 0
    repeats = [layer.tiles if i == axis else 1 for i in range(rank)]
    times = e.array(f"{layer.name}.repeats", np.array(repeats, np.int64))
    e.finish(layer, "Tile", [*bottoms, times])
