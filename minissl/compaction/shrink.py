"""Cut layers down to what stays of them: weights, statistics, and the fields of their prototxt.

Dimensions: F filters, C input channels, g conv groups, K columns of one group, D columns of one
channel; F', K' are what is left of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.channels import (
    WITH_WEIGHTS,
    Flow,
    conv_groups,
    dense_weights,
    follows,
    joining_axis,
    kept_columns,
    parameter_axis,
)
from minissl.compaction.draft import Draft
from minissl.compaction.plan import LayerPlan, Plan
from minissl.layers import Layer
from minissl.net import Net
from minissl.sparsity.groups import matrix_shape
from minissl.sparsity.zero_out import is_small

INDEX_BYTES = 4  # of one entry of kept_columns


@dataclass
class Smaller:
    """What becomes of a layer with weights."""

    blobs: list[np.ndarray]
    filters: int
    kept: list[list[int]] | None


def shrink(net: Net, flow: Flow, plan: Plan) -> Draft:
    """Return the network that a plan leaves."""
    draft = Draft(net)
    for layer in net.layers:
        if layer.name not in plan.runs or layer.type_name == "Split":
            continue
        if layer.name in plan.layers:
            smaller = shrink_weights(layer, plan.layers[layer.name])
            draft.weights[layer.name] = smaller.blobs
            for written in draft.find(layer.name):
                _write_sizes(layer, written, smaller)
                _write_tiles(layer, written, smaller, plan.layers[layer.name])
        elif layer.parameters and follows(layer, flow.bottoms[layer.name]):
            stay = plan.stay[flow.tops[layer.name][0]]
            draft.weights[layer.name] = _channel_parameters(layer, flow, stay)
        elif layer.type_name in ("Concat", "Slice"):
            for written in draft.find(layer.name):
                _rejoin(layer, written, flow, plan)
    draft.remove([layer.name for layer in net.layers if layer.name not in plan.runs])
    return draft


def stored_bytes(layer: Layer) -> int:
    """Return what the parameters of a layer take in a file, with the index of kept columns."""
    blobs = [to_host(parameter.data) for parameter in layer.parameters]
    kept = None
    if layer.type_name in WITH_WEIGHTS:
        kept = kept_columns(layer)
    return sum(blob.nbytes for blob in blobs) + INDEX_BYTES * (0 if kept is None else kept.sum())


# ---------------------------------------------------------------------------- layers with weights


def shrink_weights(layer: Any, plan: LayerPlan) -> Smaller:
    """Cut one layer with weights down to its plan."""
    weights = layer.parameters[0]
    before = [to_host(parameter.data) for parameter in layer.parameters]
    filters = int(plan.filters.sum())
    if plan.untouched:
        return Smaller([blob.copy() for blob in before], filters, _lists(kept_columns(layer)))
    blobs, kept = _cut_weights(layer, plan)
    if layer.has_bias or plan.folded.any():
        old = before[1] if layer.has_bias else np.zeros(layer.filters, weights.dtype)
        # a dead filter that only fills a place puts out what it did: 0 may have no logarithm
        dead = ~dense_weights(layer).reshape(layer.filters, -1).any(axis=1)  # (F,)
        b = np.where(plan.needed | dead, old + plan.folded, 0)
        blobs.append(b[plan.filters].astype(weights.dtype))
    return Smaller(blobs, filters, kept)


def _cut_weights(layer: Any, plan: LayerPlan) -> tuple[list[np.ndarray], list[list[int]] | None]:
    """Return [weights] without what leaves, and the kept columns where they are packed."""
    g = conv_groups(layer)
    w = dense_weights(layer)
    matrix = _merge(w.reshape(g, -1, plan.columns.shape[1]), plan)  # (g, F/g, K)
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


def _merge(matrix: np.ndarray, plan: LayerPlan) -> np.ndarray:
    """Add the columns of merged channels (g, F/g, K) in those of the one that stands for them."""
    if not plan.merged:
        return matrix
    matrix = matrix.copy()
    per_channel = plan.columns.size // plan.channels.size
    for merged in plan.merged:
        by_channel = matrix[merged.group].reshape(matrix.shape[1], -1, per_channel)  # (F/g, C/g, D)
        members = by_channel[:, merged.members].astype(np.float64)  # (F/g, m, D)
        together = np.einsum("fmd,m->fd", members, merged.ratios)
        by_channel[:, merged.channel, merged.columns] = together[:, merged.columns]
    return matrix


def _lists(mask: np.ndarray | None) -> list[list[int]] | None:
    return None if mask is None else [np.flatnonzero(row).tolist() for row in mask]


def _write_sizes(layer: Layer, written: Any, smaller: Smaller) -> None:
    """Write the new sizes of a layer with weights into its prototxt."""
    is_convolution = layer.type_name == "Convolution"
    fields = written.convolution_param if is_convolution else written.inner_product_param
    fields.num_output = smaller.filters
    has_bias = len(smaller.blobs) > 1
    if fields.bias_term != has_bias:
        fields.bias_term = has_bias
    del fields.kept_columns[:]
    w = smaller.blobs[0]
    if (is_small(w) & (w != 0)).any():
        written.ClearField("connectivity_mode")  # loading would make these weights zero
    if smaller.kept is None:
        return
    for columns in smaller.kept:
        fields.kept_columns.add(column=columns)
    written.ClearField("connectivity_mode")  # packed layers are not trained
    if not is_convolution:
        fields.ClearField("transpose")


def _write_tiles(layer: Layer, written: Any, smaller: Smaller, plan: LayerPlan) -> None:
    """Let tiles of group lasso mean what they did in the smaller matrix, or leave them out.

    Whole rows and columns, bands of conv groups, channels and single weights keep their meaning.
    """
    if smaller.kept is not None or plan.untouched or not written.param:
        return  # packed layers are not trained
    of_channel = plan.columns.size // plan.channels.size
    transposed = layer.type_name == "InnerProduct" and written.inner_product_param.transpose
    R, C = matrix_shape(layer.parameters[0].shape)
    new_R, new_C = matrix_shape(smaller.blobs[0].shape)
    g = conv_groups(layer)
    rows = {1: 1, R // g: new_R // g, R: new_R, **({of_channel: of_channel} if transposed else {})}
    columns = {1: 1, C: new_C, **({} if transposed else {of_channel: of_channel})}
    tiles = written.param[0].block_group_lasso
    kept = [tile for tile in tiles if tile.xdimen in columns and tile.ydimen in rows]
    for tile in kept:
        tile.xdimen, tile.ydimen = columns[tile.xdimen], rows[tile.ydimen]
    del tiles[:]
    tiles.extend(kept)


# --------------------------------------------------------------------------------- other layers


def _channel_parameters(layer: Layer, flow: Flow, stay: np.ndarray) -> list[np.ndarray]:
    """Return the parameters of the channels (C,) that stay: of BatchNorm, Scale, Bias, PReLU."""
    blobs = [to_host(parameter.data) for parameter in layer.parameters]
    axes = len(flow.bottoms[layer.name][0].shape)
    if layer.type_name in ("Scale", "Bias") and parameter_axis(layer, axes) != 1:
        return blobs  # along other axes than the channels
    return [
        blob[stay]
        if blob.ndim and blob.shape[0] == len(stay) and not _is_factor(layer, i)
        else blob
        for i, blob in enumerate(blobs)
    ]


def _is_factor(layer: Layer, blob: int) -> bool:
    """Whether a blob is the factor of a BatchNorm's statistics, or the one slope of a PReLU."""
    if layer.type_name == "PReLU":
        return layer.param.prelu_param.channel_shared
    return layer.type_name == "BatchNorm" and blob == 2


def _keep(fields: Any, stays: Sequence[int]) -> None:
    """Leave out of a repeated field, if it is given, what does not stay."""
    left = [field for field, stay in zip(fields, stays, strict=False) if stay]
    del fields[:]
    fields.extend(left)


def _rejoin(layer: Layer, written: Any, flow: Flow, plan: Plan) -> None:
    """Leave out of a Concat or Slice what has no channels, and write where a Slice cuts now."""
    bottoms, tops = flow.bottoms[layer.name], flow.tops[layer.name]
    if joining_axis(layer, bottoms) != 1:
        return
    if layer.type_name == "Concat":
        stays = [bool(plan.stay[value].any()) for value in bottoms]
        _keep(written.bottom, stays)
        _keep(written.propagate_down, stays)
        return
    counts = [int(plan.stay[value].sum()) for value in tops]
    _keep(written.top, counts)
    _keep(written.loss_weight, counts)
    if [value.channels for value in tops] != counts:
        ends = np.cumsum([count for count in counts if count])
        del written.slice_param.slice_point[:]
        written.slice_param.slice_point.extend(int(end) for end in ends[:-1])
