"""How the kernels are compiled, and the scratch memory they share."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import cfunc, get_thread_id, njit, prange, types
from numba import config as numba_config
from numba.core import event
from numba.core.compiler import CompilerBase, DefaultPassBuilder

__all__ = [
    "PARTS",
    "aligned",
    "apart_kernel",
    "c_function",
    "config",
    "fused_kernel",
    "get_thread_id",
    "kernel",
    "lane_kernel",
    "lines",
    "parallel_kernel",
    "prange",
    "scratch",
    "step",
    "unsigned",
]

log = logging.getLogger("minissl")

config: Any = numba_config

# A thread that waits for others spins for some ten microseconds, as long as Python takes from one
# kernel to the next, then sleeps; to wake it would take about 80. OpenMP's default, to spin for
# about a millisecond, is hardly faster on an idle machine, and ten times slower on one where
# something else needs a core. Read by the library when the first parallel kernel runs.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# OpenMP first: TBB takes longer to enter a parallel loop, and the workqueue a hundred times as
# long.
if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

#: bytes of a cache line, and of the widest vector
CACHE_LINE = 64

#: parts into which every long sum is split; fixed, so that results never depend on the threads
PARTS = 16


def _cache_folder() -> str:
    """Return where compiled kernels are kept: a folder for exactly this version of their sources.

    Numba notices a change of a function's own file, but not of a file whose functions it inlined;
    a folder named by the digest of all sources does.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return str(Path(base) / "minissl" / "compiled" / digest.hexdigest()[:16])


_FOLDER = config.CACHE_DIR or _cache_folder()


def _cached(decorator: Callable, function: Callable, **options) -> Any:
    """Apply a decorator of Numba, its compiled code cached in our folder."""
    before, config.CACHE_DIR = config.CACHE_DIR, _FOLDER
    try:
        return decorator(cache=True, **options)(function)
    except RuntimeError:  # no folder to cache in can be written: compile in every process
        return decorator(**options)(function)
    finally:
        config.CACHE_DIR = before


#: seconds between messages about what is compiled, and without any until it is told anew
PAUSE, SILENCE = 10, 60


class _Announcer(event.Listener):
    """Says that kernels are compiled, and now and then which: the first use of many takes seconds.

    One line at the beginning, then one every ten seconds; each kernel is told to those who debug.
    """

    clock = staticmethod(time.monotonic)
    last = -math.inf  # when a kernel was compiled
    depth = 0  # a kernel compiles those that it calls
    count = 0
    said = 0.0  # when

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        # without a module where exec made it
        package, _, module = (function.__module__ or "").rpartition(".")
        if self.depth == 0 and package.startswith("minissl."):
            self.tell(f"{module}.{function.__name__}")
        self.depth += 1

    def on_end(self, event: Any) -> None:
        self.depth -= 1

    def tell(self, what: str) -> None:
        """Tell of one more kernel."""
        now = self.clock()
        self.count = self.count + 1 if now - self.last < SILENCE else 1
        self.last = now
        if self.count == 1:
            log.info("compiling kernels for this processor, once; kept in %s", _FOLDER)
            self.said = now
        elif now - self.said >= PAUSE:
            log.info("still compiling, kernel %d: %s", self.count, what)
            self.said = now
        log.debug("compiling %s", what)


announcer = _Announcer()
event.register("numba:compile", announcer)


def _compiler(**options) -> Callable:
    """Return a decorator that compiles with these options and caches in our folder.

    A division by zero gives infinity or NaN, as in NumPy: a loop that had to look out for an
    exception would not become vector code.
    """
    options["error_model"] = "numpy"
    return lambda function: _cached(njit, function, nogil=True, **options)


def c_function(function: Callable, what: str) -> Any:
    """Compile a function of int64 numbers now, to be called by its ``address``.

    It is announced, unless the code is found on disk.

    Parameters
    ----------
    function : callable
        Returns nothing. Numbers it closes over are part of its name on disk.
    what : str
        What it is, for the message.
    """
    arguments = [types.int64] * function.__code__.co_argcount
    compiled = _cached(lambda **options: cfunc(types.void(*arguments), **options), function)
    if not compiled.cache_hits:
        announcer.tell(what)
    return compiled


class _NoOverlap(CompilerBase):
    """Numba's usual compiler, told that the arrays given to a function never overlap.

    Else a loop that reads one array and writes another asks before it starts whether they do, which
    costs as much as a short loop itself, and keeps nothing that it writes in registers.
    """

    def define_pipelines(self) -> list[Any]:
        self.state.flags.noalias = True
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


#: compile a helper or a serial kernel
kernel = _compiler()
#: the same, for arrays that never overlap
apart_kernel = _compiler(pipeline_class=_NoOverlap)
#: the same, with a product and a sum fused into one instruction where the processor has it
fused_kernel = _compiler(fastmath={"contract"}, pipeline_class=_NoOverlap)
#: as ``kernel``, but fused in this way, and with the sum of a loop taken in several lanes side by
#: side: its order is fixed when it is compiled, so it depends on nothing but the number of terms
lane_kernel = _compiler(fastmath={"contract", "reassoc"})
#: compile a kernel whose ``prange`` loops run on all threads
parallel_kernel = _compiler(parallel=True)

#: type of an index that cannot be negative (see lowering.lower_row); plain int without the compiler
unsigned = int if config.DISABLE_JIT else np.uint64

#: shapes of one buffer that are remembered
MOST_VIEWS = 64

_memory = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that is reused from call to call (per Python thread).

    It begins at a cache line, so that vectors of a row whose length is a multiple of one are
    never divided between two.
    """
    buffers = _memory.__dict__.setdefault("buffers", {})
    dtype = np.dtype(dtype)
    found = buffers.get((name, dtype))
    if found and shape in found[1]:  # a small network asks more often than it computes
        return found[1][shape]
    size = math.prod(shape)
    if found is None or found[0].size < size:
        memory = np.empty(size * dtype.itemsize + CACHE_LINE, np.uint8)
        first = -memory.ctypes.data % CACHE_LINE
        flat = memory[first : first + size * dtype.itemsize].view(dtype)
        found = buffers[name, dtype] = flat, {}
    views = found[1]
    if len(views) >= MOST_VIEWS:
        views.clear()
    views[shape] = found[0][:size].reshape(shape)
    return views[shape]


def lines(name: str, length: int, dtype: np.dtype, each: int = 1) -> np.ndarray:
    """Return scratch of every thread for lines of numbers: (threads, each, length or more).

    The room behind a line keeps two threads from writing to one cache line.
    """
    room = 128 // np.dtype(dtype).itemsize
    return scratch(name, (config.NUMBA_NUM_THREADS, each, length + room), dtype)


def aligned(values: np.ndarray) -> np.ndarray:
    """Return a copy of a one-dimensional array that begins on a cache line (64 bytes)."""
    buffer = np.empty(values.size + 64 // values.itemsize, values.dtype)
    copy = buffer[-buffer.ctypes.data % 64 // values.itemsize :][: values.size]
    copy[:] = values
    return copy


def step(n: int, parts: int = PARTS) -> int:
    """Length of each part when n things are split into at most ``parts`` equal runs."""
    return max(1, -(-n // parts))
