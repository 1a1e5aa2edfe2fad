"""What compaction did, layer by layer and group by group."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minissl.channels import WITH_WEIGHTS, Flow, kept_columns
from minissl.compaction.plan import Plan
from minissl.compaction.shrink import stored_bytes
from minissl.layers import Layer
from minissl.net import Net


@dataclass
class LayerReport:
    """One layer with parameters.

    Attributes
    ----------
    name, type : str
    shape_before, shape_after : tuple of int
        Of the stored weights; (F, kept) where ``kept_columns`` leaves columns out. () where the
        layer is not there: before, of a Bias that took the place of a sum; after, when it left.
    bytes_before, bytes_after : int
        All parameters, and 4 bytes for the index of each kept column.
    filters_removed, channels_removed : int
        Of a layer with weights.
    columns_removed : int
        Left out by ``kept_columns`` inside channels that stay.
    folded : int
        Filters whose bias took constants of removed ones.
    merged : int
        Constant channels for which another one stands.
    stays : list of str
        What is dead and yet there, and why.
    """

    name: str
    type: str
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    filters_removed: int = 0
    channels_removed: int = 0
    columns_removed: int = 0
    folded: int = 0
    merged: int = 0
    stays: list[str] = field(default_factory=list)


@dataclass
class GroupReport:
    """Layers whose filters leave together: their channels are added up somewhere.

    Attributes
    ----------
    layers : list of str
        Those that make the channels; most groups are a single layer.
    readers : list of str
        Layers with weights that read them.
    channels, removed : int
        How many there are of each layer, and how many of those leave.
    stays : list of str
        Why others that seem superfluous do not, as ``layer: reason``.
    """

    layers: list[str]
    readers: list[str]
    channels: int
    removed: int
    stays: list[str]


@dataclass
class Report:
    """A whole network; sizes in bytes.

    Attributes
    ----------
    layers : list of LayerReport
        All layers with parameters, in net order.
    groups : list of GroupReport
        What is left when dead branches have gone.
    removed_layers : list of str
        All layers that left, also those without parameters.
    stays : dict
        {layer name: sentences} of everything that is dead and yet there, also of sums.
    """

    layers: list[LayerReport]
    groups: list[GroupReport] = field(default_factory=list)
    removed_layers: list[str] = field(default_factory=list)
    stays: dict[str, list[str]] = field(default_factory=dict)

    @property
    def bytes_before(self) -> int:
        """Bytes of all parameters of the network that was given."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the compacted network."""
        return sum(layer.bytes_after for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        layers = [asdict(layer) for layer in self.layers]
        for layer in layers:
            layer["shape_before"] = list(layer["shape_before"])
            layer["shape_after"] = list(layer["shape_after"])
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "layers": layers,
            "groups": [asdict(group) for group in self.groups],
            "removed_layers": self.removed_layers,
            "stays": self.stays,
        }


def make_report(
    net: Net, slim: Net, flow: Flow, plan: Plan, done: Net, reasons: dict[str, list[str]]
) -> Report:
    """Compare a network with what became of it.

    Parameters
    ----------
    net, done : Net
        Before and after.
    slim : Net
        Between: without dead branches, for which flow and plan were made.
    flow : Flow
    plan : Plan
    reasons : dict
        {layer name: sentences}.
    """
    before, after = _with_parameters(net), _with_parameters(done)
    left = {(layer.name, layer.type_name) for layer in done.layers}
    layers = []
    for name in _in_order(net, done):
        one = _of_layer(before.get(name), after.get(name))
        one.stays = reasons.get(name[0], [])
        if name[0] in plan.layers:
            _count(one, slim, after.get(name), plan)
        layers.append(one)
    return Report(
        layers,
        _groups(slim, flow, plan, reasons),
        [
            layer.name
            for layer in net.layers
            if layer.type_name != "Split"
            and (layer.name, layer.type_name) not in left
            and not (layer.type_name == "Eltwise" and (layer.name, "Bias") in left)
        ],
        {name: why for name, why in reasons.items() if why},
    )


Key = tuple[str, str]  # name and type


def _with_parameters(net: Net) -> dict[Key, Layer]:
    return {(layer.name, layer.type_name): layer for layer in net.layers if layer.parameters}


def _in_order(net: Net, done: Net) -> list[Key]:
    """Return the layers of both networks, new ones behind what they stand behind."""
    order = [(layer.name, layer.type_name) for layer in net.layers]
    previous = None
    for layer in done.layers:
        key = layer.name, layer.type_name
        if key not in order:
            order.insert(order.index(previous) + 1 if previous else 0, key)
        previous = key
    there = {**_with_parameters(net), **_with_parameters(done)}
    return [key for key in order if key in there]


def _of_layer(before: Layer | None, after: Layer | None) -> LayerReport:
    layer: Any = before or after
    one = LayerReport(
        layer.name,
        layer.type_name,
        before.parameters[0].shape if before else (),
        after.parameters[0].shape if after else (),
        int(stored_bytes(before)) if before else 0,
        int(stored_bytes(after)) if after else 0,
    )
    if after is None and layer.type_name in WITH_WEIGHTS:
        one.filters_removed = layer.filters
    return one


def _count(one: LayerReport, slim: Net, after: Layer | None, plan: Plan) -> None:
    """Count what left one layer with weights."""
    mine = plan.layers[one.name]
    one.filters_removed = int((~mine.filters).sum())
    one.channels_removed = int((~mine.channels).sum())
    one.folded = int(np.count_nonzero(mine.folded))
    one.merged = sum(len(merged.members) - 1 for merged in mine.merged)
    kept = None if after is None or mine.untouched else kept_columns(after)
    if kept is not None:
        there = mine.channels.sum() * mine.columns.size // mine.channels.size
        one.columns_removed = int(there - kept.sum())


def _groups(net: Net, flow: Flow, plan: Plan, reasons: dict[str, list[str]]) -> list[GroupReport]:
    """Find the layers that are tied to one another."""
    makers = [maker for maker in flow.makers if maker.has_filters and maker.layer in plan.runs]
    group_of: dict[int, int] = {}  # tie -> number of its group
    members: list[list[Any]] = []
    for maker in makers:
        ties = set(plan.ties[maker.first : maker.first + maker.channels].tolist())
        known = {group_of[tie] for tie in ties if tie in group_of}
        number = min(known, default=len(members))
        if number == len(members):
            members.append([])
        members[number].append(maker)
        for other in known - {number}:
            members[number] += members[other]
            members[other] = []
        group_of.update(dict.fromkeys(ties, number))
        group_of.update({tie: number for tie, other in group_of.items() if other in known})
    return [_group(net, flow, plan, reasons, group) for group in members if group]


def _group(
    net: Net, flow: Flow, plan: Plan, reasons: dict[str, list[str]], makers: list[Any]
) -> GroupReport:
    numbers = np.concatenate([np.arange(m.first, m.first + m.channels) for m in makers])
    stays = {
        int(plan.ties[number])
        for maker in makers
        for number in maker.first + np.flatnonzero(plan.stay[flow.tops[maker.layer][0]])
    }
    names = [maker.layer for maker in makers]
    readers = [
        layer.name
        for layer in net.layers
        if layer.type_name in WITH_WEIGHTS
        and layer.name in plan.runs
        and np.isin(flow.bottoms[layer.name][0].terms, numbers).any()
    ]
    channels = len(np.unique(plan.ties[numbers]))
    why = [f"{name}: {reason}" for name in names for reason in reasons.get(name, [])]
    return GroupReport(names, readers, channels, channels - len(stays), why)
