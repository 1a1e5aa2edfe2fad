"""Operators that only hand values on: in another shape or order, in parts, by another name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.blob import Shape
from minissl.onnx.arrays.shapes import reshaped, slices, split_sizes
from minissl.onnx.graph import Graph, Node
from minissl.onnx.operators.table import operator
from minissl.onnx.translation import Inexpressible, Translation


def reshape(t: Translation, node: Node, blob: str, target: Shape, tops: Any = ()) -> str:
    """Give a blob another shape; lengths that stay are written so that any batch fits."""
    shape = t.shape(blob)
    if shape == target and not tops:
        return blob
    if len(target) == 2 and shape[:1] == target[:1] and len(shape) > 2:
        return t.layer(node, "Flatten", [blob], tops)[0]
    dims = list(target)
    for i, (old, new) in enumerate(zip(shape, target, strict=False)):
        if old != new:
            break
        dims[i] = 0
    if len(dims) > 0 and dims.count(0) == len(dims) - 1 and dims[-1]:
        dims[-1] = -1
    return t.layer(node, "Reshape", [blob], tops, reshape_param={"shape": {"dim": dims}})[0]


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    if not -rank <= axis < rank:
        raise Inexpressible(f"{node}: its input has no axis {axis}, only {rank} of them.")
    return axis % rank


@operator("Reshape")
def _reshape(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    given = t.constant(node, 1)
    wanted = node.attributes.get("shape") if given is None else given.tolist()
    if wanted is None:
        raise Inexpressible(f"{node}: its shape is missing.")
    allow_zero = bool(node.attributes.get("allowzero", 0))
    reshape(t, node, x, tuple(reshaped(t.shape(x), wanted, allow_zero)), node.outputs[:1])


@operator("Flatten")
def _flatten(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape = t.shape(x)
    axis = node.attributes.get("axis", 1)
    axis = len(shape) if axis == len(shape) else axis_of(node, axis, len(shape))
    target = math.prod(shape[:axis]), math.prod(shape[axis:])
    reshape(t, node, x, target, node.outputs[:1])


def axes_of(t: Translation, node: Node) -> list[int] | None:
    """Return the axes a node names, as an attribute (old) or a constant (new); None for none."""
    given = t.constant(node, 1)
    axes = node.attributes.get("axes") if given is None else given.ravel().tolist()
    return None if axes is None else [int(axis) for axis in axes]


@operator("Squeeze")
def _squeeze(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape, axes = t.shape(x), axes_of(t, node)
    gone = {i for i, length in enumerate(shape) if length == 1}
    if axes is not None:
        gone &= {axis_of(node, axis, len(shape)) for axis in axes}
    target = tuple(length for i, length in enumerate(shape) if i not in gone)
    reshape(t, node, x, target, node.outputs[:1])


@operator("Unsqueeze")
def _unsqueeze(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    target = list(t.shape(x))
    axes = axes_of(t, node) or []
    rank = len(target) + len(axes)
    for axis in sorted(axis_of(node, axis, rank) for axis in axes):
        target.insert(axis, 1)
    reshape(t, node, x, tuple(target), node.outputs[:1])


@operator("Transpose")
def _transpose(t: Translation, node: Node) -> None:
    """Only where no element moves in memory: axes of length 1 change their place."""
    x = t.blob(node, 0)
    shape = t.shape(x)
    order = node.attributes.get("perm") or list(range(len(shape)))[::-1]
    longer = [axis for axis in order if shape[axis] != 1]
    if longer != sorted(longer):
        raise Inexpressible(f"{node}: Caffe has no layer that exchanges axes.")
    reshape(t, node, x, tuple(shape[axis] for axis in order), node.outputs[:1])


@operator("Concat")
def _concat(t: Translation, node: Node) -> None:
    blobs = [t.blob(node, i) for i in range(len(node.inputs))]
    axis = node.attributes.get("axis", 1)
    t.layer(node, "Concat", blobs, node.outputs, concat_param={"axis": axis})


def _sliced(t: Translation, node: Node, x: str, axis: int, points: list[int], tops: Any) -> None:
    """Cut a blob into parts; those without a name are silenced."""
    names = [top or f"{node.outputs[0]}_rest_{axis}_{i}" for i, top in enumerate(tops)]
    fields = {"axis": axis, "slice_point": points}
    made = t.layer(node, "Slice", [x], names, slice_param=fields)
    rest = [blob for blob, top in zip(made, tops, strict=True) if not top]
    if rest:
        t.silence(node, rest)


@operator("Split")
def _split(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    axis = axis_of(node, node.attributes.get("axis", 0), len(t.shape(x)))
    sizes = split_sizes(node.attributes, t.shape(x)[axis], len(node.outputs), t.constant(node, 1))
    if min(sizes) < 1:
        raise Inexpressible(f"{node}: Caffe has no empty blobs, but its parts are {sizes}.")
    if len(sizes) == 1:
        t.alias(node, x)
        return
    _sliced(t, node, x, axis, np.cumsum(sizes)[:-1].tolist(), node.outputs)


@operator("Slice")
def _slice(t: Translation, node: Node) -> None:
    x = t.blob(node, 0)
    shape = t.shape(x)
    given = [t.constant(node, i) for i in range(1, 5)]
    ranges = [
        one.indices(length)
        for one, length in zip(slices(node.attributes, len(shape), *given), shape, strict=True)
    ]
    cut = [axis for axis, r in enumerate(ranges) if r[:2] != (0, shape[axis])]
    steps = [step for _, _, step in ranges]
    strided = any(step != 1 for step in steps)
    if strided and (len(shape) != 4 or steps[:2] != [1, 1] or min(steps) < 1):
        raise Inexpressible(f"{node}: Caffe takes each n-th pixel of an image, not steps {steps}.")
    for axis in cut:
        start, stop, _ = ranges[axis]
        if stop <= start:
            raise Inexpressible(f"{node}: Caffe has no empty blobs, but takes {start} to {stop}.")
        last = axis == cut[-1] and not strided
        kept = node.outputs[0] if last else f"{node.outputs[0]}_axis_{axis}"
        bounds = [(0, start, ""), (start, stop, kept), (stop, shape[axis], "")]
        there = [bound for bound in bounds if bound[0] < bound[1]]
        points = [low for low, _, _ in there[1:]]
        _sliced(t, node, x, axis, points, [name for _, _, name in there])
        x = t.named(kept)
    if strided:  # windows of one pixel
        fields = {"kernel_size": 1, "stride_h": steps[2], "stride_w": steps[3]}
        t.layer(
            node,
            "Pooling",
            [x],
            node.outputs[:1],
            pooling_param={**fields, "round_mode": "FLOOR"},
        )
    elif not cut:
        t.alias(node, x)


@operator("Identity", "Cast")
def _identity(t: Translation, node: Node) -> None:
    """Another name; a Cast must keep the type of the net."""
    if node.op == "Cast" and node.attributes.get("to") != t.data_type:
        raise Inexpressible(f"{node}: a net computes with floating-point numbers of one type.")
    t.alias(node, t.blob(node, 0))


@operator("If")
def _if(t: Translation, node: Node) -> None:
    """Take the branch that a constant condition chooses."""
    chosen = bool(t.required(node, 0))
    branch = node.attributes["then_branch" if chosen else "else_branch"]
    if not isinstance(branch, Graph) or len(branch.outputs) != len(node.outputs):
        raise Inexpressible(f"{node}: its branches are damaged.")
    t.add_constants(branch.constants)
    t.run(branch.nodes, set(branch.outputs))
    for outer, inner in zip(node.outputs, branch.outputs, strict=True):
        t.alias_of(outer, inner)
