"""The backward pass as a plan: which layers take part, and which gradients they compute.

A gradient is needed where it lies on a path from a weight that learns to a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minissl.blob import Blob
from minissl.layers import Layer


@dataclass(frozen=True)
class BackwardPlan:
    """What the backward pass of a network does; every list has one entry for each layer.

    Attributes
    ----------
    loss_weights : list of lists of float
        How much each top counts in the loss.
    propagates : list of lists of bool
        Which bottoms get a gradient.
    wants : list of bool
        Whether the layer has a gradient to compute, if one reaches its tops.
    runs : list of bool
        Whether it does and the gradient of the loss reaches its tops.
    receives : list of lists of bool
        Which tops get a gradient from a later layer.
    spoiled : dict of int to str
        Layers of phase TEST that cannot go back, since a later one changes their top in place: by
        number, what is wrong.
    """

    loss_weights: list[list[float]]
    propagates: list[list[bool]]
    wants: list[bool]
    runs: list[bool]
    receives: list[list[bool]]
    spoiled: dict[int, str]

    def plain(self) -> list[bool]:
        """Tell for each layer whether it runs backward, and none of its tops is a loss."""
        return [
            runs and not any(weights)
            for runs, weights in zip(self.runs, self.loss_weights, strict=True)
        ]

    def under(
        self, start: int, bottoms: Sequence[list[Blob]], tops: Sequence[list[Blob]]
    ) -> tuple[list[bool], set[int]]:
        """Tell for each layer whether the gradient of a layer's tops passes through it.

        Also return the blobs, by identity, that it reaches.
        """
        runs = [False] * len(self.wants)
        reached = {id(blob) for blob in tops[start]}
        for number in reversed(range(start + 1)):
            if not any(id(blob) in reached for blob in tops[number]):
                continue
            runs[number] = self.wants[number]
            for blob, flag in zip(bottoms[number], self.propagates[number], strict=True):
                if flag:
                    reached.add(id(blob))
                else:  # also where it is the output of this layer, computed in place
                    reached.discard(id(blob))
        return runs, reached


def plan(
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    force: bool = False,
) -> BackwardPlan:
    """Plan the backward pass of layers in order, which read and write these blobs.

    Parameters
    ----------
    force : bool
        Whether gradients go to bottoms below which nothing learns too (``force_backward``).

    Raises
    ------
    ConfigError
        For a layer with another number of loss weights than tops or of propagate_down than bottoms,
        or one that changes in place what an earlier one needs for its gradient.
    """
    loss_weights = [_loss_weights(layer, len(top)) for layer, top in zip(layers, tops, strict=True)]
    propagates, wants = _wanted(layers, bottoms, tops, force)
    reached = _under_loss(bottoms, tops, loss_weights, propagates)
    runs = [wanted and is_reached for wanted, is_reached in zip(wants, reached, strict=True)]
    spoiled = _check_in_place(layers, bottoms, tops, runs, loss_weights)
    receives = _received(bottoms, tops, propagates, runs)
    return BackwardPlan(loss_weights, propagates, wants, runs, receives, spoiled)


def _loss_weights(layer: Layer, count: int) -> list[float]:
    """Return how much each top of a layer counts: as written, or 1 for the first of a loss."""
    given = list(layer.param.loss_weight)
    if given and len(given) != count:
        raise layer.config_error(
            f"has {len(given)} loss_weight values for {count} tops; give one for each"
        )
    return given or ([1.0] + [0.0] * (count - 1) if layer.is_loss else [0.0] * count)


def _wanted(
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    force: bool,
) -> tuple[list[list[bool]], list[bool]]:
    """Tell which bottoms have something that learns below them, and which layers run for that."""
    wanted: set[int] = set()  # blobs (by identity) that a gradient must reach
    propagates: list[list[bool]] = []
    wants: list[bool] = []
    for layer, bottom, top in zip(layers, bottoms, tops, strict=True):
        learns = any(_learns(layer.param, i) for i in range(len(layer.parameters)))
        flags = [
            (id(blob) in wanted or force) and i not in layer.no_gradient
            for i, blob in enumerate(bottom)
        ]
        asked_for = layer.param.propagate_down
        if asked_for and len(asked_for) != len(bottom):
            raise layer.config_error(
                f"has {len(asked_for)} propagate_down values for {len(bottom)} bottoms; give one "
                "for each, or none"
            )
        for i, asked in enumerate(asked_for):
            flags[i] = asked and i not in layer.no_gradient
        propagates.append(flags)
        wants.append(learns or any(flags))
        if wants[-1]:
            wanted.update(id(blob) for blob in top)
    return propagates, wants


def _learns(param: Any, index: int) -> bool:
    """Whether the parameter of this number learns."""
    return index >= len(param.param) or param.param[index].lr_mult != 0


def _under_loss(
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    loss_weights: Sequence[list[float]],
    propagates: Sequence[list[bool]],
) -> list[bool]:
    """Tell for each layer whether the gradient of the loss reaches one of its tops."""
    reached: list[bool] = [False] * len(tops)
    under_loss: set[int] = set()
    for number in reversed(range(len(tops))):
        reaches = any(loss_weights[number]) or any(id(blob) in under_loss for blob in tops[number])
        reached[number] = reaches
        for blob, flag in zip(bottoms[number], propagates[number], strict=True):
            if reaches and flag:
                under_loss.add(id(blob))
            else:  # also where it was added as the output of this layer, computed in place
                under_loss.discard(id(blob))
    return reached


def _check_in_place(
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    runs: Sequence[bool],
    loss_weights: Sequence[Sequence[float]],
) -> dict[int, str]:
    """See that no later layer changes a top that is part of the loss or is looked at again.

    In phase TEST, where few go back, the second is returned: layers by number, and what is wrong.
    """
    needed: dict[int, list[int]] = {}
    counted: set[int] = set()
    spoiled: dict[int, str] = {}
    steps = zip(layers, bottoms, tops, runs, loss_weights, strict=True)
    for number, (layer, bottom, top, runs_backward, weights) in enumerate(steps):
        for blob, weight in zip(top, weights, strict=True):
            if blob in bottom and id(blob) in counted:
                raise layer.config_error(
                    f"changes '{blob.name}' in place, which has a loss_weight before; give the top "
                    f"of '{layer.name}' another name, or the loss_weight to '{layer.name}'"
                )
            if weight:
                counted.add(id(blob))
            for earlier in needed.get(id(blob), []) if blob in bottom else []:
                maker = layers[earlier]
                if layer.type_name in maker.unharmed_by:
                    continue
                error = layer.config_error(
                    f"changes '{blob.name}' in place, which layer '{maker.name}' "
                    f"({maker.type_name}) needs as it is for its gradient; give the top of "
                    f"'{layer.name}' another name"
                )
                if layer.phase == "TRAIN":
                    raise error
                spoiled.setdefault(earlier, str(error))
        if runs_backward and layer.reads_top:
            needed.setdefault(id(top[0]), []).append(number)
    return spoiled


def _received(
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    propagates: Sequence[list[bool]],
    runs: Sequence[bool],
) -> list[list[bool]]:
    """Tell for each top whether a later layer gives it a gradient."""
    received: list[list[bool]] = []
    given: set[int] = set()
    for number in reversed(range(len(tops))):
        received.insert(0, [id(blob) in given for blob in tops[number]])
        for blob, flag in zip(bottoms[number], propagates[number], strict=True):
            if runs[number] and flag:
                given.add(id(blob))
    return received
