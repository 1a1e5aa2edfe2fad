"""Nets of rarer layers, which are composed of array operations: the same numbers on the device."""

import numpy as np
import pytest

from minissl import Solver
from minissl.backend import to_host
from tests.test_published_features import NETS, solver_of


@pytest.mark.parametrize("name", ["autoencoder, two losses", "siamese, shared weights"])
def test_training_follows_the_definition(gpu, name):
    solvers = []
    for backend in ("numpy", "cupy"):
        solver = Solver(solver_of(NETS[name]), backend=backend, dtype="float64")
        solver.solve(3)
        solvers.append(solver)
    one, other = solvers
    assert other.loss == pytest.approx(one.loss, rel=1e-9)
    for a, b in zip(one.net.parameters, other.net.parameters, strict=True):
        np.testing.assert_allclose(to_host(b.data), a.data, rtol=1e-9, atol=1e-12)
