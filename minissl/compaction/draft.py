"""A network that is being rewritten: its prototxt, all phases, and its weights.

Every change leaves each blob that is still read where its readers look for it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from minissl import graph
from minissl.compaction.proof import JUDGES
from minissl.formats.fused_types import plain_layers
from minissl.formats.upgrade import upgraded
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
        Of all phases, in order, in the current form and without fused types; changed in place. In
        the net's own phase each has the name that it has in the net.
    weights : dict
        {layer name: [arrays]}; arrays are replaced, never written into.
    """

    def __init__(self, net: Net):
        self.net = net
        self._param = upgraded(net.param)
        self.layers: list[Any] = []
        names = iter(net.definitions())
        for layer in self._param.layer:
            parts = plain_layers(_copy(layer))
            if graph.belongs(layer, net.phase, net.level, net.stages):
                for part in parts:  # of two layers with one name, the net has renamed one
                    part.name = next(names)
            self.layers += parts
        self.weights: dict[str, list[np.ndarray]] = net.weights()

    def param(self) -> Any:
        """Return the prototxt."""
        param = type(self._param)()
        param.CopyFrom(self._param)
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
        knows by name. Then the layer before writes the top instead, if nothing else reads what it
        writes.
        """
        layers = self.find(name)
        if len(layers) != 1 or len(layers[0].bottom) != 1 or len(layers[0].top) != 1:
            return False
        (layer,) = layers
        (bottom,), (top,) = layer.bottom, layer.top
        if layer.include or layer.exclude or any(layer.loss_weight):
            return False
        if bottom != top:
            readers = self._readers(layer, bottom, top)
            if readers is None:
                return self._write_directly(layer)
            for reader in readers:
                for i, blob in enumerate(reader.bottom):
                    if blob == top:
                        reader.bottom[i] = bottom
        del self.layers[self._position(layer)]
        self.weights.pop(name, None)
        return True

    def _write_directly(self, layer: Any) -> bool:
        """Let the layer that makes a bottom write the top of another one, which is removed."""
        (bottom,) = layer.bottom
        position = self._position(layer)
        makers = [i for i in range(position) if bottom in self.layers[i].top]
        if not makers:
            return False
        maker = self.layers[makers[-1]]
        others = self.layers[makers[-1] + 1 :]
        alone = sum(bottom in other.bottom for other in others) == 1
        plain = len(maker.top) == 1 and not (maker.include or maker.exclude)
        return alone and plain and self.join(maker, layer)

    def join(self, first: Any, second: Any) -> bool:
        """Remove a layer that alone reads what another one writes; say whether that was possible.

        The first writes under the name of the second then, which must be free until there.
        """
        (bottom,), (top,) = first.top, second.top
        if second.include or second.exclude or any(second.loss_weight):
            return False
        if first.top[0] != second.bottom[0]:
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
        overwritten = rewritten = False
        for other in self.layers[self._position(layer) + 1 :]:
            reads, writes = top in other.bottom, top in other.top
            if (reads or writes) and (overwritten or other.include or other.exclude):
                return None
            if reads:
                readers.append(other)
            if writes:
                rewritten = True
                break
            overwritten = overwritten or bottom in other.top
        is_output = not rewritten and top in self.net.outputs
        judged = any(reader.type in JUDGES for reader in readers)
        return None if is_output or judged else readers

    def _position(self, layer: Any) -> int:
        return next(i for i, other in enumerate(self.layers) if other is layer)


def _copy(layer: Any) -> Any:
    copy = type(layer)()
    copy.CopyFrom(layer)
    return copy
