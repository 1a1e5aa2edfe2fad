"""Dead branches: what a sum adds without looking at the input leaves, and its constant stays.

A residual block computes y = x + branch(x). When the convolutions of the branch are dead, its
output is a known map k: even (one number for each channel) when the last convolution is dead, or
uneven when only an earlier one is, since the later ones pad a constant map with zeros and see other
values at the border. Either way y = x + k for every image:

* k is added to the bias of the layer that makes x (the convolution of the shortcut, the Scale of
  the other branch), when k is even and nothing else reads x; otherwise the sum becomes a Bias
  layer, of one number for each channel, or for each channel and pixel;
* when k = 0 nothing is left of the sum;
* all layers that only the branch needed leave.

An uneven map may be larger than the convolutions that make it. Then the branch stays, to be
compacted to the one constant channel that makes it (:mod:`minissl.compaction.reading`).

Dimensions: C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minissl.channels import WITH_WEIGHTS, Flow, Value, acts_by_channel, follow, reads_channels
from minissl.compaction.batch_norm import fold_batch_norm
from minissl.compaction.constants import Constants, find_constants, is_even
from minissl.compaction.draft import Draft
from minissl.compaction.plan import running
from minissl.compaction.reading import Reading, find_read, is_shared
from minissl.layers import Layer
from minissl.net import Net

SUM = 1  # EltwiseParameter.EltwiseOp


@dataclass
class Dropped:
    """What a sum loses.

    Attributes
    ----------
    bottoms : list of int
        Numbers of the bottoms that leave.
    constant : ndarray
        What they add, (C, ...) of one image; 0 where they are not known, which nothing reads.
    """

    bottoms: list[int]
    constant: np.ndarray

    @property
    def even(self) -> bool:
        """Whether one number for each channel says all."""
        return bool(is_even(self.constant.reshape(len(self.constant), -1)).all())

    @property
    def numbers(self) -> np.ndarray:
        """The constant, (C,) where that says all."""
        return self.constant.reshape(len(self.constant), -1)[:, 0] if self.even else self.constant


@dataclass
class Branches:
    """What dropping branches did.

    Attributes
    ----------
    net : Net
        The network without them; the given one if there were none.
    flow : Flow
    constants : Constants
    reading : Reading
        What is known of it, and read.
    stays : dict
        Name of a sum -> why a branch of it stays that is known.
    """

    net: Net
    flow: Flow
    constants: Constants
    reading: Reading
    stays: dict[str, list[str]] = field(default_factory=dict)


def look_at_branches(net: Net, outputs: Sequence[str] | None = None) -> Branches:
    """Return what is known of a network, with all of its branches; ``outputs`` are wanted."""
    flow = follow(net, outputs)
    constants = find_constants(net, flow)
    return Branches(net, flow, constants, find_read(net, flow, constants))


def drop_branches(net: Net, fold_norms: bool = False) -> Branches:
    """Drop all branches that add what is known, and the layers that only they need.

    With ``fold_norms`` the constants that take the place of a sum become part of the layer before
    them, where that can be.
    """
    slim = net
    while True:
        done = look_at_branches(slim, net.outputs)
        dropped = _find_dropped(done)
        if not dropped:
            return done
        slim = _without(slim, done.flow, dropped)
        if fold_norms:
            slim = fold_batch_norm(slim)


# ------------------------------------------------------------------------------- what leaves


def _find_dropped(done: Branches) -> dict[str, Dropped]:
    """Return what each sum loses; note why one does not."""
    found: dict[str, Dropped] = {}
    net, flow, stays = done.net, done.flow, done.stays
    for layer in net.layers:
        if layer.type_name != "Eltwise" or layer.param.eltwise_param.operation != SUM:
            continue
        dropped = _of_sum(layer, done)
        if dropped is None:
            continue
        written = net.definitions()[layer.name]
        if written.top[0] in written.bottom:  # two blobs of one name, both of which are wanted
            stays[layer.name] = ["a branch stays: the sum has the name of one of its terms"]
            continue
        if len(dropped.bottoms) == len(layer.param.bottom) - 1 and not _is_plain(layer, dropped):
            stays[layer.name] = ["a branch stays: what is left of the sum has a coeff"]
            continue
        size = dropped.numbers.size * net.dtype.itemsize
        leaves = _bytes_that_leave(net, flow, {**found, layer.name: dropped})
        leaves -= _bytes_that_leave(net, flow, found)
        if not dropped.even and size >= leaves:
            stays[layer.name] = [
                f"a branch stays: its map of constants, uneven at the borders, has {size} bytes, "
                f"its layers {leaves}"
            ]
            continue
        found[layer.name] = dropped
    return found


def _of_sum(layer: Layer, done: Branches) -> Dropped | None:
    """Return what one sum loses: bottoms that are known wherever the sum is read."""
    bottoms, (top,) = done.flow.bottoms[layer.name], done.flow.tops[layer.name]
    constants, read = done.constants, done.reading.read[top]
    known = [i for i, value in enumerate(bottoms) if constants.known[value][read].all()]
    if not read.any() or not known or len(known) == len(bottoms):
        return None
    coefficients = list(layer.param.eltwise_param.coeff) or [1.0] * len(bottoms)
    constant = np.zeros(top.shape[1:])
    for i in known:
        there = constants.known[bottoms[i]]  # others are not read
        constant[there] += coefficients[i] * constants.maps[bottoms[i]][there]
    return Dropped(known, constant)


def _is_plain(layer: Layer, dropped: Dropped) -> bool:
    """Whether all bottoms that stay have the coefficient 1."""
    coefficients = list(layer.param.eltwise_param.coeff)
    return all(c == 1 for i, c in enumerate(coefficients) if i not in dropped.bottoms)


def _left(layer: Layer, flow: Flow, dropped: dict[str, Dropped]) -> list[Value]:
    """Return the bottoms that a layer still reads."""
    gone = dropped[layer.name].bottoms if layer.name in dropped else []
    return [value for i, value in enumerate(flow.bottoms[layer.name]) if i not in gone]


def _not_running(net: Net, flow: Flow, dropped: dict[str, Dropped]) -> list[Layer]:
    runs = running(net, flow, lambda layer: _left(layer, flow, dropped))
    return [layer for layer in net.layers if layer.name not in runs]


def _bytes_that_leave(net: Net, flow: Flow, dropped: dict[str, Dropped]) -> int:
    return sum(
        parameter.size * net.dtype.itemsize
        for layer in _not_running(net, flow, dropped)
        for parameter in layer.parameters
    )


# ----------------------------------------------------------------------------- how it leaves


def _without(net: Net, flow: Flow, dropped: dict[str, Dropped]) -> Net:
    """Return the network with smaller sums."""
    draft = Draft(net)
    idle = [layer.name for layer in _not_running(net, flow, dropped)]
    added = {}
    for name, what in dropped.items():
        left = _left(net.layer(name), flow, dropped)
        added[name] = _add_to_bias(draft, flow, left, name, what, idle)
        for layer in draft.find(name):
            for fields in (layer.bottom, layer.eltwise_param.coeff, layer.propagate_down):
                stay = [x for i, x in enumerate(fields) if i not in what.bottoms]
                del fields[:]
                fields.extend(stay)
    draft.remove(idle)
    for name, what in dropped.items():
        if len(_left(net.layer(name), flow, dropped)) > 1:
            if not added[name]:
                _add_behind(draft, name, what)
        elif not (added[name] and draft.bypass(name)):
            _become_bias(draft, name, what, added[name])
    return draft.build()


def _add_to_bias(
    draft: Draft, flow: Flow, left: list[Value], name: str, what: Dropped, idle: list[str]
) -> bool:
    """Add the constant to the bias of a layer that makes one of the other terms, if one can."""
    if not what.numbers.any():
        return True
    if not what.even or draft.net.layer(name).param.eltwise_param.coeff:
        return False
    for layer in draft.net.layers:
        makes = layer.type_name != "Split" and flow.tops[layer.name][:1]
        if makes and makes[0] in left and _takes_bias(draft.net, flow, layer, makes[0], idle):
            _raise_bias(draft, layer, what.numbers)
            return True
    return False


def _takes_bias(net: Net, flow: Flow, layer: Layer, value: Value, idle: list[str]) -> bool:
    """Whether a layer can add a constant to each channel, and only one layer would see it."""
    bottoms = flow.bottoms[layer.name]
    if layer.type_name in ("Scale", "Bias"):
        can = len(bottoms) == 1 and acts_by_channel(layer, len(value.shape))
    else:
        can = layer.type_name in WITH_WEIGHTS and reads_channels(layer, bottoms)
    readers = [
        other
        for other in net.layers
        if other.type_name != "Split" and other.name not in idle
        for bottom in flow.bottoms[other.name]
        if bottom is value
    ]
    return can and len(readers) == 1 and value not in flow.outputs and not is_shared(net, layer)


def _raise_bias(draft: Draft, layer: Any, k: np.ndarray) -> None:
    """Add k (C,) to a bias, or give the layer one."""
    blobs = list(draft.weights[layer.name])
    has_bias = layer.type_name == "Bias" or layer.has_bias
    old = blobs.pop() if has_bias else np.zeros(len(k))
    draft.weights[layer.name] = [*blobs, (old + k).astype(draft.net.dtype)]
    if has_bias:
        return
    for written in draft.find(layer.name):
        fields = {
            "Convolution": written.convolution_param,
            "InnerProduct": written.inner_product_param,
            "Scale": written.scale_param,
        }[layer.type_name]
        fields.bias_term = True


def _become_bias(draft: Draft, name: str, what: Dropped, added: bool) -> None:
    """Make a Bias layer of a sum, with the blobs it has; of zeros if nothing is to be added."""
    for layer in draft.find(name):
        layer.type = "Bias"
        layer.ClearField("eltwise_param")
        _set_axes(layer, what, added)
    k = np.zeros(len(what.constant)) if added else what.numbers
    draft.weights[name] = [k.astype(draft.net.dtype)]


def _add_behind(draft: Draft, name: str, what: Dropped) -> None:
    """Put a Bias layer behind a sum."""
    new_name = draft.free_name(f"{name}_constant")
    for layer in draft.find(name):
        new = type(layer)(name=new_name, type="Bias", bottom=layer.top, top=layer.top)
        new.include.extend(layer.include)
        new.exclude.extend(layer.exclude)
        _set_axes(new, what, False)
        draft.insert_behind(layer, new)
    draft.weights[new_name] = [what.numbers.astype(draft.net.dtype)]


def _set_axes(layer: Any, what: Dropped, added: bool) -> None:
    if not (what.even or added):
        layer.bias_param.num_axes = what.constant.ndim
