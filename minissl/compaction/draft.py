"""A network that is being rewritten: its prototxt, all phases, and its weights.

Every change leaves each blob that is still read where its readers look for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from minissl.compaction.proof import JUDGES
from minissl.net import Net


class Draft:
    """What a network becomes.

    Parameters
    ----------
    net : Net
        Is left as it is.

    Attributes
    ----------
    layers : list of LayerParameter
        Of all phases, in order; changed in place.
    weights : dict
        {layer name: [arrays]}; arrays are replaced, never written into.
    """

    def __init__(self, net: Net):
        self.net = net
        self.layers = [_copy(layer) for layer in net.param.layer]
        self.weights: dict[str, list[np.ndarray]] = net.weights()

    def param(self) -> Any:
        """Return the prototxt."""
        param = type(self.net.param)()
        param.CopyFrom(self.net.param)
        del param.layer[:]
        param.layer.extend(self.layers)
        return param

    def build(self) -> Net:
        """Return the network, on the reference kernels, to be looked at."""
        net = Net(
            self.param(),
            self.net.phase,
            "numpy",
            self.net.dtype.name,
            data=self.net.layers[0].context.data,
            level=self.net.level,
            stages=self.net.stages,
            fuse=False,
        )
        if net.parameters:
            net.load(self.weights)
        return net

    def find(self, name: str) -> list[Any]:
        """Return a layer of the network, for each phase that has its own."""
        kind = self.net.layer(name).type_name
        return [layer for layer in self.layers if layer.name == name and layer.type == kind]

    def remove(self, names: Collection[str]) -> None:
        """Remove layers of the network, and what other phases have no input for without them."""
        gone = {id(layer) for name in names for layer in self.find(name)}
        there: set[str] = set()
        fed = []
        for layer in self.layers:
            if id(layer) not in gone and there.issuperset(layer.bottom):
                fed.append(layer)
                there.update(layer.top)
        self.layers = fed
        left = {layer.name for layer in fed}
        self.weights = {name: blobs for name, blobs in self.weights.items() if name in left}

    def insert_behind(self, layer: Any, new: Any) -> None:
        """Put a new layer behind another one."""
        self.layers.insert(self._position(layer) + 1, new)

    def free_name(self, wanted: str) -> str:
        """Return a name that no layer has yet."""
        taken = {layer.name for layer in self.layers}
        names = (f"{wanted}{number or ''}" for number in range(len(taken) + 1))
        return next(name for name in names if name not in taken)

    def bypass(self, name: str) -> bool:
        """Remove a layer that hands its one bottom on; say whether that was possible.

        Its readers read the bottom instead. They cannot where another layer has written over it by
        then, nor where phases disagree about who reads what; nor may a blob leave that the caller
        knows by name.
        """
        layers = self.find(name)
        if len(layers) != 1 or len(layers[0].bottom) != 1 or len(layers[0].top) != 1:
            return False
        (layer,) = layers
        (bottom,), (top,) = layer.bottom, layer.top
        if layer.include or layer.exclude:
            return False
        if bottom != top:
            readers = self._readers(layer, bottom, top)
            if readers is None or top in _named_blobs(self.net):
                return False
            for reader in readers:
                for i, blob in enumerate(reader.bottom):
                    if blob == top:
                        reader.bottom[i] = bottom
        del self.layers[self._position(layer)]
        self.weights.pop(name, None)
        return True

    def join(self, first: Any, second: Any) -> bool:
        """Remove a layer that alone reads what another one writes; say whether that was possible.

        The first writes under the name of the second then, which must be free until there.
        """
        (bottom,), (top,) = first.top, second.top
        if second.include or second.exclude:
            return False
        if bottom != top:
            between = self.layers[self._position(first) + 1 : self._position(second)]
            if any(top in (*layer.bottom, *layer.top) for layer in between):
                return False
            first.top[0] = top
        del self.layers[self._position(second)]
        self.weights.pop(second.name, None)
        return True

    def _readers(self, layer: Any, bottom: str, top: str) -> list[Any] | None:
        """Return who reads the ``top`` of a layer; None where they cannot read ``bottom``."""
        readers = []
        overwritten = False
        for other in self.layers[self._position(layer) + 1 :]:
            reads, writes = top in other.bottom, top in other.top
            if (reads or writes) and (overwritten or other.include or other.exclude):
                return None
            if reads:
                readers.append(other)
            if writes:
                break
            overwritten = overwritten or bottom in other.top
        return readers

    def _position(self, layer: Any) -> int:
        return next(i for i, other in enumerate(self.layers) if other is layer)


def _named_blobs(net: Net) -> set[str]:
    """Return the blobs that the caller knows by name: outputs, and the scores that are judged."""
    splits = {
        top: layer.param.bottom[0]
        for layer in net.layers
        if layer.type_name == "Split"
        for top in layer.param.top
    }
    judged = (layer.param.bottom[0] for layer in net.layers if layer.type_name in JUDGES)
    return {*net.outputs, *(splits.get(name, name) for name in judged)}


def _copy(layer: Any) -> Any:
    copy = type(layer)()
    copy.CopyFrom(layer)
    return copy
