"""Random pruning, a control: the structure that another network has learned, dealt out by lot.

Of every layer as many filters, channels and columns are kept as the other network has, but which
ones is left to chance. Filters change places, and a later layer's channels with them, so that what
is read is what is there; within each channel the columns change places. The FLOP are then the same
by every rule of :mod:`minissl.sparsity.flops` that looks at whole rows and columns.

Dimensions: F filters, g conv groups, C input channels, K columns of one group's weight matrix, each
channel has s of them: g * K = C * s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minissl.errors import ConfigError
from minissl.sparsity.flops import LayerShape


def masks_like(
    like: Sequence[LayerShape], dense: Sequence[LayerShape], seed: int
) -> dict[str, np.ndarray]:
    """Return which weights to keep of a dense network.

    Parameters
    ----------
    like : sequence of LayerShape
        The network whose structure is wanted, producers before their readers.
    dense : sequence of LayerShape
        The network to prune, of the same shape. What is zero in it already is left out first.
    seed : int

    Returns
    -------
    dict
        Name of the layer -> bool (g, F/g, K), all true where ``like`` has lost no row or column.

    Raises
    ------
    ConfigError
        For networks that differ in shape, or a layer with several inputs.
    """
    _check(like, dense)
    rng = np.random.default_rng(seed)
    in_like, in_dense = _uses(like), _uses(dense)
    places = {
        layer.name: _deal(rng, _borders(layer, like), in_like[layer.name], in_dense[layer.name])
        for layer in like
    }
    return {
        one.name: _mask(one, other, places, rng) for one, other in zip(like, dense, strict=True)
    }


def _mask(
    like: LayerShape, dense: LayerShape, places: dict[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Move the living rows and columns of a layer to their new places."""
    producer = like.inputs[0].producer
    wanted, there = _columns(like), _columns(dense)  # (C, s)
    if producer is None:
        borders = np.arange(len(wanted)) // (len(wanted) // like.conv_groups)
        channels = _deal(rng, borders, _channels(like), _channels(dense))
    else:
        channels = places[producer]
    columns = np.empty_like(wanted)
    for old, new in enumerate(channels):
        inside = _deal(rng, np.zeros(wanted.shape[1], int), wanted[old], there[new])
        columns[new, inside] = wanted[old]
    rows = np.empty(len(places[like.name]), bool)
    rows[places[like.name]] = _rows(like)
    g = like.conv_groups
    return rows.reshape(g, -1, 1) & columns.reshape(g, 1, -1)  # (g, F/g, K)


def _deal(
    rng: np.random.Generator, borders: np.ndarray, wanted: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """Return a new place for everything, at random but for this: nothing crosses a border.

    What is needed most (``wanted``) comes to places of which most is left (``there``).
    """

    def order(scores: np.ndarray) -> np.ndarray:
        return np.lexsort((rng.permutation(len(scores)), -scores.astype(int), borders))

    places = np.empty(len(wanted), int)
    places[order(wanted)] = order(there)
    return places


def _uses(layers: Sequence[LayerShape]) -> dict[str, np.ndarray]:
    """Count for each filter (F,) whether it has weights, and the layers that read it."""
    uses = {layer.name: _rows(layer).astype(int) for layer in layers}
    for layer in layers:
        producer = layer.inputs[0].producer
        if producer is not None:
            uses[producer] += _channels(layer)
    return uses


def _borders(layer: LayerShape, layers: Sequence[LayerShape]) -> np.ndarray:
    """Number the filters (F,) so that equal ones share all conv groups, their own and readers'."""
    filters = np.arange(layer.weight.shape[0])
    borders = np.zeros_like(filters)
    readers = [one for one in layers if one.inputs[0].producer == layer.name]
    for groups in (layer.conv_groups, *(reader.conv_groups for reader in readers)):
        borders = borders * groups + filters // (len(filters) // groups)
    return borders


def _rows(layer: LayerShape) -> np.ndarray:
    """Return which filters (F,) are not zero."""
    return layer.nonzero.any(axis=2).reshape(-1)


def _columns(layer: LayerShape) -> np.ndarray:
    """Return which columns (C, s) are not zero."""
    return layer.nonzero.any(axis=1).reshape(-1, layer.columns_per_channel)


def _channels(layer: LayerShape) -> np.ndarray:
    """Return which input channels (C,) are read."""
    return np.asarray(_columns(layer).any(axis=1))


def _check(like: Sequence[LayerShape], dense: Sequence[LayerShape]) -> None:
    shapes = [[(one.name, one.weight.shape) for one in layers] for layers in (like, dense)]
    if shapes[0] != shapes[1]:
        raise ConfigError("random pruning needs two networks whose layers are the same")
    filters = {one.name: len(one.weight) for one in like}
    for one in like:
        sources = {filters.get(source.producer or "", one.input_channels) for source in one.inputs}
        if len(one.inputs) > 1 or sources != {one.input_channels}:
            raise ConfigError(
                f"layer '{one.name}' reads several layers at once; random pruning follows layers "
                "one behind the other only"
            )
