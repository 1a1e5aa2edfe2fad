"""What is read: backward from the outputs, which channels something still needs.

A column of a layer with weights is *needed* when a needed filter has a weight in it that cannot be
folded into the bias; a channel is *read* when some layer needs it; a filter is needed when its
channel is read. One walk from the last layer to the first finds everything, since what is read of a
value depends on later layers only.

Columns of known channels in which a border shows cannot be folded. They can be merged: where
channel c is k_c at all its pixels,

    sum over c of w_c * k_c  =  (sum over c of k_c / k_r * w_c) * k_r,

so that one of these channels, r, stands for all of them.

Dimensions: F filters, C channels, g conv groups, K columns of one group, D = K / (C / g) columns of
one channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minissl.channels import (
    WITH_WEIGHTS,
    Flow,
    Value,
    conv_groups,
    dense_weights,
    follows,
    joining_axis,
    reads_channels,
)
from minissl.compaction.constants import Constants, Seen
from minissl.layers import Layer
from minissl.net import Net


@dataclass
class Merged:
    """Known channels of one conv group of a layer, for which one of them stands.

    Attributes
    ----------
    group : int
    channel : int
        The one that stays, counted within the group.
    members : ndarray
        All of them, (m,).
    ratios : ndarray
        What each is, divided by what ``channel`` is, (m,).
    columns : ndarray
        Which of the D columns of each of them move, bool (D,); the others are folded.
    """

    group: int
    channel: int
    members: np.ndarray
    ratios: np.ndarray
    columns: np.ndarray


@dataclass
class Reading:
    """What is read.

    Attributes
    ----------
    read : dict
        Value -> which channels are read, bool (C,).
    columns : dict
        Name of every layer with weights -> columns that are needed, bool (g, K).
    merged : dict
        Name of a layer with weights -> known channels that are merged.
    """

    read: dict[Value, np.ndarray] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    merged: dict[str, list[Merged]] = field(default_factory=dict)


def find_read(net: Net, flow: Flow, constants: Constants) -> Reading:
    """Walk backward through a network."""
    reading = Reading()
    for values in flow.tops.values():
        for value in values:
            reading.read[value] = np.zeros(value.channels, dtype=bool)
    for value in flow.outputs:
        reading.read[value][:] = True
    for layer in reversed(net.layers):
        if layer.type_name != "Split":
            _walk(net, layer, flow, constants, reading)
    return reading


def is_shared(net: Net, layer: Layer) -> bool:
    """Whether another layer has the same weights, which can change in no way then."""
    mine = {id(parameter) for parameter in layer.parameters}
    return any(
        id(parameter) in mine
        for other in net.layers
        if other is not layer
        for parameter in other.parameters
    )


def _walk(net: Net, layer: Layer, flow: Flow, constants: Constants, reading: Reading) -> None:
    """Note what one layer reads, of which the readers are known."""
    bottoms, tops = flow.bottoms[layer.name], flow.tops[layer.name]
    read = reading.read
    runs = not tops or any(read[value].any() for value in tops)
    passes_on = follows(layer, bottoms)
    shared = is_shared(net, layer)
    if runs and (shared or not (passes_on or layer.type_name in WITH_WEIGHTS)):
        for value in tops:
            read[value][:] = True  # such a layer makes all of its channels or none
    if layer.type_name in WITH_WEIGHTS:
        (bottom,), (top,) = bottoms, tops
        if runs and not reads_channels(layer, bottoms):
            read[bottom][:] = read[top][:] = True
        columns, merged = _needed_columns(layer, read[top], bottom, constants, shared)
        reading.columns[layer.name], reading.merged[layer.name] = columns, merged
        if reads_channels(layer, bottoms):
            read[bottom] |= columns.reshape(bottom.channels, -1).any(axis=1)
    elif passes_on:
        _pass_back(layer, bottoms, tops, read)
    elif runs:
        for value in bottoms:
            read[value][:] = True


def _pass_back(
    layer: Layer, bottoms: list[Value], tops: list[Value], read: dict[Value, np.ndarray]
) -> None:
    """What is read of a top is read of the bottoms."""
    joins = layer.type_name in ("Concat", "Slice") and joining_axis(layer, bottoms) == 1
    if joins and layer.type_name == "Concat":
        ends = np.cumsum([value.channels for value in bottoms])
        for value, channels in zip(bottoms, np.split(read[tops[0]], ends[:-1]), strict=True):
            read[value] |= channels
    elif joins:
        read[bottoms[0]] |= np.concatenate([read[value] for value in tops])
    else:
        for bottom in bottoms:
            for top in tops:
                read[bottom] |= read[top].reshape(bottom.channels, -1).any(axis=1)


def _needed_columns(
    layer: Layer, needed: np.ndarray, bottom: Value, constants: Constants, shared: bool
) -> tuple[np.ndarray, list[Merged]]:
    """Return the columns (g, K) that the needed filters (F,) of a layer need."""
    seen = constants.seen[layer.name]
    g, K = seen.foldable.shape
    living = dense_weights(layer).reshape(g, -1, K) != 0  # (g, F/g, K)
    if not reads_channels(layer, [bottom]):
        return living.any(axis=1) & needed.any(), []
    columns = (living & needed.reshape(g, -1, 1)).any(axis=1)  # (g, K)
    if shared:
        columns[:] = needed.any()
        return columns, []
    columns &= ~seen.foldable
    return columns, _merge(columns, seen, bottom, constants, conv_groups(layer))


def _merge(
    columns: np.ndarray, seen: Seen, bottom: Value, constants: Constants, g: int
) -> list[Merged]:
    """Let one known channel of each conv group stand for all; ``columns`` (g, K) is changed."""
    merged = []
    even = constants.even(bottom).reshape(g, -1)  # (g, C/g)
    by_channel = columns.reshape(*even.shape, -1)  # (g, C/g, D), a view
    for group, candidates in enumerate(even & by_channel.any(axis=2)):
        members = np.flatnonzero(candidates)
        if len(members) < 2:
            continue
        maps = constants.maps[bottom].reshape(g, -1, np.prod(bottom.shape[2:], dtype=int))
        values = maps[group, members, 0]
        strongest = int(np.argmax(abs(values)))
        moves = by_channel[group, members].any(axis=0)
        by_channel[group, members] = False
        by_channel[group, members[strongest]] = moves
        ratios = values / values[strongest]
        merged.append(Merged(group, int(members[strongest]), members, ratios, moves))
    return merged
