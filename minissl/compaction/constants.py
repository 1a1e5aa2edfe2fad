"""What a network computes without looking at its input: the constants of dead filters.

A filter without weights puts out its bias, at every pixel, for every image. Layers that treat each
channel by itself (ReLU, pooling, BatchNorm in phase TEST ...) make another *known* map of it, a sum
of known maps is known, and a filter that reads known channels only is known in turn. The values are
found by running the network itself, in float64 on the reference kernels, on one image of zeros:
what is known comes out the same for every image.

A known channel can leave when each column that reads it sees one value at all output pixels: that
value times the weight then belongs to the bias (``foldable``). It cannot where a border shows in
the column: a padded convolution sees zeros beyond the border of a map that is 3 everywhere.

Dimensions: F filters, C channels, g conv groups, K columns of one group, H x W input pixels, P x Q
output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minissl import graph
from minissl.blob import Blob
from minissl.channels import (
    WITH_WEIGHTS,
    Flow,
    Value,
    columns_per_channel,
    conv_groups,
    dense_weights,
    follows,
    joining_axis,
    reads_channels,
)
from minissl.errors import ConfigError, ShapeError, WeightsError
from minissl.formats import proto
from minissl.layers import Layer
from minissl.net import Net

# Means of equal numbers differ by rounding; a border shows as at least 1 / (window's area).
ROUNDING = 1e-13


@dataclass
class Seen:
    """What a layer with weights sees of known channels.

    Attributes
    ----------
    filters : ndarray
        Filters that put out known maps, bool (F,).
    foldable : ndarray
        Columns that see one known value at every output pixel, bool (g, K).
    values : ndarray
        That value, (g, K); 0 elsewhere.
    """

    filters: np.ndarray
    foldable: np.ndarray
    values: np.ndarray


@dataclass
class Constants:
    """What is known of a network.

    Attributes
    ----------
    known : dict
        Value -> which of its channels are known, bool (C,).
    maps : dict
        Value -> what they are, (C, ...) of one image; of values of which something is known.
    seen : dict
        Name of every layer with weights -> :class:`Seen`.
    """

    known: dict[Value, np.ndarray] = field(default_factory=dict)
    maps: dict[Value, np.ndarray] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    def even(self, value: Value) -> np.ndarray:
        """Return the known channels that are the same at all their pixels, bool (C,)."""
        if value not in self.maps:
            return np.zeros(value.channels, dtype=bool)
        return self.known[value] & is_even(self.maps[value].reshape(value.channels, -1))


def is_even(numbers: np.ndarray) -> np.ndarray:
    """Whether the numbers of the last axis are equal but for rounding."""
    low, high = numbers.min(axis=-1), numbers.max(axis=-1)
    return high - low <= ROUNDING * np.maximum(abs(low), abs(high))


def find_constants(net: Net, flow: Flow) -> Constants:
    """Find all known maps, and what the layers with weights see of them.

    Parameters
    ----------
    net : Net
        Is left as it is; its layers run in the TEST phase (dropout hands its input on, BatchNorm
        uses its statistics).
    flow : Flow
        From :func:`minissl.channels.follow`.
    """
    found = Constants()
    single = _single_image(net)
    for layer in single.layers:
        bottom, top = single.bottoms_and_tops(layer)
        read, written = flow.bottoms[layer.name], flow.tops[layer.name]
        known = _known(layer, bottom, read, written, found)
        runs = any(channels.any() for channels in known)
        if runs:
            with np.errstate(all="ignore"):  # of channels that are not known
                layer.forward(bottom, top)
            for channels, blob in zip(known, top, strict=True):  # not a number times 0 is none
                if channels.any() and blob.shape[1:2] == channels.shape:
                    blob.data[:, ~channels] = 0
        for value, channels, blob in zip(written, known, top, strict=True):
            found.known[value] = channels
            if channels.any():
                found.maps[value] = np.array(blob.data[0], dtype=np.float64)
    return found


def _known(
    layer: Layer, bottom: list[Blob], read: list[Value], written: list[Value], found: Constants
) -> list[np.ndarray]:
    """Return which channels of each top are known, before the layer runs."""
    if layer.type_name in WITH_WEIGHTS and reads_channels(layer, read):
        seen = found.seen[layer.name] = _look(layer, bottom[0], read[0], found)
        return [seen.filters]
    known = [found.known[value] for value in read]
    if layer.type_name == "Split":
        return known * len(written)
    if not follows(layer, read):
        if layer.type_name in WITH_WEIGHTS:
            found.seen[layer.name] = _blind(layer)
        return [np.zeros(value.channels, dtype=bool) for value in written]
    if layer.type_name == "Concat" and joining_axis(layer, read) == 1:
        return [np.concatenate(known)]
    if layer.type_name == "Slice" and joining_axis(layer, read) == 1:
        ends = np.cumsum([value.channels for value in written])
        return np.split(known[0], ends[:-1])
    everywhere = np.logical_and.reduce(known)
    return [np.repeat(everywhere, value.channels // len(everywhere)) for value in written]


def _single_image(net: Net) -> Net:
    """Return the same layers for a batch of one, in float64 on the reference kernels.

    Where layers depend on the number of images, as a Slice of them does, the batch is the net's.
    """
    param = proto.NetParameter(name=net.name)
    for layer in graph.select_layers(net.param, net.phase, net.level, net.stages):
        copy = param.layer.add()
        copy.CopyFrom(layer)
        for name in ("include", "exclude", "connectivity_mode"):
            copy.ClearField(name)
    data = dict(net.layers[0].context.data)
    try:
        single = Net(param, "TEST", "numpy", "float64", data={**data, "batch_size": 1}, fuse=False)
        single.load(net.weights())
        if all(map(_reads_as_much, single.layers, net.layers)):
            return single
    except (ConfigError, ShapeError, WeightsError):
        pass
    whole = Net(param, "TEST", "numpy", "float64", data=data, fuse=False)
    whole.load(net.weights())
    return whole


def _reads_as_much(one: Any, other: Any) -> bool:
    """Whether two inner products have the same inputs; kept columns do not tell how many."""
    return one.type_name != "InnerProduct" or one.inputs == other.inputs


def _look(layer: Layer, bottom: Blob, value: Value, found: Constants) -> Seen:
    """Look at the columns of one layer."""
    g = conv_groups(layer)
    known = found.known[value]
    of_known_channel = np.repeat(known, columns_per_channel(layer, value)).reshape(g, -1)  # (g, K)
    used = dense_weights(layer).reshape(g, -1, of_known_channel.shape[1]) != 0  # (g, F/g, K)
    filters = ~(used & ~of_known_channel[:, None, :]).any(axis=2).ravel()  # (F,)
    foldable = of_known_channel.copy()
    values = np.zeros(foldable.shape)
    if known.any():
        lowered = _lowered(layer, bottom).reshape(*foldable.shape, -1)  # (g, K, P*Q)
        foldable &= is_even(lowered)
        values[foldable] = lowered[foldable, 0]
    return Seen(filters, foldable, values)


def _blind(layer: Any) -> Seen:
    """Return that nothing is known: the columns belong to no channels."""
    nothing = np.zeros((1, layer.inputs))
    return Seen(np.zeros(layer.filters, dtype=bool), nothing.astype(bool), nothing)


def _lowered(layer: Any, bottom: Blob) -> np.ndarray:
    """Return what the columns of the weight matrix are multiplied by, (g*K, P*Q) or (K, 1)."""
    if layer.type_name == "InnerProduct":
        return bottom.data[0].reshape(-1, 1)  # a batch may hold more rows than images
    P, Q = layer.shape.output
    col = np.empty((layer.groups * layer.shape.columns, P * Q))
    layer.kernels.im2col(bottom.data[0], *layer.shape.geometry, col)
    return col
