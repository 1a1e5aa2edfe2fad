"""The kernels under test: on a GPU where there is one, and on the CPU through a stand-in for CuPy.

The stand-in (double.py) runs the same CUDA sources through a shim; it needs a C++ compiler.
"""

import pytest

from minissl import backend
from tests.gpu import double, shim

KERNELS = ["stand-in"]
if backend.has_gpu():
    KERNELS.append(pytest.param("device", marks=pytest.mark.gpu))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=KERNELS)
def gpu(request):
    """The kernels of the cupy backend."""
    if request.param == "device":
        yield backend.get("cupy")
        return
    if not shim.COMPILER:
        pytest.skip("no C++ compiler to run CUDA sources on the CPU with")
    with double.installed():
        yield backend.get("cupy")
