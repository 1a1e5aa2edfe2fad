"""How channels flow through a network: which filter makes each input channel of a layer.

Filter f of a Convolution or InnerProduct ("a layer with weights") makes channel f of its output.
Layers that treat every channel by itself (``PER_CHANNEL``) hand it on under the same number, so the
next layer with weights reads that filter in the columns of its channel f. Whatever else reads a
blob (a loss, a softmax, an accuracy, the caller) needs every channel.

Dimensions: F filters, C input channels, g conv groups, K columns of the weight matrix of one group,
kh x kw kernel, H x W pixels. All conv groups together have g * K columns, channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.blob import Blob
from minissl.conv_modes import executed_mode
from minissl.conv_modes.auto import AUTO
from minissl.layers import Layer
from minissl.net import Net
from minissl.sparsity.flops import Input, LayerShape

#: layer types whose output channel c depends on input channel c only
PER_CHANNEL = ("Pooling", "ReLU", "Sigmoid", "TanH", "Dropout", "Split", "Flatten")
WITH_WEIGHTS = ("Convolution", "InnerProduct")


@dataclass(frozen=True)
class Source:
    """Where the input of a layer with weights comes from.

    Attributes
    ----------
    producer : str or None
        The layer whose filter c is input channel c; None for the data, and for channels that
        cannot be followed.
    channels : int
        C.
    columns : int
        Columns of the weight matrix that read one channel: kh * kw of a convolution, H * W of an
        inner product behind an image.
    """

    producer: str | None
    channels: int
    columns: int


@dataclass
class Flow:
    """The layers with weights and what lies between them.

    Attributes
    ----------
    sources : dict
        Name of every layer with weights, in net order -> :class:`Source` of its input.
    readers : dict
        Name of every layer with weights -> names of the layers that read its filters, behind the
        per-channel layers.
    outputs : set
        Layers with weights whose filters are all needed: by a loss, as an output of the network.
    """

    sources: dict[str, Source] = field(default_factory=dict)
    readers: dict[str, list[str]] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


def follow(net: Net) -> Flow:
    """Follow all channels of a network from filter to reader.

    An InnerProduct that flattens from another ``axis`` than 1 does not read channels: its input
    counts as unknown, its filters as outputs, and what it reads is needed as a whole. The same
    holds for a Flatten that begins at the batch.
    """
    flow = Flow()
    producer_of: dict[str, str | None] = {}  # blob as it is now -> layer whose filters it holds
    for layer in net.layers:
        bottoms, tops = net.bottoms_and_tops(layer)
        producers = [producer_of[blob.name] for blob in bottoms]
        by_channel = bool(bottoms) and _keeps_channels(layer, bottoms[0])
        handed_on = None
        if layer.type_name in WITH_WEIGHTS:
            flow.readers[layer.name] = []
            handed_on = layer.name if by_channel else None
            producer = net.layer(producers[0]) if by_channel and producers[0] else None
            flow.sources[layer.name] = _source(layer, bottoms[0], producer)
            if not by_channel:
                flow.outputs.add(layer.name)
        elif layer.type_name in PER_CHANNEL and by_channel:
            handed_on = producers[0]
        reads_whole = layer.type_name not in WITH_WEIGHTS and handed_on is None
        for name in producers:
            if name is not None and layer.type_name not in PER_CHANNEL:
                flow.readers[name].append(layer.name)
            if name is not None and (reads_whole or not by_channel):
                flow.outputs.add(name)
        for blob in tops:
            producer_of[blob.name] = handed_on
    ends = (producer_of[name] for name in net.outputs)
    flow.outputs.update(name for name in ends if name is not None)
    return flow


def layer_shapes(net: Net) -> list[LayerShape]:
    """Describe the layers with weights for :func:`minissl.sparsity.flops.count`.

    A compacted layer (``kept_columns``) is described in the full width of its matrix, so that its
    columns can be followed to channels, together with the columns it really holds.
    """
    flow = follow(net)
    shapes = []
    for name, source in flow.sources.items():
        layer: Any = net.layer(name)
        _, (top,) = net.bottoms_and_tops(layer)
        is_convolution = layer.type_name == "Convolution"
        kept = kept_columns(layer)
        if layer.conv_mode == AUTO:  # no weights were loaded: the initial ones decide
            layer.prepare()
        mode = executed_mode(layer.conv_mode, kept is not None)
        shapes.append(
            LayerShape(
                name,
                dense_weights(layer),
                pixels=prod(top.shape[2:]) if is_convolution else prod(top.shape[1:-1]),
                inputs=(Input(source.producer),),
                conv_groups=conv_groups(layer),
                spatial=source.columns,
                conv_mode=mode,
                is_output=name in flow.outputs,
                kept_columns=kept,
            )
        )
    return shapes


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


def _source(layer: Any, bottom: Blob, producer: Any) -> Source:
    """Divide the columns of a layer among the channels of its bottom."""
    name = producer.name if producer else None
    if layer.type_name == "Convolution":
        return Source(name, bottom.shape[1], prod(layer.kernel))
    channels = producer.filters if producer else layer.inputs
    return Source(name, channels, layer.inputs // channels)


def _keeps_channels(layer: Any, bottom: Blob) -> bool:
    """Whether the layer leaves the batch axis alone and flattens, if at all, from the channels."""
    axes = len(bottom.shape)
    if layer.type_name == "InnerProduct":
        return layer.param.inner_product_param.axis % axes == 1
    if layer.type_name == "Flatten":
        return layer.param.flatten_param.axis % axes >= 1
    return True
