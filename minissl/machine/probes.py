"""How fast this machine multiplies, reads, and enters a parallel loop; a second in all.

These are the figures of a roofline: GFLOP/s of a large GEMM, GB/s of reading from each cache and
from memory, microseconds of a parallel loop that does nothing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.kernels.cpu.jit import lane_kernel, parallel_kernel, prange

#: bytes read by each thread, for each level of memory
LEVELS = {"l2_gbs": 512 * 1024, "l3_gbs": 6 * 1024 * 1024, "memory_gbs": 96 * 1024 * 1024}


def rates() -> dict[str, float]:
    """Measure everything with the threads that are set: GFLOP/s, GB/s, microseconds."""
    found = {"gemm_gflops": gemm_gflops(), "region_us": region_us()}
    for name, size in LEVELS.items():
        found[name] = read_gbs(size)
    return found


def gemm_gflops(n: int = 512) -> float:
    """Return the rate of a product of n x n matrices on each thread, all together."""
    threads = backends.threads()
    a = np.ones((n, n), np.float32)
    c = np.empty((threads, n, n), np.float32)
    with backends.single_threaded_blas():
        return 2e-9 * threads * n**3 / shortest(lambda: _multiply(a, a, c))


def read_gbs(size: int) -> float:
    """Return how fast all threads together read arrays of some bytes, again and again."""
    threads = backends.threads()
    data = np.ones((threads, size // 4), np.float32)
    sums = np.empty(threads, np.float32)
    return 1e-9 * data.nbytes / shortest(lambda: _read(data, sums))


def region_us() -> float:
    """Return the median time of a parallel loop that does next to nothing, in microseconds."""
    from minissl.kernels.cpu.update import zero_out

    w = np.ones(16)
    zero_out(w, 1e-4)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        zero_out(w, 1e-4)
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


class Pace:
    """How fast the machine is at the moment, told by a product that always is the same.

    The product has no time of its own worth knowing; two moments are compared by it. Each thread
    multiplies matrices that stay in its second-level cache.

    Attributes
    ----------
    fastest : float
        The shortest time so far, in seconds.
    """

    SIZE = 96

    def __init__(self) -> None:
        self._a = np.ones((self.SIZE, self.SIZE), np.float32)
        self._c = np.empty((backends.threads(), self.SIZE, self.SIZE), np.float32)
        self.fastest = np.inf
        for _ in range(3):
            self._now()

    def times(self, run: Callable[[], Any], turn: float) -> float:
        """Return how many times as long as the product a run takes at the same moment.

        The product runs before and after a turn of so many seconds, whose shortest run counts.
        """
        before = self._now()
        seconds = shortest(run, turn, 1)
        return seconds / (0.5 * (before + self._now()))

    def _now(self) -> float:
        """Return how long the product takes now: the shorter of two runs, in seconds."""
        now = np.inf
        for _ in range(2):
            start = time.perf_counter()
            _multiply(self._a, self._a, self._c)
            now = min(now, time.perf_counter() - start)
        self.fastest = min(self.fastest, now)
        return now


def shortest(run: Callable[[], Any], seconds: float = 0.1, fewest: int = 4) -> float:
    """Return the shortest time of several runs; the first may compile, or warm up."""
    best, runs, end = np.inf, 0, time.perf_counter() + seconds
    while runs < fewest or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return float(best)


@parallel_kernel
def _multiply(a, b, c):
    for thread in prange(c.shape[0]):
        np.dot(a, b, c[thread])


@lane_kernel
def _sum(run):
    total = run[0] * 0
    for i in range(run.size):
        total += run[i]
    return total


@parallel_kernel
def _read(data, sums):
    for thread in prange(data.shape[0]):
        sums[thread] = _sum(data[thread])
