"""Normalization, softmax and dropout, as layers."""

from __future__ import annotations

import math

import numpy as np

from minissl.onnx.graph import Node
from minissl.onnx.operators.shapes import axis_of, reshape
from minissl.onnx.operators.table import operator
from minissl.onnx.translation import Inexpressible, Translation


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
