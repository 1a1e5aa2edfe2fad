"""What a bad setting costs: measured here and now, in a second or less each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from minissl import backend as backends
from minissl.machine import probes

#: Prints 1e9 operations a second of the GEMM that compiled kernels call.
_GEMM = """
import time
import numpy as np
from scipy.linalg.blas import sgemm
a = np.ones((512, 512), np.float32, order="F")
sgemm(1, a, a)
best, end = 1e9, time.perf_counter() + 0.25
while time.perf_counter() < end:
    start = time.perf_counter()
    sgemm(1, a, a)
    best = min(best, time.perf_counter() - start)
print(2e-9 * 512**3 / best)
"""


class Rates(NamedTuple):
    """GFLOP/s as the machine is set up, and as it could be."""

    here: float
    free: float


def forced_blas(variables: Sequence[str]) -> Rates | None:
    """Measure GEMM on one thread with and without variables that force kernels upon BLAS.

    Each measurement is a process of its own, since BLAS reads them when it is loaded. None where
    the processes cannot be run.
    """
    without = {name: value for name, value in os.environ.items() if name not in variables}
    try:
        return Rates(_gemm_rate(os.environ), _gemm_rate(without))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _gemm_rate(environment: Mapping[str, str]) -> float:
    environment = {**environment, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", _GEMM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return float(run.stdout)


def threads_in_threads() -> float:
    """Return how many times longer a convolution takes while BLAS keeps threads of its own.

    minissl holds BLAS to one thread while it computes (:func:`backend.single_threaded_blas`);
    this is what it saves by that.
    """
    kernels = backends.get("numba")
    x, w = np.ones((16, 16, 16, 16), np.float32), np.ones((64, 16, 5, 5), np.float32)
    y = np.empty((16, 64, 12, 12), np.float32)

    def run() -> None:
        kernels.conv_forward(x, w, None, (1, 1), (0, 0), (1, 1), 1, y)

    free = probes.shortest(run, 0.05)
    with backends.single_threaded_blas():
        return free / probes.shortest(run, 0.05)


def vector_bits() -> tuple[int, int]:
    """Return how wide the CPU's vectors are, and those of the code that is compiled for it."""
    from llvmlite import binding
    from numba.core.registry import cpu_target

    host = {name for name, has in binding.get_host_cpu_features().items() if has}
    # (triple, name of the CPU, "+avx2,-avx512f,..."); follows NUMBA_CPU_FEATURES
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return _bits(host), _bits({name[1:] for name in features if name.startswith("+")})


def _bits(features: set[str]) -> int:
    return next((bits for name, bits in (("avx512f", 512), ("avx2", 256)) if name in features), 128)
