import numpy as np
import pytest

from minissl import backend as backends
from minissl.timing import peak


def test_the_rate_is_that_of_the_fastest_product(backend, monkeypatch):
    monkeypatch.setattr(peak, "WHILE", 0)
    for name, size in (("FILTERS", 8), ("CHANNELS", 6), ("PIXELS", 10)):
        monkeypatch.setattr(peak, name, size)
    one = peak.Peak(backends.get(backend), np.float32)
    assert one.images == (backends.threads() if backend == "numba" else 1)
    one.measure()
    assert 0 < one.seconds < float("inf")
    # what was multiplied is the product of these matrices
    w, x = one.w.reshape(8, 6).astype(float), one.x[0].reshape(6, 10)
    assert np.allclose(one.y[0].reshape(8, 10), w @ x, rtol=1e-5)
    one.seconds = 1e-3
    assert one.gflops == pytest.approx(2 * one.images * 8 * 6 * 10 / 1e-3 / 1e9)
