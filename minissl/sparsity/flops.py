"""What zeros save: floating-point operations of one image, a multiply-add counted as 2.

Biases, activations and pooling are not counted. Published tables count by different rules, so
there are several, for a layer of F filters, g conv groups and C columns on P output pixels:

========== =====================================================================================
dense      2 * F * C * P: nothing is skipped; a compacted layer has only the columns it holds
zeros      2 * nnz * P: every product with a zero weight is skipped
structured 2 * P * sum over conv groups of (living rows * living columns); rows and columns that
           are zero as a whole are skipped. Table 1 of the SSL paper counts so
propagated as structured, in the network that is left when dead filters leave with the next
           layer's channels and back again. Table 2 and the MLP's table count so: their conv1 keeps
           only the filters that conv2 still reads
executed   what the layer's conv_mode does: LOWERED_GEMM and DIRECT_DCONV dense, and so counts
           WINOGRAD, which multiplies less; LOWERED_CSRMM and DIRECT_SCONV zeros, LOWERED_CCNMM
           structured
========== =====================================================================================

A filter without weights is dead even when its bias is not 0: what it puts out is constant, and
compaction folds constants into the next layer's bias. So a residual block whose convolutions died
counts nothing at all; a filter that died where it is added to living ones counts nothing either,
since a row of zeros need not be computed, though it leaves only where all that are added to it do.

Dimensions: F filters, C columns, g conv groups; the matrix is (F, C), its bands are (g, F/g, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from minissl.errors import ConfigError, ShapeError
from minissl.sparsity.groups import bands

#: which rule a conv_mode executes
EXECUTED_RULE = {
    "LOWERED_GEMM": "dense",
    "LOWERED_CSRMM": "zeros",
    "LOWERED_CCNMM": "structured",
    "DIRECT_SCONV": "zeros",
    "DIRECT_DCONV": "dense",
    "WINOGRAD": "dense",
}


@dataclass(frozen=True)
class Input:
    """Where input channels of a layer come from.

    The producer's filter ``first_filter + f`` is the reader's channel ``first_channel + f``. Two
    inputs side by side are a concatenation; two inputs over the same channels are an element-wise
    sum, whose channel is alive as long as one of its terms is. Several inputs with one producer
    are slices of its output, or copies.

    ``producer`` is the name of a layer in the list, or None for the data and for whatever cannot
    be followed: those channels are alive. ``channels`` is their number; left out it means all of
    the producer's filters that remain, or all channels that remain.
    """

    producer: str | None
    first_channel: int = 0
    channels: int | None = None
    first_filter: int = 0

    def span(self, available: int) -> slice:
        """Return the reader's channels, of a producer that has ``available`` filters."""
        available -= self.first_filter
        channels = available if self.channels is None else min(self.channels, available)
        return slice(self.first_channel, self.first_channel + channels)

    def filters(self, available: int) -> slice:
        """Return the producer's filters that make them."""
        span = self.span(available)
        return slice(self.first_filter, self.first_filter + span.stop - span.start)


@dataclass(frozen=True, eq=False)
class LayerShape:
    """A layer with weights, as far as counting needs it.

    Attributes
    ----------
    name : str
    weight : ndarray
        (F, C/g, kh, kw) or (F, K).
    pixels : int
        Output positions: height * width of a convolution's output, 1 for an inner product.
    inputs : tuple of Input
        Where the input channels come from.
    conv_groups : int
        How many, g.
    spatial : int, optional
        Columns of one input channel, next to each other. Default: the kernel's area, which is 1
        for an inner product; after a flatten from (C, H, W) it is H * W.
    conv_mode : str
        Decides the ``executed`` count.
    is_output : bool
        Whether anything outside the list needs every filter, say a loss. Layers that no layer
        reads are outputs as well.
    kept_columns : ndarray, optional
        Which columns a compacted layer holds at all, bool (g, C); the others are 0 in ``weight``.
    """

    name: str
    weight: np.ndarray
    pixels: int = 1
    inputs: tuple[Input, ...] = (Input(None),)
    conv_groups: int = 1
    spatial: int | None = None
    conv_mode: str = "LOWERED_GEMM"
    is_output: bool = False
    kept_columns: np.ndarray | None = None

    @cached_property
    def nonzero(self) -> np.ndarray:
        """Where a weight is not zero, bool (g, F/g, C)."""
        return bands(self.weight.reshape(len(self.weight), -1), self.conv_groups) != 0

    @cached_property
    def columns_per_channel(self) -> int:
        """Width of one input channel in the matrix."""
        return self.spatial or prod(self.weight.shape[2:])

    @cached_property
    def input_channels(self) -> int:
        """Channels of the input, those of all conv groups."""
        return self.nonzero.shape[0] * self.nonzero.shape[2] // self.columns_per_channel


