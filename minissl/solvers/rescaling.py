r"""Weights that BatchNorm follows, made as long as those that no group lasso has shortened.

BatchNorm divides by the deviation of what it reads, so :math:`\alpha W` gives the same outputs as
:math:`W`. The gradient, though, is :math:`\alpha` times smaller, and a step turns the weights by
:math:`1 / \alpha^2` of the angle: a layer that group lasso has made ten times shorter moves a
hundred times as far. Lengthened again, it can be trained on at the rates that suit the others.

Dimensions: F filters, which are BatchNorm's channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from minissl.channels import WITH_WEIGHTS, Value, follow
from minissl.errors import ConfigError
from minissl.layers import Layer
from minissl.net import Net
from minissl.net_weights import mode_of
from minissl.sparsity.zero_out import is_small


def rescale(net: Net, like: Mapping[str, Sequence[np.ndarray]]) -> dict[str, float]:
    """Give convolutions and inner products that BatchNorm follows the norms of another network.

    Zeros stay zeros. The statistics of BatchNorm follow, so that the outputs in phase TEST are the
    same; a layer stays as it is where they cannot (there are none yet; or it is to become shorter,
    and ``eps`` is most of what BatchNorm divides by), where its ``connectivity_mode`` would freeze
    weights that have become small, where all of its weights are zero, or where
    they are shared.

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
        factor = float(wanted / length)
        mean, variance, (count,) = values[norm.name]  # (F,), (F,), sums of so many batches
        if count == 0:
            continue
        eps = count * norm.param.batch_norm_param.eps
        scaled = factor**2 * (variance + eps) - eps
        if (scaled < 0).any() or _would_freeze(layer, factor * values[layer.name][0]):
            continue
        for blob in (*values[layer.name], mean):  # weights, and the bias
            blob *= factor
        variance[...] = scaled
        factors[layer.name] = factor
    net.load(values)
    return factors


def _would_freeze(layer: Layer, weights: np.ndarray) -> bool:
    """Whether loading would make weights zero, being small, and freeze them there."""
    return mode_of(layer) != "CONNECTED" and bool((is_small(weights) & (weights != 0)).any())


def before_batch_norm(net: Net) -> list[tuple[Layer, Layer]]:
    """Return layers with weights of their own that nothing but a BatchNorm reads, with that one."""
    flow = follow(net)
    readers: dict[Value, list[Layer]] = {}
    for layer in net.layers:
        for value in flow.bottoms[layer.name] if layer.type_name != "Split" else ():
            readers.setdefault(value, []).append(layer)
    users = Counter(id(parameter) for layer in net.layers for parameter in layer.parameters)
    found = []
    for layer in net.layers:
        if layer.type_name in WITH_WEIGHTS:
            (top,) = flow.tops[layer.name]
            read = readers.get(top, [])
            if top in flow.outputs or [one.type_name for one in read] != ["BatchNorm"]:
                continue
            if all(users[id(p)] == 1 for p in (*layer.parameters, *read[0].parameters)):
                found.append((layer, read[0]))
    return found
