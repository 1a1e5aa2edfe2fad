"""What may leave: dead filters with the next layer's channels, and back again.

Forward, :mod:`minissl.compaction.constants` has found which filters put out constants. Backward,
from the outputs of the network: a column is *needed* when a needed filter has a weight in it that
cannot be folded into the bias; a filter is needed when some reader needs a column of its channel.
Filters of output layers, and of layers that share their weights with another, are always needed.
One walk forward and one backward reach the state in which nothing changes any more.

What is not needed leaves, except that the filters left must come in equal numbers in every conv
group, of their own layer and of all layers that read them, and that a layer keeps one filter at
least. Filters that stay for that reason only (``fillers``) have all weights and the bias set to 0.

Dimensions: F filters, C input channels, g conv groups, K columns of one group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import lcm

import numpy as np

from minissl.channels import Flow, conv_groups, dense_weights
from minissl.compaction.constants import Constants
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
        Input channels that stay, bool (C,): the filters of the producer.
    columns : ndarray
        Columns with a needed weight, bool (g, K).
    folded : ndarray
        What the bias gains, (F,).
    untouched : bool
        Everything stays, say because another layer has the same weights.
    stays : list of str
        Why dead filters stay, one sentence each.
    """

    needed: np.ndarray
    filters: np.ndarray
    channels: np.ndarray
    columns: np.ndarray
    folded: np.ndarray
    untouched: bool = False
    stays: list[str] = field(default_factory=list)


def make_plan(net: Net, flow: Flow, constants: dict[str, Constants]) -> dict[str, LayerPlan]:
    """Decide for every layer with weights which filters, channels and columns stay."""
    plan: dict[str, LayerPlan] = {}
    for name in reversed(flow.sources):  # readers before producers
        layer = net.layer(name)
        w = dense_weights(layer)
        matrix = w.reshape(conv_groups(layer), -1, constants[name].foldable.shape[1])  # (g, F/g, K)
        shared = _is_shared(net, name)
        needed = _read_filters(name, flow, plan, len(w))
        if shared or name in flow.outputs:
            needed[:] = True
        living = (matrix != 0) & needed.reshape(matrix.shape[0], -1, 1)
        columns = living.any(axis=1) & ~constants[name].foldable  # (g, K)
        if shared:
            columns[:] = True
        constant = constants[name].values[:, None, :]  # 0 where it cannot be folded
        folded = (matrix * constant).sum(axis=2, dtype=np.float64).ravel()  # (F,)
        plan[name] = LayerPlan(
            needed,
            filters=_in_equal_numbers(needed, _blocks(net, name, flow)),
            channels=np.ones(flow.sources[name].channels, dtype=bool),
            columns=columns,
            folded=np.where(needed & (not shared), folded, 0.0),
            untouched=shared,
        )
    for name, source in flow.sources.items():
        if source.producer is not None:
            plan[name].channels = plan[source.producer].filters
    for name in plan:
        plan[name].stays = _reasons(name, flow, plan, constants)
    return {name: plan[name] for name in flow.sources}


def keep_everything(net: Net, flow: Flow) -> dict[str, LayerPlan]:
    """Return the plan that changes nothing."""
    plan = {}
    for name, source in flow.sources.items():
        w = dense_weights(net.layer(name))
        g = conv_groups(net.layer(name))
        everything = np.ones(len(w), dtype=bool)
        plan[name] = LayerPlan(
            needed=everything,
            filters=everything,
            channels=np.ones(source.channels, dtype=bool),
            columns=np.ones((g, w[0].size), dtype=bool),
            folded=np.zeros(len(w)),
            untouched=True,
        )
    return plan


def _is_shared(net: Net, name: str) -> bool:
    mine = {id(parameter) for parameter in net.layer(name).parameters}
    return any(
        id(parameter) in mine
        for other in net.layers
        if other.name != name
        for parameter in other.parameters
    )


def _readers(name: str, flow: Flow) -> list[str]:
    """Return the layers with weights that read the channels of a layer."""
    return [reader for reader, source in flow.sources.items() if source.producer == name]


def _read_filters(name: str, flow: Flow, plan: dict[str, LayerPlan], filters: int) -> np.ndarray:
    """Return the filters of which a reader needs at least one column, bool (F,)."""
    read = np.zeros(filters, dtype=bool)
    for reader in _readers(name, flow):
        read |= plan[reader].columns.reshape(filters, -1).any(axis=1)
    return read


def _blocks(net: Net, name: str, flow: Flow) -> int:
    """Return into how many equal blocks the filters must fall: conv groups, here and behind."""
    readers = (net.layer(reader) for reader in _readers(name, flow))
    return lcm(conv_groups(net.layer(name)), *(conv_groups(reader) for reader in readers))


def _in_equal_numbers(needed: np.ndarray, blocks: int) -> np.ndarray:
    """Add fillers, the first that are not needed, until all blocks hold the same number (>= 1)."""
    filters = needed.reshape(blocks, -1).copy()
    number = max(1, int(filters.sum(axis=1).max()))
    for block in filters:
        spare = np.flatnonzero(~block)
        block[spare[: number - int(block.sum())]] = True
    return filters.ravel()


def _reasons(
    name: str, flow: Flow, plan: dict[str, LayerPlan], constants: dict[str, Constants]
) -> list[str]:
    """Say why filters stay although they are constant or unread."""
    mine = plan[name]
    reasons = []
    constant = mine.needed & constants[name].filters
    if constant.any():
        if mine.untouched:
            why = "its weights are shared with another layer"
        elif name in flow.outputs:
            why = "the outputs of the network need every filter"
        else:
            why = f"{_who_needs(name, constant, flow, plan)} cannot take them into its bias"
        reasons.append(f"{int(constant.sum())} constant filters stay: {why}")
    fillers = int((mine.filters & ~mine.needed).sum())
    if fillers and not mine.needed.any():
        reasons.append(f"{fillers} dead filters stay: a layer needs one in each conv group")
    elif fillers:
        reasons.append(f"{fillers} dead filters stay: conv groups need equal numbers")
    return reasons


def _who_needs(name: str, constant: np.ndarray, flow: Flow, plan: dict[str, LayerPlan]) -> str:
    """Name the readers that hold on to constant filters."""
    readers = [
        reader
        for reader in _readers(name, flow)
        if (plan[reader].columns.reshape(len(constant), -1).any(axis=1) & constant).any()
    ]
    shared = [reader for reader in readers if plan[reader].untouched]
    why = "which shares its weights," if shared else "which sees them unevenly (padding),"
    return f"{' and '.join(readers)}, {why}"
