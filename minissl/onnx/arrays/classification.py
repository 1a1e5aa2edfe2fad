"""What classifiers end in, and how they normalize: softmax, products, norms and losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.onnx.arrays.table import Attributes, operator


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
