r"""Weights that BatchNorm follows, made as long as those that no group lasso has shortened.

BatchNorm divides by the deviation of what it reads, so :math:`\alpha W` gives the same outputs as
:math:`W`. The gradient, though, is :math:`\alpha` times smaller, and a step turns the weights by
:math:`1 / \alpha^2` of the angle: a layer that group lasso has made ten times shorter moves a
hundred times as far. Lengthened again, it can be trained on at the rates that suit the others.

Dimensions: F filters, which are BatchNorm's channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minissl.channels import WITH_WEIGHTS, Value, follow
from minissl.errors import ConfigError
from minissl.layers import Layer
from minissl.net import Net


def rescale(net: Net, like: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """Give each layer that BatchNorm follows the norm that its weights have in another network.

    Zeros stay zeros, and a layer without any weight stays as it is. The statistics of BatchNorm
    follow, so that the outputs in phase TEST are the same.

    Parameters
    ----------
    net : Net
        Is changed.
    like : dict
        Weights of a network with the same layers: name -> blobs.

    Returns
    -------
    dict
        Name of the layer -> by what its weights were multiplied.

    Raises
    ------
    ConfigError
        When the other network has no such layer.
    """
    values = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}
    factors = {}
    for layer, norm in before_batch_norm(net):
        if not like.get(layer.name):
            raise ConfigError(
                f"the weights to rescale like have no layer '{layer.name}'; give those of the same "
                "network"
            )
        length, wanted = (np.linalg.norm(w[layer.name][0]) for w in (values, like))
        if length == 0 or wanted == 0:
            continue
        factor = factors[layer.name] = float(wanted / length)
        for blob in values[layer.name]:  # weights, and the bias
            blob *= factor
        mean, variance, (count,) = values[norm.name]  # (F,), (F,), sums of so many batches
        eps = count * norm.param.batch_norm_param.eps
        mean *= factor
        variance[...] = np.maximum(factor**2 * (variance + eps) - eps, 0)
    net.load(values)
    return factors


def before_batch_norm(net: Net) -> list[tuple[Layer, Layer]]:
    """Return the layers with weights whose outputs nothing but a BatchNorm reads, with that one."""
    flow = follow(net)
    readers: dict[Value, list[Layer]] = {}
    for layer in net.layers:
        for value in flow.bottoms[layer.name] if layer.type_name != "Split" else ():
            readers.setdefault(value, []).append(layer)
    found = []
    for layer in net.layers:
        if layer.type_name in WITH_WEIGHTS:
            (top,) = flow.tops[layer.name]
            read = readers.get(top, [])
            if top not in flow.outputs and [one.type_name for one in read] == ["BatchNorm"]:
                found.append((layer, read[0]))
    return found
