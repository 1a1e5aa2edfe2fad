"""What the layer tests share."""

from __future__ import annotations

import pytest

from minissl import backend


@pytest.fixture(params=["numpy", "numba"])
def kernels(request):
    """Both backends in turn."""
    return backend.get(request.param)
