r"""Training a convolution without its dead filters and channels: as one with fewer of them.

Rows of the weight matrix that are frozen at zero are filters, and where all columns of a channel
are, nothing reads the channel. What lives is trained as a smaller convolution, by the same tiles as
a whole one (:mod:`minissl.conv_modes.training`)::

    x (N, C, H, W)   -> live channels ->   x' (N, C', H, W)
                                           |  W' (F', C', kh, kw)
    y (N, F, P, Q)   <- live filters  <-   y' (N, F', P, Q)

A dead filter gives its bias, a dead channel gets no gradient. Copying the channels costs little
beside the products that are saved. Zero columns of a channel that lives are multiplied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl import machine as machines
from minissl.conv_modes.cost.training import channel_copies
from minissl.conv_modes.training import TrainedConvolution


class NarrowConvolution:
    """The living part of a convolution, of one conv group.

    Parameters
    ----------
    whole : TrainedConvolution
        The convolution as it is without zeros.
    filters, channels : (F',), (C',) of int
        What is computed, rising.
    """

    def __init__(self, whole: TrainedConvolution, filters: np.ndarray, channels: np.ndarray):
        self.filters, self.channels = filters, channels
        self.micro, self.dtype = whole.kernels.micro, whole.dtype
        shape = whole.shape._replace(filters=filters.size, channels=channels.size)
        self.trained = TrainedConvolution(shape, whole.images, whole.kernels, whole.dtype, False)
        self.whole = whole.shape
        self.filter_places = _places(filters, whole.shape.filters)
        self.channel_places = _places(channels, whole.shape.channels)
        self.no_gradient = np.zeros(whole.shape.channels, whole.dtype)
        self.b = np.zeros(whole.shape.filters, whole.dtype)

    @classmethod
    def of(cls, whole: TrainedConvolution, mask: Any) -> NarrowConvolution | None:
        """Leave out the filters and channels that are dead.

        None where none is, or all are, or the whole convolution has no tiles.

        Parameters
        ----------
        mask : (F, C, kh, kw)
            0 where a weight is frozen at zero.
        """
        if whole.lowers_all or whole.shape.groups > 1:
            return None
        filters = np.flatnonzero(mask.any(axis=(1, 2, 3)))
        channels = np.flatnonzero(mask.any(axis=(0, 2, 3)))
        if filters.size == 0 or (filters.size, channels.size) == mask.shape[:2]:
            return None
        return cls(whole, filters, channels)

    def seconds(self) -> float:
        """Return the predicted seconds of the three passes, on one thread."""
        copies = channel_copies(self.whole, self.trained.shape, self.trained.images)
        return self.trained.seconds() + machines.current().seconds(copies, 1)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per output pixel."""
        return self.filters.size * self.trained.shape.columns

    def pack(self, w: Any, b: Any) -> None:
        """Take the values of weights (F, C, kh, kw) and biases; b may be None."""
        self.w = w[self.filters[:, None], self.channels]
        if b is not None:
            self.b = b

    def forward(self, x: Any, y: Any) -> None:
        """Compute y from x."""
        x, narrow = self._live("inputs", x, self.channels), self._room("outputs", y, self.filters)
        self.trained.forward(x, self.w, self.b[self.filters], narrow)
        if narrow is not y:
            self.micro.scatter_channels(narrow, self.filter_places, self.b, y)

    def backward_weights(self, x: Any, d_y: Any, d_w: Any) -> None:
        """Add the gradient of what lives to d_w (F, C, kh, kw); the rest gets none."""
        d_narrow = np.zeros_like(self.w)
        x = self._live("inputs", x, self.channels)
        self.trained.backward_weights(x, self._live("outputs", d_y, self.filters), d_narrow, None)
        d_w[self.filters[:, None], self.channels] += d_narrow

    def backward_input(self, d_y: Any, d_x: Any) -> None:
        """Compute d_x from d_y."""
        d_narrow = self._room("inputs", d_x, self.channels)
        self.trained.backward_input(self._live("outputs", d_y, self.filters), self.w, d_narrow)
        if d_narrow is not d_x:
            self.micro.scatter_channels(d_narrow, self.channel_places, self.no_gradient, d_x)

    def _room(self, name: str, blob: Any, kept: np.ndarray) -> Any:
        """Return memory for the kept channels of a blob, which are written there first.

        The blob itself where all of its channels are kept.
        """
        N, C, *size = blob.shape
        if kept.size == C:
            return blob
        return self.micro.scratch(f"live {name}", (N, kept.size, *size), self.dtype)

    def _live(self, name: str, blob: Any, kept: np.ndarray) -> Any:
        """Return the kept channels of a blob; the blob itself where that is all of them."""
        narrow = self._room(name, blob, kept)
        if narrow is not blob:
            self.micro.gather_channels(blob, kept, narrow)
        return narrow


def _places(kept: np.ndarray, count: int) -> np.ndarray:
    """Return where each of 0 .. count - 1 stands among the kept, -1 for nowhere."""
    places = np.full(count, -1)
    places[kept] = np.arange(kept.size)
    return places
