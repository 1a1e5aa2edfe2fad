"""How channels flow through a network: from the filters that make them to who reads them.

Filter f of a Convolution or InnerProduct ("a layer with weights") makes channel f of its output.
Each channel made so has a number, and every value of the network knows which numbers each of its
channels consists of:

* layers that treat every channel by itself (``PER_CHANNEL``) hand the numbers on;
* a Concat puts them side by side, a Slice divides them;
* channel c of an Eltwise consists of the channels c of all its bottoms;
* whatever else makes a blob (data, a softmax, LRN across channels) makes new channels, and needs
  all those that it reads, as a loss, an accuracy and the caller do.

Dimensions: F filters, C channels, g conv groups, K columns of the weight matrix of one group,
kh x kw kernel, H x W pixels, T terms of a sum. All conv groups together have g * K columns, channel
by channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.blob import Shape
from minissl.conv_modes import executed_mode
from minissl.conv_modes.auto import AUTO
from minissl.layers import Layer
from minissl.net import Net
from minissl.sparsity.flops import Input, LayerShape

#: layer types whose weights are a matrix with a row for each filter, and may be compacted
WITH_WEIGHTS = ("Convolution", "InnerProduct")
#: layer types whose output channel c depends on input channel c only, whatever their settings
PER_CHANNEL = (
    "AbsVal", "BNLL", "Dropout", "ELU", "Exp", "Flatten", "Log", "Pooling", "Power", "PReLU",
    "ReLU", "Sigmoid", "Split", "TanH", "Threshold",
)  # fmt: skip
#: layer types with one parameter for each channel, when they have one bottom
WITH_CHANNEL_PARAMETERS = ("BatchNorm", "Scale", "Bias")
WITHIN_CHANNEL = 1  # LRNParameter.NormRegion


@dataclass(eq=False)
class Value:
    """A blob as one layer writes it; a layer that computes in place makes another value.

    Attributes
    ----------
    name : str
        Of the blob.
    shape : tuple of int
    terms : ndarray
        Numbers of the channels that each channel consists of, int (T, C); -1 where there are fewer.
    """

    name: str
    shape: Shape
    terms: np.ndarray

    @property
    def channels(self) -> int:
        """C."""
        return self.terms.shape[1]


@dataclass(frozen=True)
class Maker:
    """A layer that makes channels.

    Attributes
    ----------
    layer : str
    first, channels : int
        Its channels have the numbers ``first`` to ``first + channels - 1``.
    has_filters : bool
        Whether channel f is what filter f makes; False for data and whatever is not followed.
    """

    layer: str
    first: int
    channels: int
    has_filters: bool


@dataclass
class Flow:
    """The values of a network.

    Attributes
    ----------
    bottoms, tops : dict
        Name of every layer, in net order -> the values that it reads and writes. The copies of a
        Split are the value that it copies.
    makers : list of Maker
        By first number.
    outputs : list of Value
        What no layer reads, and what counts in the loss by itself (``loss_weight``).
    """

    bottoms: dict[str, list[Value]] = field(default_factory=dict)
    tops: dict[str, list[Value]] = field(default_factory=dict)
    makers: list[Maker] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    @property
    def channels(self) -> int:
        """How many numbers there are."""
        return self.makers[-1].first + self.makers[-1].channels if self.makers else 0

    def makers_of(self, numbers: Iterable[int]) -> list[Maker]:
        """Return who makes some channels, in net order."""
        firsts = [maker.first for maker in self.makers]
        there = np.asarray(list(numbers), dtype=int)
        found = np.searchsorted(firsts, there[there >= 0], side="right") - 1
        return [self.makers[i] for i in np.unique(found)]


def follow(net: Net, outputs: Iterable[str] | None = None) -> Flow:
    """Follow all channels of a network from filter to reader.

    Parameters
    ----------
    net : Net
    outputs : iterable of str, optional
        Those outputs of the network that somebody wants; default: all.
    """
    flow = Flow()
    current: dict[str, Value] = {}
    losses = []
    for layer, loss_weights in zip(net.layers, net.loss_weights, strict=True):
        bottoms, tops = net.bottoms_and_tops(layer)
        read = [current[blob.name] for blob in bottoms]
        if layer.type_name == "Split":
            written = [read[0]] * len(tops)
        else:
            terms = _terms(flow, layer, read, [blob.shape for blob in tops])
            written = [
                Value(blob.name, blob.shape, numbers)
                for blob, numbers in zip(tops, terms, strict=True)
            ]
        flow.bottoms[layer.name], flow.tops[layer.name] = read, written
        current.update((blob.name, value) for blob, value in zip(tops, written, strict=True))
        losses += [v for v, counts in zip(written, loss_weights, strict=True) if counts]
    wanted = set(net.outputs if outputs is None else outputs)
    unread = [current[name] for name in net.outputs]
    flow.outputs = [current[name] for name in net.outputs if name in wanted]
    flow.outputs += [value for value in losses if value not in unread]
    return flow


def _terms(flow: Flow, layer: Layer, read: list[Value], shapes: list[Shape]) -> list[np.ndarray]:
    """Return the numbers of each top's channels."""
    if follows(layer, read):
        if layer.type_name == "Concat" and joining_axis(layer, read) == 1:
            most = max(len(value.terms) for value in read)
            return [np.hstack([_with_terms(value.terms, most) for value in read])]
        if layer.type_name == "Slice" and joining_axis(layer, read) == 1:
            ends = np.cumsum([shape[1] for shape in shapes])
            return np.split(read[0].terms, ends[:-1], axis=1)
        terms = read[0].terms
        if len(read) > 1:
            terms = _distinct_rows(np.vstack([value.terms for value in read]))
        return [np.repeat(terms, shape[1] // terms.shape[1], axis=1) for shape in shapes]
    made = []
    for shape in shapes:
        channels = shape[1] if len(shape) > 1 else 1
        has_filters = layer.type_name in WITH_WEIGHTS and reads_channels(layer, read)
        flow.makers.append(Maker(layer.name, flow.channels, channels, has_filters))
        made.append(np.arange(flow.channels - channels, flow.channels)[None])
    return made


def follows(layer: Layer, read: list[Value]) -> bool:
    """Whether the channels of the tops are channels of the bottoms."""
    kind, axes = layer.type_name, len(read[0].shape) if read else 0
    if axes < 2:
        return False
    if kind == "Flatten":
        return layer.param.flatten_param.axis % axes >= 1
    if kind in ("Concat", "Slice"):
        return joining_axis(layer, read) >= 1
    if kind == "LRN":
        return layer.param.lrn_param.norm_region == WITHIN_CHANNEL
    if kind in WITH_CHANNEL_PARAMETERS:
        return len(read) == 1 and parameter_axis(layer, axes) >= 1
    return kind in PER_CHANNEL or kind == "Eltwise"


def joining_axis(layer: Layer, read: list[Value]) -> int:
    """Return the axis of a Concat or Slice, counted from the front."""
    param = layer.param.concat_param if layer.type_name == "Concat" else layer.param.slice_param
    old = "concat_dim" if layer.type_name == "Concat" else "slice_dim"
    axis = getattr(param, old) if param.HasField(old) else param.axis
    return axis % len(read[0].shape)


def parameter_axis(layer: Layer, axes: int) -> int:
    """Return the first axis that the parameters of a BatchNorm, Scale or Bias run along."""
    if layer.type_name == "BatchNorm":
        return 1
    param = layer.param.scale_param if layer.type_name == "Scale" else layer.param.bias_param
    return axes if param.num_axes == 0 else param.axis % axes


def acts_by_channel(layer: Layer, axes: int) -> bool:
    """Whether a Scale or Bias has one parameter for each channel."""
    param = layer.param.scale_param if layer.type_name == "Scale" else layer.param.bias_param
    return parameter_axis(layer, axes) == 1 and param.num_axes == 1


def reads_channels(layer: Layer, read: list[Value]) -> bool:
    """Whether the columns of a layer with weights belong to channels.

    They do not in an InnerProduct that flattens from another ``axis`` than 1.
    """
    if layer.type_name == "InnerProduct":
        return layer.param.inner_product_param.axis % len(read[0].shape) == 1
    return layer.type_name == "Convolution"


def columns_per_channel(layer: Any, value: Value) -> int:
    """Return how many columns read one channel: kh * kw, or H * W of an image that is flattened."""
    return prod(layer.kernel) if layer.type_name == "Convolution" else prod(value.shape[2:])


def _with_terms(terms: np.ndarray, most: int) -> np.ndarray:
    return np.pad(terms, [(0, most - len(terms)), (0, 0)], constant_values=-1)


def _distinct_rows(terms: np.ndarray) -> np.ndarray:
    return np.array(list(dict.fromkeys(map(tuple, terms.tolist()))))


def layer_shapes(net: Net) -> list[LayerShape]:
    """Describe the layers with weights for :func:`minissl.sparsity.flops.count`.

    A compacted layer (``kept_columns``) is described in the full width of its matrix, so that its
    columns can be followed to channels, together with the columns it really holds.
    """
    flow = follow(net)
    outputs = set(_needed_as_a_whole(net, flow))
    shapes = []
    for layer in net.layers:
        if layer.type_name not in WITH_WEIGHTS:
            continue
        any_layer: Any = layer
        kept = kept_columns(layer)
        if any_layer.conv_mode == AUTO:  # no weights were loaded: the initial ones decide
            layer.prepare()
        mode = executed_mode(any_layer.conv_mode, kept is not None)
        inputs, spatial = _inputs(flow, layer)
        shape = flow.tops[layer.name][0].shape
        shapes.append(
            LayerShape(
                layer.name,
                dense_weights(layer),
                pixels=prod(shape[2:] if layer.type_name == "Convolution" else shape[1:-1]),
                inputs=inputs,
                conv_groups=conv_groups(layer),
                spatial=spatial,
                conv_mode=mode,
                is_output=layer.name in outputs,
                kept_columns=kept,
            )
        )
    return shapes


def _needed_as_a_whole(net: Net, flow: Flow) -> Iterator[str]:
    """Name the layers whose filters are all needed: by a loss, as an output of the network."""
    whole = list(flow.outputs)
    for layer in net.layers:
        read = flow.bottoms[layer.name]
        if layer.type_name == "Split" or follows(layer, read):
            continue
        if layer.type_name in WITH_WEIGHTS and reads_channels(layer, read):
            continue
        whole += read
        if layer.type_name in WITH_WEIGHTS:
            yield layer.name
    for value in whole:
        yield from (maker.layer for maker in flow.makers_of(value.terms.ravel()))


def _inputs(flow: Flow, layer: Layer) -> tuple[tuple[Input, ...], int]:
    """Return where the columns of a layer come from, and how many of them are one channel."""
    read = flow.bottoms[layer.name]
    if not reads_channels(layer, read):
        return (Input(None),), 1
    columns = np.repeat(read[0].terms, columns_per_channel(layer, read[0]), axis=1)  # (T, g*K)
    starts = [0, *(np.flatnonzero((np.diff(columns) != 0).any(axis=0)) + 1), columns.shape[1]]
    spatial = int(np.gcd.reduce(np.diff(starts)))
    return tuple(_segments(flow, columns[:, ::spatial])), spatial


def _segments(flow: Flow, terms: np.ndarray) -> Iterator[Input]:
    """Divide each term (T, C) into stretches that one layer makes in order."""
    for term in terms:
        for maker in flow.makers_of(term):
            there = np.flatnonzero((maker.first <= term) & (term < maker.first + maker.channels))
            jumps = np.flatnonzero((np.diff(there) != 1) | (np.diff(term[there]) != 1)) + 1
            for first, last in pairwise([0, *jumps, len(there)]):
                yield Input(
                    maker.layer if maker.has_filters else None,
                    first_channel=int(there[first]),
                    channels=int(last - first),
                    first_filter=int(term[there[first]] - maker.first) * maker.has_filters,
                )


def conv_groups(layer: Layer) -> int:
    """Return g, 1 for an inner product."""
    return layer.parameters[0].conv_groups


def kept_columns(layer: Any) -> np.ndarray | None:
    """Return which columns a compacted layer holds, bool (g, K); None when it holds all."""
    if layer.type_name == "Convolution":
        lists, columns = layer.kept_columns, layer.shape.columns
    else:
        lists = [] if layer.kept_columns is None else [layer.kept_columns]
        columns = layer.inputs
    if not lists:
        return None
    mask = np.zeros((len(lists), columns), dtype=bool)
    for row, kept in zip(mask, lists, strict=True):
        row[kept] = True
    return mask


def dense_weights(layer: Any) -> np.ndarray:
    """Return all weights, (F, C/g, kh, kw) or (F, K), with zeros in columns that were left out."""
    if layer.type_name == "InnerProduct":
        return layer.full_matrix()
    stored = to_host(layer.parameters[0].data)
    if layer.kept_columns:
        return layer.shape.scatter_columns(stored, layer.kept_columns)
    return stored
