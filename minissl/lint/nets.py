"""Mistakes in a net: types, names, modes, parameters, tiles, and layers that nothing goes round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from minissl import graph
from minissl.formats import proto
from minissl.formats.fused_types import plain_layers
from minissl.lint.finding import (
    REGULARIZATION_TYPES,
    Finding,
    asks_for_blocks,
    asks_for_lasso,
    unknown_regularization,
)

if TYPE_CHECKING:
    from minissl.formats.proto import LayerParameter, NetParameter, ParamSpec

_WITH_BIAS = ("Convolution", "Deconvolution", "InnerProduct", "Embed", "Winograd")
_LEARNING = (*_WITH_BIAS, "Scale", "Bias", "PReLU")


def lint_net(
    net: NetParameter, weight_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Finding]:
    """Check a net.

    Parameters
    ----------
    net
        The net.
    weight_shapes
        Shape of each layer's weights, where known; tiles are compared with the R x C weight
        matrix then (R = shape[0], C = size / R).

    Returns
    -------
    list of Finding
        In the order of the layers; empty if nothing is wrong.
    """
    findings = list(_duplicate_names(net))
    trained = _is_trained(net)
    for layer in (part for written in net.layer for part in plain_layers(written)):
        findings += _type(layer)
        findings += _conv_mode(layer, trained)
        findings += _gemm_mode(layer, trained)
        findings += _dumps(layer)
        for index, spec in enumerate(layer.param):
            where = f"layer '{layer.name}', param {index}"
            shape = (weight_shapes or {}).get(layer.name) if index == 0 else None
            findings += _param_spec(layer, index, spec, where)
            findings += _tiles(spec, where, shape)
    findings += _no_way_around(net, weight_shapes or {})
    findings += _nothing_trains(net)
    return findings


def _duplicate_names(net: NetParameter) -> Iterator[Finding]:
    """Two layers of one name are fine in different phases, as the usual pair of Data layers."""
    seen: dict[tuple[str, bool], set[int]] = {}  # by name, and whether it has weights
    for layer in net.layer:
        phases = _phases(layer)
        learns = layer.type in graph.STORED
        if seen.get((layer.name, True), set()) & phases and learns:
            yield Finding(
                "error",
                f"layer '{layer.name}'",
                "Another layer of the same phase has this name.",
                "Weights are matched by name, so give each layer its own.",
            )
        elif any(seen.get((layer.name, either), set()) & phases for either in (True, False)):
            yield Finding(
                "warning",
                f"layer '{layer.name}'",
                "Another layer of the same phase has this name.",
                "One of the two gets a name with a number; give each layer its own.",
            )
        seen[layer.name, learns] = seen.get((layer.name, learns), set()) | phases


def _phases(layer: LayerParameter) -> set[int]:
    """Return the phases a layer is in; rules about stages or levels say nothing about phases."""

    def bare(rules: Any) -> set[int]:
        return {
            rule.phase for rule in rules if rule.HasField("phase") and len(rule.ListFields()) == 1
        }

    both = {proto.TRAIN, proto.TEST}
    if layer.include:
        given = {rule.phase for rule in layer.include if rule.HasField("phase")}
        staged = any(len(rule.ListFields()) > rule.HasField("phase") for rule in layer.include)
        # A layer that depends on stages may never meet its namesake: count it in no phase.
        return set() if staged else given or both
    return both - bare(layer.exclude)


def _type(layer: LayerParameter) -> Iterator[Finding]:
    from minissl.layers import LAYERS, what_is_wrong_with

    if layer.type not in LAYERS:
        problem, _, advice = what_is_wrong_with(layer.type).partition("; ")
        advice = advice.replace("did you mean", "write").rstrip("?")
        where = f"layer '{layer.name}'"
        yield Finding("error", where, f"It {problem}.", f"{advice[0].upper()}{advice[1:]}.")


def _is_trained(net: NetParameter) -> bool:
    """Whether a net has a loss, and something to read in phase TRAIN."""
    has_loss = any(layer.type.endswith("Loss") for layer in net.layer)
    reads = any(not layer.bottom and proto.TRAIN in _phases(layer) for layer in net.layer)
    return has_loss and (reads or bool(net.input))


def _conv_mode(layer: LayerParameter, trained: bool) -> Iterator[Finding]:
    convolution = layer.convolution_param
    if convolution.conv_mode == convolution.LOWERED_GEMM:
        return
    mode = convolution.ConvMode.Name(convolution.conv_mode)
    where = f"layer '{layer.name}'"
    if trained and proto.TRAIN in _phases(layer) and convolution.conv_mode != convolution.AUTO:
        yield Finding(
            "error",
            where,
            f"conv_mode {mode} runs sparse weights forward only, but this net is trained.",
            "Train without conv_mode and set it in the net that is deployed or timed.",
        )
    if convolution.engine == convolution.CUDNN:
        yield Finding(
            "warning",
            where,
            f"engine CUDNN ignores conv_mode {mode}.",
            "Write engine: CAFFE, or leave engine out.",
        )


def _gemm_mode(layer: LayerParameter, trained: bool) -> Iterator[Finding]:
    product = layer.inner_product_param
    dense = product.gemm_mode in (product.GEMM, product.AUTO)  # AUTO trains as GEMM
    if trained and proto.TRAIN in _phases(layer) and not dense:
        yield Finding(
            "error",
            f"layer '{layer.name}'",
            f"gemm_mode {product.GemmMode.Name(product.gemm_mode)} runs sparse weights forward "
            "only, but this net is trained.",
            "Train with GEMM and set the mode in the net that is deployed or timed.",
        )


def _dumps(layer: LayerParameter) -> Iterator[Finding]:
    """SkimCaffe writes weights and activations while it runs; here a command does when asked."""
    param = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    asked = [name for name in ("dump_parameter", "dump_activation") if getattr(param, name)]
    if asked:
        yield Finding(
            "warning",
            f"layer '{layer.name}'",
            f"{' and '.join(asked)} would make SkimCaffe write files; here nothing is written.",
            "Use minissl convert to write weights as Matrix Market, and net.blobs for activations.",
        )


def _param_spec(
    layer: LayerParameter, index: int, spec: ParamSpec, where: str
) -> Iterator[Finding]:
    kind = spec.regularization_type
    if kind and kind not in REGULARIZATION_TYPES:
        yield unknown_regularization(where, kind)
    if spec.block_group_lasso and not asks_for_blocks(spec):
        yield Finding(
            "warning",
            where,
            "Every block_decay_mult is 0, so its blocks are counted but never shrunk.",
            "Set block_decay_mult above 0, or remove the blocks.",
        )
    if not asks_for_lasso(spec):
        return
    if spec.lr_mult == 0:
        yield Finding(
            "warning",
            where,
            "Group lasso is configured, but lr_mult 0 keeps these weights from changing.",
            "Raise lr_mult or remove the group lasso.",
        )
    if index > 0 and layer.type in _WITH_BIAS:
        yield Finding(
            "warning",
            where,
            "Group lasso is configured for the bias, where it only shrinks the offsets.",
            "Move it to the first param of the layer, which is for the weights.",
        )


def _tiles(spec: ParamSpec, where: str, shape: tuple[int, ...] | None) -> Iterator[Finding]:
    """Compare each tile with the weight matrix: R x C must be cut into whole tiles."""
    for tile in spec.block_group_lasso:
        name = f"The block xdimen {tile.xdimen}, ydimen {tile.ydimen}"
        if tile.xdimen == 0 or tile.ydimen == 0:
            yield Finding("error", where, f"{name} is empty.", "Both must be at least 1.")
            continue
        if not shape or 0 in shape:
            continue
        rows, columns = shape[0], prod(shape[1:])
        if tile.ydimen > rows or tile.xdimen > columns:
            problem = f"{name} exceeds the weight matrix of {rows} rows and {columns} columns."
        elif rows % tile.ydimen or columns % tile.xdimen:
            problem = f"{name} does not divide the matrix of {rows} rows and {columns} columns."
        else:
            continue
        advice = f"Choose an xdimen that divides {columns} and a ydimen that divides {rows}."
        yield Finding("error", where, problem, advice)


def _no_way_around(
    net: NetParameter, weight_shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Finding]:
    """A layer that may die as a whole needs a shortcut, or nothing reaches the loss."""
    for layer in net.layer:
        shape = weight_shapes.get(layer.name)
        if not shape or not layer.param:
            continue
        rows, columns = shape[0], prod(shape[1:])
        whole = any(
            (tile.xdimen, tile.ydimen) == (columns, rows) and tile.block_decay_mult
            for tile in layer.param[0].block_group_lasso
        )
        if whole and rows * columns > 1 and not _reaches_loss(net, layer.name):
            yield Finding(
                "warning",
                f"layer '{layer.name}'",
                "All its weights are one group, and no shortcut leads around it.",
                "If the group dies, nothing reaches the loss: divide it, or add a shortcut.",
            )


def _reaches_loss(net: NetParameter, without: str) -> bool:
    """Whether some loss still sees the data when one layer passes nothing on."""
    reached: set[str] = set()
    losses = [layer for layer in net.layer if layer.type.endswith("Loss")]
    for layer in net.layer:
        if layer in losses and layer.bottom and layer.bottom[0] in reached:
            return True
        if layer.name == without:
            reached.difference_update(layer.top)
        elif not layer.bottom or reached.intersection(layer.bottom):
            reached.update(layer.top)
    return not losses


def _nothing_trains(net: NetParameter) -> Iterator[Finding]:
    rates = [spec.lr_mult for layer in net.layer for spec in layer.param]
    silent = [
        layer for layer in net.layer if layer.type in _LEARNING and not layer.param
    ]  # their lr_mult is 1
    if rates and not any(rates) and not silent:
        yield Finding(
            "warning",
            "net",
            "Every lr_mult is 0, so nothing would be trained.",
            "Set lr_mult above 0 where the net should learn.",
        )
