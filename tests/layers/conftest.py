"""What the layer tests share."""

from __future__ import annotations

import pytest

from minissl import backend as backends


@pytest.fixture
def every_kernels(backend):
    """The kernels of each backend in turn, those of a GPU too."""
    return backends.get(backend)


@pytest.fixture(params=["numpy", "numba"])
def kernels(request):
    """The kernels of each backend whose arrays are NumPy's."""
    return backends.get(request.param)
