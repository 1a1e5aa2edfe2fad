"""A physically smaller network with the same outputs.

Three steps: what is constant (:mod:`~minissl.compaction.constants`), what may leave
(:mod:`~minissl.compaction.plan`), and here, the smaller weight matrices and prototxt.

Dimensions: F filters, C input channels, g conv groups, K columns of one group; F', K' are what is
left of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.channels import Flow, conv_groups, dense_weights, follow, kept_columns
from minissl.compaction.constants import find_constants
from minissl.compaction.plan import LayerPlan, keep_everything, make_plan
from minissl.compaction.report import LayerReport, Report
from minissl.net import Net

INDEX_BYTES = 4  # of one entry of kept_columns


@dataclass
class Compacted:
    """A smaller network.

    Attributes
    ----------
    net_param : NetParameter
        With the same layers and blobs, for both phases; ``Net(net_param)`` builds it.
    weights : dict
        {layer name: [arrays]}, for :meth:`minissl.Net.load`.
    report : Report
    layer_types : dict
        {layer name: type}, which a ``.caffemodel`` records.
    """

    net_param: Any
    weights: dict[str, list[np.ndarray]]
    report: Report
    layer_types: dict[str, str]


@dataclass
class _Smaller:
    """What becomes of one layer: its blobs, and the fields of its prototxt that change."""

    blobs: list[np.ndarray]
    filters: int
    kept: list[list[int]] | None
    report: LayerReport
    has_bias: bool


def compact(net: Net) -> Compacted:
    """Remove what zero weights have made superfluous, so that outputs stay the same.

    * Dead filters (all weights 0) leave together with the channels of the layers that read them;
      filters that nothing reads leave as well, until nothing changes.
    * What a dead filter puts out is a constant: its bias, as the layers behind it pass it on. It is
      added to the biases of its readers (which get one if they had none). Where that is not exact,
      since a padded border shows, the filter stays and the report says so.
    * Columns that are dead inside living channels are left out by ``kept_columns``, where that
      makes the layer smaller: the rest is stored as a packed matrix (F, kept). Such a layer serves
      inference only. A transposed InnerProduct is then stored as (F, kept), too.
    * Conv groups keep equal numbers of filters and channels, a layer keeps one filter and one
      column; layers that share weights, and filters of output layers, stay as they are.

    A network that would not get smaller is returned unchanged.

    Parameters
    ----------
    net : Net
        With its weights; is left as it is. Of a network compacted before, nothing more is removed.

    Returns
    -------
    Compacted

    Notes
    -----
    Constants are computed in float64 and rounded once, to the type of the network. Source: SSL
    paper, Section 3.2 (filters, channels) and 3.3 (kept columns).
    """
    flow = follow(net)
    plan = make_plan(net, flow, find_constants(net, flow))
    smaller = _apply(net, flow, plan)
    if sum(one.report.bytes_after - one.report.bytes_before for one in smaller.values()) >= 0:
        stays = {name: layer.stays for name, layer in plan.items()}
        smaller = _apply(net, flow, keep_everything(net, flow))
        for name, one in smaller.items():
            one.report.stays = stays[name]
    weights = net.weights()
    weights.update({name: one.blobs for name, one in smaller.items()})
    return Compacted(
        _smaller_param(net, smaller),
        weights,
        Report([one.report for one in smaller.values()]),
        {layer.name: layer.type_name for layer in net.layers if layer.parameters},
    )


def _apply(net: Net, flow: Flow, plan: dict[str, LayerPlan]) -> dict[str, _Smaller]:
    return {name: _shrink(net.layer(name), plan[name]) for name in flow.sources}


def _shrink(layer: Any, plan: LayerPlan) -> _Smaller:
    """Cut one layer down to its plan."""
    weights = layer.parameters[0]
    before = [to_host(parameter.data) for parameter in layer.parameters]
    if plan.untouched:
        blobs, kept = [blob.copy() for blob in before], _lists(kept_columns(layer))
    else:
        blobs, kept = _cut_weights(layer, plan)
        if layer.has_bias or plan.folded.any():
            old = before[1] if layer.has_bias else np.zeros(layer.filters, weights.dtype)
            b = np.where(plan.needed, old + plan.folded, 0)
            blobs.append(b[plan.filters].astype(weights.dtype))
    filters = int(plan.filters.sum())
    columns_there = plan.channels.sum() * plan.columns.size // plan.channels.size
    return _Smaller(
        blobs,
        filters,
        kept,
        LayerReport(
            layer.name,
            before[0].shape,
            blobs[0].shape,
            _bytes(before, _lists(kept_columns(layer))),
            _bytes(blobs, kept),
            filters_removed=layer.filters - filters,
            channels_removed=int((~plan.channels).sum()),
            columns_removed=0 if kept is None else int(columns_there) - sum(map(len, kept)),
            folded=int(np.count_nonzero(plan.folded)),
            stays=plan.stays,
        ),
        has_bias=len(blobs) > 1,
    )


def _cut_weights(layer: Any, plan: LayerPlan) -> tuple[list[np.ndarray], list[list[int]] | None]:
    """Return [weights] without what leaves, and the kept columns where they are packed."""
    g = conv_groups(layer)
    w = dense_weights(layer)
    matrix = w.reshape(g, -1, plan.columns.shape[1])  # (g, F/g, K)
    needed = plan.needed.reshape(g, -1, 1) & plan.columns[:, None, :]
    matrix = np.where(needed, matrix, 0)
    per_channel = plan.columns.size // plan.channels.size
    there = np.repeat(plan.channels, per_channel).reshape(g, -1)  # (g, K)
    bands = [
        band[rows][:, columns]  # (F'/g, K')
        for band, rows, columns in zip(matrix, plan.filters.reshape(g, -1), there, strict=True)
    ]
    kept = [
        np.flatnonzero(columns[there_too]).tolist()
        for columns, there_too in zip(plan.columns, there, strict=True)
    ]
    if not any(kept):
        kept[0] = [0]  # a matrix without columns is not a matrix
    rows, all_columns = bands[0].shape
    n_kept = sum(map(len, kept))
    saved = rows * (g * all_columns - n_kept) * w.itemsize
    if saved > n_kept * INDEX_BYTES:
        packed = [band[:, columns] for band, columns in zip(bands, kept, strict=True)]
        if g == 1:
            return [np.ascontiguousarray(packed[0])], kept
        return [np.concatenate([band.ravel() for band in packed])], kept
    smaller = np.concatenate(bands)  # (F', K')
    if layer.type_name == "Convolution":
        return [smaller.reshape(g * rows, -1, *layer.kernel)], None
    return [np.ascontiguousarray(smaller.T) if layer.transpose else smaller], None


def _lists(mask: np.ndarray | None) -> list[list[int]] | None:
    return None if mask is None else [np.flatnonzero(row).tolist() for row in mask]


def _bytes(blobs: list[np.ndarray], kept: list[list[int]] | None) -> int:
    return sum(blob.nbytes for blob in blobs) + INDEX_BYTES * sum(map(len, kept or []))


def _smaller_param(net: Net, smaller: dict[str, _Smaller]) -> Any:
    """Return the prototxt with new sizes, in every phase that has the layer."""
    param = type(net.param)()
    param.CopyFrom(net.param)
    for layer in param.layer:
        change = smaller.get(layer.name)
        if change is None or layer.type != net.layer(layer.name).type_name:
            continue
        is_convolution = layer.type == "Convolution"
        fields = layer.convolution_param if is_convolution else layer.inner_product_param
        fields.num_output = change.filters
        if fields.bias_term != change.has_bias:
            fields.bias_term = change.has_bias
        del fields.kept_columns[:]
        if change.kept is None:
            continue
        for columns in change.kept:
            fields.kept_columns.add(column=columns)
        layer.ClearField("connectivity_mode")  # packed layers are not trained
        if not is_convolution:
            fields.ClearField("transpose")
    return param
