"""Between host and device, without the host waiting for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import cupy
import cupyx
import numpy as np

#: batches that may be on their way at once
SLOTS = 3


class _Slot:
    """Page-locked memory, and when the device has read it."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.memory = cupyx.empty_pinned(shape, dtype)
        self.read = cupy.cuda.Event(disable_timing=True)
        self.used = False


class _Staging:
    """A few slots in turn, so that one is filled while others are copied."""

    def __init__(self, shape: tuple[int, ...], dtype: Any):
        self.slots = [_Slot(shape, dtype) for _ in range(SLOTS)]
        self.turn = count()

    def next(self) -> _Slot:
        slot = self.slots[next(self.turn) % SLOTS]
        if slot.used:
            slot.read.synchronize()
        return slot


_staging: dict[tuple, _Staging] = {}


@contextmanager
def writing(target: Any) -> Iterator[np.ndarray]:
    """Yield host memory of the shape of ``target``; what was written is copied to it afterwards.

    The copy runs on the device's stream, in its turn. The host waits only where ``SLOTS`` copies
    are still outstanding.
    """
    key = target.shape, target.dtype.str
    if key not in _staging:
        _staging[key] = _Staging(*key)
    slot = _staging[key].next()
    yield slot.memory
    stream = cupy.cuda.get_current_stream()
    target.set(slot.memory, stream=stream)
    slot.read.record(stream)
    slot.used = True


def device_bytes() -> int:
    """Memory that could be allocated now: what is free, and what CuPy keeps for reuse."""
    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free + cupy.get_default_memory_pool().free_bytes())


def device_name() -> str:
    """Return what the device is called, such as ``NVIDIA A100``."""
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


class Timer:
    """Measure what the device does between two points, by its own events."""

    def __init__(self) -> None:
        self.begin, self.end = cupy.cuda.Event(), cupy.cuda.Event()

    def start(self) -> None:
        """Mark the beginning."""
        self.begin.record()

    def stop(self) -> float:
        """Mark the end, wait for it, and return the seconds between."""
        self.end.record()
        self.end.synchronize()
        return float(cupy.cuda.get_elapsed_time(self.begin, self.end)) / 1e3
