"""What stays: the channels that are read, and those that cannot leave without them.

A channel leaves when nothing reads it, wherever it goes. Channels that are added up are *tied*:
channel c of a sum leaves only together with channel c of all its terms, since a sum needs equal
numbers of channels. What stays must also come in equal numbers in every conv group, of the layer
that makes it and of all that read it, and a layer that runs keeps one channel at least. Channels
that stay for such reasons only are *fillers*: their filters have all weights set to 0, and the bias
unless they were dead.

A layer runs when something needs its output; what is left of a dead branch does not.

Dimensions: F filters, C channels, g conv groups, K columns of one group.
"""

from __future__ import annotations

from collections.abc import Callable
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
from minissl.compaction.constants import Constants
from minissl.compaction.reading import Merged, Reading, is_shared
from minissl.layers import Layer
from minissl.net import Net


@dataclass
class LayerPlan:
    """What stays of one layer with weights.

    Attributes
    ----------
    needed : ndarray
        Filters that something reads, bool (F,).
    filters : ndarray
        Filters that stay: the needed ones and fillers, bool (F,).
    channels : ndarray
        Input channels that stay, bool (C,); of an inner product that flattens from another axis
        than 1, its K columns.
    columns : ndarray
        Columns with a needed weight, bool (g, K).
    folded : ndarray
        What the bias gains, (F,).
    merged : list of Merged
    untouched : bool
        Everything stays, say because another layer has the same weights.
    """

    needed: np.ndarray
    filters: np.ndarray
    channels: np.ndarray
    columns: np.ndarray
    folded: np.ndarray
    merged: list[Merged] = field(default_factory=list)
    untouched: bool = False


@dataclass
class Plan:
    """What stays of a network.

    Attributes
    ----------
    runs : set of str
        Names of the layers that stay.
    stay : dict
        Value -> which of its channels stay, bool (C,).
    ties : ndarray
        For each channel's number the first of the numbers that are tied to it, int.
    read : ndarray
        Which numbers are read themselves, or tied to one that is, bool; the others that stay are
        fillers.
    layers : dict
        Name of every layer with weights that stays, in net order -> :class:`LayerPlan`.
    """

    runs: set[str]
    stay: dict[Value, np.ndarray]
    ties: np.ndarray
    read: np.ndarray
    layers: dict[str, LayerPlan] = field(default_factory=dict)


def make_plan(net: Net, flow: Flow, constants: Constants, reading: Reading) -> Plan:
    """Decide which layers, filters, channels and columns stay."""
    plan = _what_stays(net, flow, reading)
    for layer in net.layers:
        if layer.type_name in WITH_WEIGHTS and layer.name in plan.runs:
            plan.layers[layer.name] = _layer_plan(net, layer, flow, constants, reading, plan)
    return plan


def keep_everything(net: Net, flow: Flow) -> Plan:
    """Return the plan that changes nothing."""
    runs = {layer.name for layer in net.layers}
    values = (value for tops in flow.tops.values() for value in tops)
    stay = {value: np.ones(value.channels, dtype=bool) for value in values}
    plan = Plan(runs, stay, _tie(net, flow, runs), np.ones(flow.channels, dtype=bool))
    for layer in net.layers:
        if layer.type_name in WITH_WEIGHTS:
            w = dense_weights(layer)
            g = conv_groups(layer)
            plan.layers[layer.name] = LayerPlan(
                needed=np.ones(len(w), dtype=bool),
                filters=np.ones(len(w), dtype=bool),
                channels=np.ones(g * w[0].size, dtype=bool),
                columns=np.ones((g, w[0].size), dtype=bool),
                folded=np.zeros(len(w)),
                untouched=True,
            )
    return plan


def _layer_plan(
    net: Net, layer: Layer, flow: Flow, constants: Constants, reading: Reading, plan: Plan
) -> LayerPlan:
    (bottom,), (top,) = flow.bottoms[layer.name], flow.tops[layer.name]
    seen = constants.seen[layer.name]
    g, K = seen.foldable.shape
    matrix = dense_weights(layer).reshape(g, -1, K)  # (g, F/g, K)
    of_channels = reads_channels(layer, [bottom])
    shared = is_shared(net, layer)
    filters = matrix.shape[0] * matrix.shape[1]
    needed = reading.read[top] if of_channels else np.ones(filters, dtype=bool)
    # 0 where it cannot be folded
    folded = (matrix * seen.values[:, None, :]).sum(axis=2, dtype=np.float64).ravel()  # (F,)
    return LayerPlan(
        needed,
        filters=plan.stay[top] if of_channels else needed,
        channels=plan.stay[bottom] if of_channels else np.ones(K, dtype=bool),
        columns=reading.columns[layer.name],
        folded=np.where(needed & (not shared), folded, 0.0),
        merged=reading.merged[layer.name],
        untouched=shared,
    )


