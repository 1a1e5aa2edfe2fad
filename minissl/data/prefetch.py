"""The next batch is made in the background while the present one is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np


class Prefetch:
    """One batch ahead, in a thread of its own.

    What is in a batch follows from its key and from nothing else, so that it does not matter who
    makes it, nor when. An error in the background is raised where the batch is taken. The thread is
    there from the second batch on (who takes one needs no thread), and ends with this object.

    Parameters
    ----------
    make : callable
        Takes a key and an array to be written, and returns what belongs to it (the labels).
    """

    def __init__(self, make: Callable[[Any, np.ndarray], Any]):
        self._make = make
        self._taken = 0
        self._pending: tuple[Any, Future] | None = None
        self._buffer: np.ndarray | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def take(self, key: Any, out: np.ndarray) -> Any:
        """Write the batch of a key to ``out``; return what belongs to it."""
        self._taken += 1
        if self._process != os.getpid():  # a fork has no threads
            self._pending, self._pool, self._process = None, None, os.getpid()
        pending, self._pending = self._pending, None
        if pending is None or pending[0] != key:
            if pending is not None:
                wait([pending[1]])
            return self._make(key, out)
        belongs = pending[1].result()
        out[...] = self._buffer
        return belongs

    def begin(self, key: Any, like: np.ndarray) -> None:
        """Begin with the batch that is taken next, probably; it is of the shape of ``like``."""
        if self._taken < 2:
            return
        if self._buffer is None:
            self._buffer = np.empty(like.shape, like.dtype)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="minissl-data")
        self._pending = key, self._pool.submit(self._make, key, self._buffer)

    def forget(self) -> None:
        """Drop what was begun."""
        if self._pending is not None:
            wait([self._pending[1]])
            self._pending = None

    @property
    def is_ahead(self) -> bool:
        """Whether a batch is being made, or waits to be taken."""
        return self._pending is not None