@dataclass
class Alive:
    """What is left of a layer after propagation, as bool arrays.

    ``filters`` (F,): not zero, and read by a later layer. ``columns`` (g, C): not zero in a living
    filter, and of a living input channel.
    """

    filters: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class LayerFlops:
    """FLOP per image of one layer, or of a network, by the rules of this module."""

    name: str
    dense: int
    zeros: int
    structured: int
    propagated: int
    executed: int

    def to_json(self) -> dict[str, Any]:
        """Return the counts as they are reported."""
        return dict(vars(self))


def count(layers: Sequence[LayerShape]) -> list[LayerFlops]:
    """Count the FLOP per image of every layer.

    Parameters
    ----------
    layers : sequence of LayerShape
        All layers with weights, producers before their readers.

    Raises
    ------
    ConfigError
        For an unknown ``conv_mode``, or an input that is not in the list.
    ShapeError
        When inputs do not make up the channels of a layer.
    """
    alive = propagate(layers)
    return [_count_layer(layer, alive[layer.name]) for layer in layers]


def total(flops: Sequence[LayerFlops]) -> LayerFlops:
    """Return the sum over layers, named "total"."""
    rules = ("dense", "zeros", "structured", "propagated", "executed")
    return LayerFlops("total", **{rule: sum(getattr(one, rule) for one in flops) for rule in rules})


def propagate(layers: Sequence[LayerShape]) -> dict[str, Alive]:
    """Find what is left of every layer when dead filters and channels leave a network.

    A filter is dead when all its living columns are zero or when no layer reads its channel; a
    column is dead when it is zero in all living filters or when the filters that produce its
    channel are dead. Each death can cause others, before and behind; this goes on until nothing
    changes. Filters of output layers are always alive.

    Parameters and errors as in :func:`count`.

    Returns
    -------
    dict
        Name of the layer -> Alive.
    """
    by_name: dict[str, LayerShape] = {}
    for layer in layers:
        _check_inputs(layer, by_name)
        by_name[layer.name] = layer
    read = {source.producer for layer in layers for source in layer.inputs}
    outputs = {layer.name for layer in layers if layer.is_output or layer.name not in read}
    alive = {
        layer.name: Alive(
            filters=np.ones(len(layer.weight), dtype=bool),
            columns=np.ones(layer.nonzero[:, 0].shape, dtype=bool),  # (g, C)
        )
        for layer in layers
    }

    changed = True
    while changed:
        before = _survivors(alive)
        for layer in layers:
            _drop_columns(layer, alive)
            if layer.name not in outputs:
                _drop_empty_filters(layer, alive[layer.name])
        for layer in layers:
            if layer.name not in outputs:
                _drop_unread_filters(layer.name, layers, alive)
        changed = _survivors(alive) != before
    return alive


