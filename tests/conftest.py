"""What the tests of networks and solvers share; the nets themselves are in tests/tiny_nets.py."""

from __future__ import annotations

import os

import pytest

from minissl.backend import has_gpu
from minissl.kernels.cpu.micro import isa
from tests.gpu import double

#: MINISSL_STAND_IN=1 runs the cupy backend by a stand-in for CuPy, where no GPU is
STAND_IN = os.environ.get("MINISSL_STAND_IN", "0") not in ("", "0")

#: the backends that can be tested here, ``cupy`` with the marker ``gpu``
BACKENDS = ["numpy", "numba"]
if STAND_IN or has_gpu():
    BACKENDS.append(pytest.param("cupy", marks=pytest.mark.gpu))  # type: ignore[arg-type]

#: NUMBA_DISABLE_JIT=1 turns compiled loops into Python: right, but thousands of times slower
JIT_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

needs_compiler = pytest.mark.skipif(
    JIT_DISABLED, reason="too slow where NUMBA_DISABLE_JIT turns the compiler off"
)
needs_vectors = pytest.mark.skipif(not isa.available(), reason="this CPU has no vectors to use")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """The name of each backend in turn."""
    if request.param == "cupy" and STAND_IN:
        with double.installed():
            yield request.param
    else:
        yield request.param