# ------------------------------------------------------------- which channels, which layers


def _what_stays(net: Net, flow: Flow, reading: Reading) -> Plan:
    """Let fillers in until every layer that runs has what it needs."""
    read = np.zeros(flow.channels, dtype=bool)  # by number of the channel
    for value, channels in reading.read.items():
        read[value.terms[0][channels]] = True
    stays = read.copy()

    def there(value: Value) -> bool:
        return bool(stays[value.terms[0]].any())

    while True:
        before = stays.copy()
        runs = running(net, flow, lambda layer: joined(layer, flow, there))
        ties = _tie(net, flow, runs)
        stays = _spread(stays, ties)
        for layer in reversed(net.layers):  # a reader's fillers do for what makes them
            if layer.name in runs and layer.type_name != "Split":
                _let_in_fillers(net, layer, flow, stays, ties)
        if (stays == before).all():
            break
    stay = {value: stays[value.terms[0]] for value in reading.read}
    return Plan(runs, stay, ties, _spread(read, ties))


def _spread(numbers: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Add what is tied to one of some numbers, bool."""
    return (np.bincount(ties, weights=numbers, minlength=len(ties)) > 0)[ties]


def running(net: Net, flow: Flow, bottoms_of: Callable[[Layer], list[Value]]) -> set[str]:
    """Return the names of the layers whose output the caller needs, or a layer that runs.

    Parameters
    ----------
    net : Net
    flow : Flow
    bottoms_of : callable
        What a layer reads, if it runs.
    """
    runs, needed = set(), set(flow.outputs)
    for layer in reversed(net.layers):
        tops = flow.tops[layer.name]
        if flow.bottoms[layer.name] and tops and not needed.intersection(tops):
            continue
        runs.add(layer.name)
        needed.update(bottoms_of(layer))
    return runs


def joined(layer: Layer, flow: Flow, stays: Callable[[Value], bool]) -> list[Value]:
    """Return the bottoms of a layer; of a Concat only those of which a channel stays."""
    bottoms = flow.bottoms[layer.name]
    if layer.type_name == "Concat" and joining_axis(layer, bottoms) == 1:
        return [value for value in bottoms if stays(value)]
    return bottoms


def _tie(net: Net, flow: Flow, runs: set[str]) -> np.ndarray:
    """Return for each number the first of the numbers that are tied to it."""
    first = np.arange(flow.channels)
    for layer in net.layers:
        bottoms, tops = flow.bottoms[layer.name], flow.tops[layer.name]
        joins = layer.type_name == "Concat" and joining_axis(layer, bottoms) == 1
        if layer.name not in runs or len(bottoms) < 2 or joins or not follows(layer, bottoms):
            continue
        for tied in tops[0].terms.T:
            firsts = np.unique(first[tied[tied >= 0]])
            if len(firsts) > 1:
                first[np.isin(first, firsts)] = firsts[0]
    return first


def _let_in_fillers(
    net: Net, layer: Layer, flow: Flow, stays: np.ndarray, ties: np.ndarray
) -> None:
    """Satisfy one layer that runs; ``stays`` is changed."""
    bottoms, tops = flow.bottoms[layer.name], flow.tops[layer.name]
    if is_shared(net, layer):  # its weights stay as they are
        for value in (*bottoms, *tops):
            _let_in(value.terms[0], stays, ties)
    elif layer.type_name in WITH_WEIGHTS and reads_channels(layer, bottoms):
        g = conv_groups(layer)
        for value in (bottoms[0], tops[0]):
            _level(value.terms[0].reshape(g, -1), stays, ties)
    elif not follows(layer, bottoms):
        for value in (*bottoms, *tops):
            _let_in(value.terms[0], stays, ties)


def _level(blocks: np.ndarray, stays: np.ndarray, ties: np.ndarray) -> None:
    """Let in the first channels of each block (g, n) until all blocks have equally many, >= 1."""
    while True:
        there = stays[blocks]
        counts = there.sum(axis=1)
        short = counts < max(1, counts.max())
        if not short.any():
            return
        first = np.argmin(there, axis=1)[short]
        _let_in(blocks[short, first], stays, ties)


def _let_in(numbers: np.ndarray, stays: np.ndarray, ties: np.ndarray) -> None:
    stays[np.isin(ties, ties[numbers])] = True