def _drop_columns(layer: LayerShape, alive: dict[str, Alive]) -> None:
    """Keep the columns of living channels that a living filter uses."""
    channels = np.zeros(layer.input_channels, dtype=bool)
    for source in layer.inputs:
        if source.producer is None:
            channels[source.span(len(channels) - source.first_channel)] = True
        else:
            filters = alive[source.producer].filters
            channels[source.span(len(filters))] |= filters[source.filters(len(filters))]
    g, band_filters, C = layer.nonzero.shape
    of_living_channels = np.repeat(channels, layer.columns_per_channel).reshape(g, C)
    living = alive[layer.name].filters.reshape(g, band_filters, 1)
    used = (layer.nonzero & living).any(axis=1)  # (g, C)
    alive[layer.name].columns &= used & of_living_channels


def _drop_empty_filters(layer: LayerShape, alive: Alive) -> None:
    """Keep the filters with a weight in a living column."""
    alive.filters &= (layer.nonzero & alive.columns[:, None, :]).any(axis=2).ravel()  # (F,)


def _drop_unread_filters(name: str, layers: Sequence[LayerShape], alive: dict[str, Alive]) -> None:
    """Keep the filters whose channel is read by some layer, in one column at least."""
    filters = alive[name].filters
    read = np.zeros_like(filters)
    for layer in layers:
        columns = alive[layer.name].columns.reshape(layer.input_channels, -1)
        read_channels = np.any(columns, axis=1)  # (input channels,)
        for source in layer.inputs:
            if source.producer == name:
                read[source.filters(len(filters))] |= read_channels[source.span(len(filters))]
    filters &= read


def _survivors(alive: dict[str, Alive]) -> int:
    """Count living filters and columns; deaths are final, so an equal count means no change."""
    return sum(int(one.filters.sum()) + int(one.columns.sum()) for one in alive.values())


def _count_layer(layer: LayerShape, alive: Alive) -> LayerFlops:
    nonzero = layer.nonzero  # (g, F/g, C)
    g, _, C = nonzero.shape
    held = g * C if layer.kept_columns is None else int(layer.kept_columns.sum())
    flop = 2 * layer.pixels
    counts = {
        "dense": flop * held * nonzero.shape[1],
        "zeros": flop * int(np.count_nonzero(nonzero)),
        "structured": flop * _rectangles(np.any(nonzero, axis=2), np.any(nonzero, axis=1)),
        "propagated": flop * _rectangles(alive.filters.reshape(len(nonzero), -1), alive.columns),
    }
    if layer.conv_mode not in EXECUTED_RULE:
        raise ConfigError(
            f"{layer.name}: unknown conv_mode '{layer.conv_mode}'; "
            f"choose one of {', '.join(EXECUTED_RULE)}"
        )
    return LayerFlops(layer.name, **counts, executed=counts[EXECUTED_RULE[layer.conv_mode]])


def _rectangles(rows: np.ndarray, columns: np.ndarray) -> int:
    """Sum, over conv groups, living rows (g, F/g) times living columns (g, C)."""
    return int((rows.sum(axis=1) * columns.sum(axis=1)).sum())


def _check_inputs(layer: LayerShape, earlier: dict[str, LayerShape]) -> None:
    """Refuse inputs that are not there, or do not make up exactly the layer's channels."""
    covered = np.zeros(layer.input_channels, dtype=bool)
    for source in layer.inputs:
        if source.producer is None:
            available = layer.input_channels - source.first_channel
        elif source.producer in earlier:
            available = len(earlier[source.producer].weight)
        else:
            raise ConfigError(
                f"{layer.name}: its input '{source.producer}' is no earlier layer; "
                "list producers before their readers"
            )
        span = source.span(available)
        if span.stop > layer.input_channels:
            raise ShapeError(
                f"{layer.name}: channels {span.start} to {span.stop - 1} come from "
                f"'{source.producer or 'data'}', but the weights are for {layer.input_channels} "
                "input channels; check spatial and first_channel"
            )
        covered[span] = True
    if not covered.all():
        raise ShapeError(
            f"{layer.name}: no input gives channel {int(np.argmin(covered))} of the "
            f"{layer.input_channels} that the weights are for; check spatial and first_channel"
        )
