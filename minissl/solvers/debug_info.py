"""``debug_info`` of a solver: the mean magnitude of every blob on its way through the network.

    [Forward] Layer conv1, top blob conv1 data: 0.171668
    [Forward] Layer conv1, param blob 0 data: 0.174286
    [Backward] Layer ip2, bottom blob ip1 diff: 0.00488293
    [Backward] Layer ip2, param blob 0 diff: 0.00342281
    [Backward] All net params (data, diff): L1 norm = (358.05, 18.095); L2 norm = (7.3521, 0.544928)

The lines are Caffe's, in its order: where a value explodes or dies is seen at a glance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.blob import Parameter
from minissl.layers import Layer
from minissl.net import Net


class DebugInfo:
    """A watcher of a network (see :attr:`minissl.net.Net.watcher`) that writes these lines.

    Parameters
    ----------
    net : Net
        The network that is watched.
    say : callable
        Takes one line.
    """

    def __init__(self, net: Net, say: Callable[[str], Any]):
        self.net = net
        self.say = say
        backward = [layer for layer in net.layers if net.runs_backward(layer)]
        self._last_backward = backward[0] if backward else None

    def __call__(self, direction: str, layer: Layer) -> None:
        """Write the lines of a layer that has just run ``"Forward"`` or ``"Backward"``."""
        start = f"    [{direction}] Layer {layer.name}"
        if direction == "Forward":
            for blob in self.net.bottoms_and_tops(layer)[1]:
                self.say(f"{start}, top blob {blob.name} data: {mean_magnitude(blob.data):g}")
            for parameter in layer.parameters:
                value = mean_magnitude(parameter.data)
                self.say(f"{start}, param blob {_display_name(parameter)} data: {value:g}")
            return
        bottoms = self.net.bottoms_and_tops(layer)[0]
        for blob, reached in zip(bottoms, self.net.propagates(layer), strict=True):
            if reached:
                self.say(f"{start}, bottom blob {blob.name} diff: {mean_magnitude(blob.diff):g}")
        for parameter in layer.parameters:
            if parameter.spec.lr_mult != 0:
                value = mean_magnitude(parameter.diff)
                self.say(f"{start}, param blob {_display_name(parameter)} diff: {value:g}")
        if layer is self._last_backward:
            self.say(self._all_parameters())

    def _all_parameters(self) -> str:
        data = [to_host(parameter.data) for parameter in self.net.parameters]
        learning = [p for p in self.net.parameters if p.spec.lr_mult != 0]
        diff = [to_host(parameter.diff) for parameter in learning]
        return (
            "    [Backward] All net params (data, diff): "
            f"L1 norm = ({_l1_norm(data):g}, {_l1_norm(diff):g}); "
            f"L2 norm = ({_l2_norm(data):g}, {_l2_norm(diff):g})"
        )


def mean_magnitude(array: Any) -> float:
    """Return the mean of |x| over all elements."""
    return float(np.mean(np.abs(to_host(array))))


def _l1_norm(arrays: list[np.ndarray]) -> float:
    return sum(float(np.abs(array).sum()) for array in arrays)


def _l2_norm(arrays: list[np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(array).sum()) for array in arrays))


def _display_name(parameter: Parameter) -> str:
    """Return a shared parameter's name, any other's index in its layer."""
    return parameter.spec.name or str(parameter.index)
