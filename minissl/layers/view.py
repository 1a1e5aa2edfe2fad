"""What Flatten and Reshape have in common: the same values in another shape."""

from __future__ import annotations

from minissl.blob import Blob
from minissl.layers.base import Layer


class View(Layer):
    """Base of layers whose top is a view of the bottom.

    The bottom's gradient is a view of the top's. Nothing is copied, unless a later layer changes
    the top in place: others may read the bottom.
    """

    is_view = True
    #: whether the top has memory of its own
    copies = False

    def top_changes(self, number: int) -> None:
        """Copy the values."""
        self.copies = True

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Look at the same values in another shape."""
        x = bottom[0].data.reshape(top[0].shape)
        if self.copies:
            top[0].data[...] = x
        else:
            top[0].data = x

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Look at the same gradient in the bottom's shape."""
        if propagate_down[0]:
            bottom[0].diff = top[0].diff.reshape(bottom[0].shape)
