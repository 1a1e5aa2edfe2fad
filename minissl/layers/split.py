"""Split: one blob for several readers."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("Split")
class Split(Layer):
    """Fan-out: each top is the bottom, and the bottom's gradient is the sum of the tops'.

    The tops share the bottom's memory, but for those that a later layer changes in place. A network
    inserts this layer wherever a blob is read more than once.
    """

    n_tops = (1, sys.maxsize)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Every top has the bottom's shape."""
        self._copied: set[int] = set()
        return [bottom_shapes[0]] * max(1, len(self.param.top))

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Share the values."""
        for number, blob in enumerate(top):
            self.hand_on(number, bottom[0], blob)

    def hand_on(self, number: int, bottom: Blob, top: Blob) -> None:
        """Give the values to one of the tops."""
        if number in self._copied:
            top.data[...] = bottom.data
        else:
            top.data = bottom.data

    def top_changes(self, number: int) -> None:
        """Copy the values for that top."""
        self._copied.add(number)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = sum of all d_y."""
        if not propagate_down[0]:
            return
        d_x = bottom[0].diff
        if len(top) == 1:
            d_x[...] = top[0].diff
            return
        self.kernels.weighted_sum(top[0].diff, 1.0, top[1].diff, 1.0, d_x)
        for blob in top[2:]:
            self.kernels.weighted_sum(d_x, 1.0, blob.diff, 1.0, d_x)


def hand_on_before(
    first: int,
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
) -> None:
    """Let Splits in front of a layer give their values to those that read them from there on.

    A part of a network begins with that layer, so that the Splits do not run themselves.
    """
    for number, layer in enumerate(layers[:first]):
        if not isinstance(layer, Split):
            continue
        read = {  # by another Split, a value is only handed on
            id(blob)
            for later in range(number + 1, first)
            for blob in bottoms[later]
            if not isinstance(layers[later], Split)
        }
        for i, top in enumerate(tops[number]):
            if id(top) not in read:
                layer.hand_on(i, bottoms[number][0], top)
