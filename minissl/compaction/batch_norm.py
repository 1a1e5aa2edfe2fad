"""Normalization folded into the layer before it.

In phase TEST a BatchNorm multiplies each channel by a number and adds another one, and so do Scale
and Bias: y = a * x + c. Behind a convolution (or inner product) x = W u + b they are part of it:

    y = (a W) u + (a b + c)

Dimensions: F filters, which are the channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.channels import WITH_WEIGHTS, Flow, Value, acts_by_channel, follow, reads_channels
from minissl.compaction.draft import Draft
from minissl.compaction.reading import is_shared
from minissl.layers import Layer
from minissl.net import Net


def fold_batch_norm(net: Net) -> Net:
    """Return a network in which each BatchNorm, Scale and Bias is part of the layer before it.

    Where that cannot be, they stay: behind a sum or a pooling, where another layer also reads what
    the convolution puts out, where weights are shared, and where BatchNorm uses the statistics of
    the batch (``use_global_stats: false``).

    Computed in float64 and rounded once, to the type of the network.
    """
    flow = follow(net)
    draft = Draft(net)
    before = len(draft.layers)
    into: dict[Value, Layer] = {}  # what a layer with weights makes, also behind what it took in
    for layer in net.layers:
        bottoms, tops = flow.bottoms[layer.name], flow.tops[layer.name]
        if layer.type_name in WITH_WEIGHTS and reads_channels(layer, bottoms):
            if not is_shared(net, layer):
                into[tops[0]] = layer
        elif len(bottoms) == 1 and bottoms[0] in into and _folds(net, flow, layer, bottoms[0]):
            weights = into[bottoms[0]]
            if _join(draft, weights, layer):
                _multiply(draft, weights, *_affine(layer))
                into[tops[0]] = weights
    return net if len(draft.layers) == before else draft.build()


def _folds(net: Net, flow: Flow, layer: Layer, bottom: Value) -> bool:
    """Whether a layer multiplies each channel and adds to it, and is all that reads its bottom."""
    if layer.type_name == "BatchNorm":
        by_channel = not layer.uses_batch  # type: ignore[attr-defined]
    elif layer.type_name in ("Scale", "Bias"):
        by_channel = acts_by_channel(layer, len(bottom.shape))
    else:
        return False
    readers = sum(
        value is bottom
        for other in net.layers
        if other.type_name != "Split"
        for value in flow.bottoms[other.name]
    )
    alone = readers == 1 and bottom not in flow.outputs
    return by_channel and alone and not is_shared(net, layer)


def _affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a and c of y = a * x + c, (F,) each, in float64."""
    blobs = [np.asarray(to_host(p.data), dtype=np.float64).reshape(-1) for p in layer.parameters]
    if layer.type_name == "BatchNorm":
        mean, variance, (factor,) = blobs
        share = 1 / factor if factor else 0.0
        a = 1 / np.sqrt(variance * share + layer.eps)
        return a, -mean * share * a
    if layer.type_name == "Bias":
        return np.ones_like(blobs[0]), blobs[0]
    return blobs[0], blobs[1] if layer.has_bias else np.zeros_like(blobs[0])


def _join(draft: Draft, weights: Layer, layer: Layer) -> bool:
    """Remove the second layer; the first writes what the second did, under its name."""
    first, second = draft.find(weights.name), draft.find(layer.name)
    if len(first) != 1 or len(second) != 1:
        return False
    return draft.join(first[0], second[0])


def _multiply(draft: Draft, layer: Any, a: np.ndarray, c: np.ndarray) -> None:
    """Make W' = a W and b' = a b + c of the weights of a layer."""
    w, *bias = draft.weights[layer.name]
    wide = w.astype(np.float64)
    b = (bias[0] if bias else 0) * a + c
    if layer.type_name == "InnerProduct" and layer.transpose:
        wide = wide * a  # (K, F)
    elif layer.type_name == "Convolution" and layer.kept_columns:
        dense = layer.shape.scatter_columns(wide, layer.kept_columns)
        dense = dense * a[:, None, None, None]  # (F, C/g, kh, kw)
        wide = layer.shape.gather_columns(dense, layer.kept_columns)
    else:
        wide = wide * a.reshape(-1, *[1] * (wide.ndim - 1))  # (F, ...)
    draft.weights[layer.name] = [wide, b]  # rounded when the network is built
    for written in draft.find(layer.name):
        is_convolution = layer.type_name == "Convolution"
        fields = written.convolution_param if is_convolution else written.inner_product_param
        if not fields.bias_term:
            fields.bias_term = True
        # products below the zero-out threshold are weights like others
        written.ClearField("connectivity_mode")
