"""How a trained convolution runs: which pass is lowered, and that it changes only roundings."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import backend, machine
from minissl.conv_modes import ConvShape
from minissl.conv_modes.training import TrainedConvolution
from minissl.machine.constants import DEFAULTS, Machine
from tests.conftest import needs_compiler, needs_vectors

SHAPE = ConvShape(8, (16, 16), 16, (3, 3), pad=(1, 1))
PASSES = ("forward", "weights", "input")


def trained(shape=SHAPE, name="numba", dtype="float32", lowers=False):
    return TrainedConvolution(shape, 4, backend.get(name), dtype, lowers)


@needs_compiler
@needs_vectors
def test_the_model_decides(monkeypatch):
    assert "lowered" not in trained().passes().values()
    slow_tiles = {n: {**c, "tile": 1000.0} for n, c in DEFAULTS.constants.items()}
    monkeypatch.setattr(machine, "current", lambda: Machine(slow_tiles))
    assert set(trained().passes().values()) == {"lowered"}


@pytest.mark.parametrize(
    "options", [{"lowers": True}, {"dtype": "float64"}, {"name": "numpy"}], ids=str
)
def test_lowered_wherever_tiles_do_not_apply(options):
    assert set(trained(**options).passes().values()) == {"lowered"}


def test_lowered_without_vectors(monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", "generic")
    assert set(trained().passes().values()) == {"lowered"}


@needs_compiler
@needs_vectors
def test_both_ways_agree():
    rng = np.random.default_rng(0)
    x, d_y = (rng.standard_normal((5, c, 16, 16)).astype("float32") for c in (8, 16))
    w, b = rng.standard_normal((16, 8, 3, 3)).astype("float32"), np.ones(16, "float32")
    results = []
    for lowers in (True, False):
        y, d_x, d_w, d_b = (np.zeros_like(a) for a in (d_y, x, w, b))
        ways = trained(lowers=lowers)
        with backend.single_threaded_blas():
            ways.forward(x, w, b, y)
            ways.backward_weights(x, d_y, d_w, d_b)
            ways.backward_input(d_y, w, d_x)
        results.append((y, d_x, d_w, d_b))
    for lowered, direct in zip(*results, strict=True):
        assert np.allclose(lowered, direct, rtol=1e-5, atol=1e-5 * np.abs(lowered).max())
