"""Silence: a reader for blobs that nobody else reads."""

from __future__ import annotations

import sys

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register


@register("Silence")
class Silence(Layer):
    """Read blobs and do nothing with them, so that they are no outputs of the network."""

    n_bottoms = (1, sys.maxsize)
    n_tops = (0, 0)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Nothing comes out."""
        return []

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Do nothing."""

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = 0."""
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                blob.diff.fill(0)
