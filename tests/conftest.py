"""What the tests of networks and solvers share; the nets themselves are in tests/tiny_nets.py."""

from __future__ import annotations

import os

import pytest

#: NUMBA_DISABLE_JIT=1 turns compiled loops into Python: right, but thousands of times slower
JIT_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")

needs_compiler = pytest.mark.skipif(
    JIT_DISABLED, reason="too slow where NUMBA_DISABLE_JIT turns the compiler off"
)


@pytest.fixture(params=["numpy", "numba"])
def backend(request):
    """The name of each backend in turn."""
    return request.param
