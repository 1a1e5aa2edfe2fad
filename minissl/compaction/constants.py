"""What a network computes without looking at its input: the constants of dead filters.

A filter without weights puts out its bias, at every pixel, for every image. Behind it lie layers
that treat each channel by itself (ReLU, pooling ...), so the next layer with weights receives a
channel whose values are *known*. A filter of that layer which reads known channels only is known in
turn, and so on. The values are found by running the network itself, in float64 on the reference
kernels, on one image of zeros: what is known comes out the same for every image.

A known channel can leave when each column that reads it sees one value at all output pixels: that
value times the weight then belongs to the bias (``foldable``). It cannot where a padded border or
an unevenly averaged one shows in the column.

Dimensions: F filters, C input channels, g conv groups, K columns of one group, P x Q output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.blob import Blob
from minissl.channels import PER_CHANNEL, Flow, conv_groups, dense_weights
from minissl.formats import proto
from minissl.layers import Layer
from minissl.net import Net

# Means of equal numbers differ by rounding; a border shows as at least 1 / (window's area).
ROUNDING = 1e-13


@dataclass
class Constants:
    """What is known about one layer with weights.

    Attributes
    ----------
    filters : ndarray
        Filters that put out constants, bool (F,).
    foldable : ndarray
        Columns that see one known value at every pixel, bool (g, K).
    values : ndarray
        That value, (g, K); 0 elsewhere.
    """

    filters: np.ndarray
    foldable: np.ndarray
    values: np.ndarray


def find_constants(net: Net, flow: Flow) -> dict[str, Constants]:
    """Find the constant filters of all layers with weights, and what their readers see of them.

    Parameters
    ----------
    net : Net
        Is left as it is; its layers run in the TEST phase (dropout hands its input on).
    flow : Flow
        From :func:`minissl.channels.follow`.
    """
    single = _single_image(net)
    found: dict[str, Constants] = {}
    for layer in single.layers:
        bottom, top = single.bottoms_and_tops(layer)
        if layer.name in flow.sources:
            source = flow.sources[layer.name]
            known = np.zeros(source.channels, dtype=bool)
            if source.producer is not None:
                known = found[source.producer].filters
            found[layer.name] = _of_layer(layer, bottom[0], known, source.columns)
        if layer.name in flow.sources or layer.type_name in PER_CHANNEL:
            layer.forward(bottom, top)
    return found


def _single_image(net: Net) -> Net:
    """Return the same layers for a batch of one, in float64 on the reference kernels."""
    param = proto.NetParameter(name=net.name)
    for layer in net.layers:
        copy = param.layer.add()
        copy.CopyFrom(layer.param)
        for field in ("include", "exclude", "connectivity_mode"):
            copy.ClearField(field)
    data = {**net.layers[0].context.data, "batch_size": 1}
    single = Net(param, "TEST", "numpy", "float64", data=data)
    single.load(net.weights())
    return single


def _of_layer(layer: Layer, bottom: Blob, known: np.ndarray, columns: int) -> Constants:
    """Look at the columns of one layer; ``known`` (C,) marks its known input channels."""
    g = conv_groups(layer)
    of_known_channel = np.repeat(known, columns).reshape(g, -1)  # (g, K)
    used = dense_weights(layer).reshape(g, -1, of_known_channel.shape[1]) != 0  # (g, F/g, K)
    filters = ~(used & ~of_known_channel[:, None, :]).any(axis=2).ravel()  # (F,)
    foldable = of_known_channel.copy()
    values = np.zeros(foldable.shape)
    if known.any():
        seen = _lowered(layer, bottom).reshape(*foldable.shape, -1)  # (g, K, P*Q)
        low, high = seen.min(axis=2), seen.max(axis=2)
        foldable &= high - low <= ROUNDING * np.maximum(abs(low), abs(high))
        values[foldable] = seen[foldable, 0]
    return Constants(filters, foldable, values)


def _lowered(layer: Any, bottom: Blob) -> np.ndarray:
    """Return what the columns of the weight matrix are multiplied by, (g*K, P*Q) or (K, 1)."""
    if layer.type_name == "InnerProduct":
        return bottom.data.reshape(-1, 1)
    P, Q = layer.shape.output
    col = np.empty((layer.groups * layer.shape.columns, P * Q))
    layer.kernels.im2col(bottom.data[0], *layer.shape.geometry, col)
    return col
