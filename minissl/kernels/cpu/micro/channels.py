"""Some channels of a blob side by side in a smaller one, and back to their places."""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.convolution import copy
from minissl.kernels.cpu.jit import parallel_kernel, prange


@parallel_kernel
def _gather(x, channels, y):
    """x (N, C, S), y (N, C', S): a thread has whole images."""
    for n in prange(x.shape[0]):
        for c in range(channels.size):
            copy(x[n, channels[c]], y[n, c])


@parallel_kernel
def _scatter(x, places, rest, y):
    """x (N, C', S), y (N, C, S)."""
    for n in prange(y.shape[0]):
        for c in range(y.shape[1]):
            if places[c] >= 0:
                copy(x[n, places[c]], y[n, c])
            else:
                y[n, c] = rest[c]


def gather_channels(x: np.ndarray, channels: np.ndarray, y: np.ndarray) -> None:
    """Y = x[:, channels]: x (N, C, H, W), channels (C',), y (N, C', H, W)."""
    N, C, H, W = x.shape
    _gather(
        np.ascontiguousarray(x).reshape(N, C, H * W), channels, y.reshape(N, channels.size, H * W)
    )


def scatter_channels(x: np.ndarray, places: np.ndarray, rest: np.ndarray, y: np.ndarray) -> None:
    """y[:, c] = x[:, places[c]], or rest[c] where that is below 0.

    Parameters
    ----------
    x : (N, C', H, W)
    places : (C,) of int
        Where each channel of y stands in x, or -1.
    rest : (C,)
        What the others are filled with.
    y : (N, C, H, W), written
    """
    N, C, H, W = y.shape
    _scatter(x.reshape(N, x.shape[1], H * W), places, rest, y.reshape(N, C, H * W))
