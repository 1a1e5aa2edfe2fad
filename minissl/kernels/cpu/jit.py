"""How the kernels are compiled, and the scratch memory they share."""

from __future__ import annotations

import math
import threading

import numpy as np
from numba import get_thread_id, njit, prange

__all__ = ["PARTS", "get_thread_id", "kernel", "parallel_kernel", "prange", "scratch", "step"]

#: parts into which every long sum is split; fixed, so that results never depend on the threads
PARTS = 16

#: compile a helper or a serial kernel
kernel = njit(cache=True, nogil=True)
#: compile a kernel whose ``prange`` loops run on all threads
parallel_kernel = njit(cache=True, nogil=True, parallel=True)

_memory = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that is reused from call to call (per Python thread)."""
    buffers = _memory.__dict__.setdefault("buffers", {})
    size = math.prod(shape)
    buffer = buffers.get((name, dtype))
    if buffer is None or buffer.size < size:
        buffer = buffers[name, dtype] = np.empty(size, dtype)
    return buffer[:size].reshape(shape)


def step(n: int, parts: int = PARTS) -> int:
    """Length of each part when n things are split into at most ``parts`` equal runs."""
    return max(1, -(-n // parts))
