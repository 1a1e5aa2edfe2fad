"""What only a real GPU can show; the rest of ``pytest -m gpu`` is the suite of all backends."""

import numpy as np
import pytest

from minissl import backend


@pytest.mark.gpu
def test_a_gpu_computes_and_keeps_time():
    if not backend.has_gpu():
        pytest.skip("no NVIDIA GPU, or no CuPy: the suite of the backends runs without it")
    kernels = backend.get("cupy")
    assert kernels.device_bytes() > 0
    timer = kernels.Timer()
    times = []
    for size in (16, 2048):
        a, out = (kernels.xp.ones((size, size), "float32") for _ in range(2))
        for _ in range(2):  # the first call loads the library
            timer.start()
            kernels.inner_product_forward(a, a, None, out)
            seconds = timer.stop()
        times.append(seconds)
        assert np.array_equal(backend.to_host(out), np.full((size, size), size, "float32"))
    assert all(seconds > 0 for seconds in times)
