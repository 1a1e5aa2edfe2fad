"""Frozen rows and columns are left out of the products, and nothing else changes."""

import numpy as np
import pytest

from minissl import Solver
from minissl.conv_modes import frozen
from minissl.formats.prototxt import parse_net, parse_solver
from tests.conftest import needs_compiler, needs_vectors
from tests.tiny_nets import net_text

FROZEN = "connectivity_mode: DISCONNECTED_GRPWISE"
SOLVER = 'base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" weight_decay: 0.01 max_iter: 9 %s'


def solver_of(backend="numpy", fields="", zeros="both", dtype="float64", groups=2, **options):
    param = parse_solver(SOLVER % fields)
    text = net_text(conv1=FROZEN).replace("group: 2", f"group: {groups}")
    param.net_param.CopyFrom(parse_net(text))
    solver = Solver(param, backend=backend, dtype=dtype, **options)
    rng = np.random.default_rng(5)
    (data,) = (layer for layer in solver.net.layers if layer.is_data)
    data.set_arrays(rng.uniform(size=(8, 2, 6, 6)), rng.integers(3, size=8))
    conv1 = solver.net.parameters[0]
    w = rng.normal(size=conv1.shape)
    if zeros in ("rows", "both"):
        w[[0, 3]] = 0
    if zeros in ("columns", "both"):
        w[:2, :, 1] = 0
    if zeros == "all":
        w[:] = 0
    b = rng.normal(size=4)
    solver.net.load({"conv1": [w, b]})
    return solver


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("zeros", ["rows", "columns", "both", "all", "none"])
def test_training_is_the_same_with_and_without_them(backend, zeros):
    packed, dense = solver_of(backend, zeros=zeros), solver_of(backend, zeros=zeros)
    for parameter in dense.net.parameters:
        parameter.skip_frozen = False
    packed.solve()
    dense.solve()
    assert packed.loss == pytest.approx(dense.loss, rel=1e-10)
    for one, other in zip(packed.net.parameters, dense.net.parameters, strict=True):
        assert np.allclose(one.data, other.data, rtol=1e-9, atol=1e-11)
    conv1 = packed.net.layers[1]
    assert (conv1.unfrozen() is None) == (zeros == "none")


@needs_compiler
@needs_vectors
@pytest.mark.parametrize("zeros", ["rows", "both"])
def test_training_is_the_same_by_living_filters(zeros, monkeypatch):
    monkeypatch.setattr(frozen, "WORTH", np.inf)
    narrow, dense = (solver_of("numba", zeros=zeros, dtype="float32", groups=1) for _ in range(2))
    for parameter in dense.net.parameters:
        parameter.skip_frozen = False
    narrow.solve()
    dense.solve()
    assert narrow.net.layers[1].unfrozen().filters.tolist() == [1, 2]
    assert narrow.loss == pytest.approx(dense.loss, rel=1e-4)
    for one, other in zip(narrow.net.parameters, dense.net.parameters, strict=True):
        assert np.allclose(one.data, other.data, rtol=1e-3, atol=1e-4)
    assert not narrow.net.parameters[0].data[[0, 3]].any()


@pytest.mark.parametrize(
    ("fields", "options", "skips"),
    [
        ("", {}, True),
        ("clip_gradients: 5", {}, False),
        ("debug_info: true", {}, False),
        ("", {"original": True}, False),
    ],
)
def test_all_gradients_are_there_where_all_are_measured(fields, options, skips):
    solver = solver_of(fields=fields, **options)
    solver.step()
    gradient = solver.net.parameters[0].diff
    mask = solver.net.parameters[0].mask
    assert mask.min() == 0
    assert solver.net.parameters[0].skip_frozen == skips
    assert (solver.net.layers[1].unfrozen() is not None) == skips
    assert np.isfinite(gradient).all()


def test_a_new_mask_is_noticed():
    solver = solver_of(zeros="rows")
    solver.step()
    kept = solver.net.layers[1].unfrozen().multiply_adds
    w = np.array(solver.net.parameters[0].data)
    w[1] = 0
    solver.net.load({"conv1": [w, np.zeros(4)]})
    solver.step()
    assert solver.net.layers[1].unfrozen().multiply_adds < kept
