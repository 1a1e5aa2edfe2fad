"""What a network consists of: layers, shapes, parameters, operations and memory.

Dimensions: N images of a batch, F filters, K columns, P x Q output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from minissl.layers import Layer
from minissl.net import Net


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes
    ----------
    name, type : str
    tops : dict
        Name of each top -> its shape.
    weights : tuple of int or None
        Shape of the weights.
    parameters, nonzero : int
        Numbers of all kinds that it learns (not the statistics of a BatchNorm), and how many of
        them are not 0.
    flop : int
        Per image, a multiply-add counted as 2; layers without weights count as 0.
    conv_mode : str or None
        How a Convolution or InnerProduct is executed: of one that asks for AUTO what was picked
        for its weights, and AUTO while there are none.
    bytes : int
        Of its tops (an in-place layer has none of its own) and parameters, without gradients.
    fused_into : str or None
        The layer in whose step this one runs (:mod:`minissl.fusion`).
    """

    name: str
    type: str
    tops: dict[str, tuple[int, ...]]
    weights: tuple[int, ...] | None
    parameters: int
    nonzero: int
    flop: int
    bytes: int
    conv_mode: str | None = None
    fused_into: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the values as they are reported."""
        return dict(vars(self))


def summarize(net: Net) -> list[LayerSummary]:
    """Describe every layer of a network, in order; split layers, which nobody wrote, are left out.

    A parameter shared by several layers counts for the first of them.
    """
    seen: set[int] = set()
    rows = []
    for layer in net.layers:
        if layer.type_name == "Split":
            continue
        bottom, top = net.bottoms_and_tops(layer)
        own = [p for p in layer.parameters if id(p) not in seen]
        seen.update(map(id, own))
        learned = [parameter for parameter in own if parameter.role != "statistic"]
        size = sum(parameter.size for parameter in own)
        of_tops = sum(blob.size for blob in top if blob not in bottom)
        rows.append(
            LayerSummary(
                name=layer.name,
                type=layer.type_name,
                tops={blob.name: blob.shape for blob in top},
                weights=layer.parameters[0].shape if layer.parameters else None,
                parameters=sum(parameter.size for parameter in learned),
                nonzero=sum(int(np.count_nonzero(parameter.data)) for parameter in learned),
                flop=flop_per_image(net, layer),
                bytes=(size + of_tops) * net.dtype.itemsize,
                conv_mode=getattr(layer, "conv_mode", None),
                fused_into=net.fused.get(layer.name),
            )
        )
    return rows


def flop_per_image(net: Net, layer: Layer) -> int:
    """Return 2 * (weights held) * (positions they are applied at) for a layer with weights, else 0.

    A convolution applies its weights at P * Q positions of its output, a deconvolution at those of
    its input, an inner product at one (or at as many as lie between the batch and its ``axis``).
    """
    if layer.type_name not in ("Convolution", "Deconvolution", "InnerProduct"):
        return 0
    bottom, top = net.bottoms_and_tops(layer)
    if layer.type_name == "InnerProduct":
        positions = prod(top[0].shape[1:-1])
    else:
        positions = prod((bottom if layer.type_name == "Deconvolution" else top)[0].shape[2:])
    return 2 * layer.parameters[0].size * positions
