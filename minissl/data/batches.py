"""Batches of a data set, in an order that depends on the number of records read and nothing else.

N is the number of records, B the batch size.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from minissl.errors import ConfigError, DataError

# Streams of random numbers that must not coincide are told apart by these.
SHUFFLE_STREAM = 1
TRANSFORM_STREAM = 2
SKIP_STREAM = 3
#: Record numbers are 64-bit integers.
MAX_POSITION = 2**62


class Records(Protocol):
    """What a data set must offer."""

    def __len__(self) -> int: ...

    def batch(self, chosen: slice | np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the images and labels of some records."""


class BatchReader:
    """Reads a data set again and again, as Caffe walks through an LMDB.

    Batch i holds records i*B ... i*B + B - 1 modulo N, so one batch may hold the end of an epoch
    and the beginning of the next. With ``shuffle`` each epoch has an order of its own, derived from
    the seed and the number of the epoch. Everything follows from ``seed`` and ``position``, so a
    snapshot needs to keep the position only.

    Parameters
    ----------
    dataset : Dataset or another with records
        What is read.
    batch_size : int
        B, at least 1.
    shuffle : bool
        Another order in each epoch instead of that of the files.
    seed : int
        Not negative.
    """

    def __init__(self, dataset: Records, batch_size: int, shuffle: bool = False, seed: int = 0):
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; use 1 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self._position = 0
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    @property
    def seed(self) -> int:
        """Decides the order of ``shuffle`` and the random numbers of the transformation."""
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"the seed of the data order is {value!r}; use a number from 0 on")
        self._seed = value

    @property
    def position(self) -> int:
        """Number of records read so far; set it to go on from there."""
        return self._position

    @position.setter
    def position(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_POSITION:
            raise DataError(
                f"the data position {value!r} of the snapshot is not a number of records; "
                "resume from another snapshot"
            )
        self._position = value

    def next(self) -> tuple[Any, np.ndarray]:
        """Return the next B images (uint8, (B, C, H, W)) and labels ((B,)), and move on.

        The arrays may be views of the data set: they are not to be written to. Images of different
        sizes come as a list.
        """
        position = self._position
        self._position += self.batch_size
        return self.read(position)

    def read(self, position: int) -> tuple[Any, np.ndarray]:
        """Return the batch at a position, and stay."""
        return self.dataset.batch(self._records(position))

    def rng_at(self, position: int) -> np.random.Generator:
        """Return the random numbers for crop and mirror of the batch at a position."""
        return np.random.default_rng([self.seed, TRANSFORM_STREAM, position])

    def skip_up_to(self, limit: int) -> None:
        """Skip a random number of records below ``limit``, drawn from the seed (``rand_skip``)."""
        rng = np.random.default_rng([self.seed, SKIP_STREAM])
        self._position += int(rng.integers(limit))

    def _records(self, position: int) -> slice | np.ndarray:
        """Which records of the data set the batch at ``position`` holds."""
        n = len(self.dataset)
        first = position % n
        if not self.shuffle and first + self.batch_size <= n:
            return slice(first, first + self.batch_size)
        numbers = position + np.arange(self.batch_size)
        within = numbers % n
        if not self.shuffle:
            return within
        epochs = numbers // n
        # The orders of this batch's epochs are kept for the next batch, older ones are dropped.
        needed = [(self.seed, epoch) for epoch in np.unique(epochs).tolist()]
        self._orders = {key: self._order(*key) for key in needed}
        chosen = np.empty_like(within)
        for key in needed:
            here = epochs == key[1]
            chosen[here] = self._orders[key][within[here]]
        return chosen

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the order of one epoch: a permutation of 0 ... N - 1."""
        if (seed, epoch) in self._orders:
            return self._orders[seed, epoch]
        rng = np.random.default_rng([seed, SHUFFLE_STREAM, epoch])
        return rng.permutation(len(self.dataset))
