"""Statistics of BatchNorm under training: forward passes measure them, nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_nets import give_arrays, make_solver, same_weights, weights_of

every_backend = pytest.mark.parametrize("backend", ["numpy", "numba"])

NET = """
name: "Normalized"
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 4 channels: 2 height: 6 width: 6 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "bn1" }
layer { name: "scale1" type: "Scale" bottom: "bn1" top: "bn1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "bn1" top: "bn1" }
layer { name: "ip1" type: "InnerProduct" bottom: "bn1" top: "ip1"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""

FIELDS = (
    "momentum: 0.9 weight_decay: 0.1 test_iter: 1 test_interval: 100 test_initialization: false "
)


def solver_of(backend, fields="", **options):
    return make_solver(FIELDS + fields, net=NET, backend=backend, **options)


def statistics(solver):
    return [p for p in solver.net.parameters if p.role == "statistic"]


@every_backend
@pytest.mark.parametrize("rule", ["SGD", "Nesterov", "Adam"])
def test_they_are_those_of_the_forward_passes(rule, backend):
    solver = solver_of(backend, f'type: "{rule}" base_lr: 0.01')
    mean, variance, factor = (p.data for p in statistics(solver))
    expected = np.zeros(3)
    for _ in range(5):
        solver.step()
        x = np.asarray(solver.net.blobs["conv1"].data, "float64")
        expected = 0.999 * expected + x.mean(axis=(0, 2, 3))
    assert np.allclose(mean, expected, rtol=1e-5, atol=1e-6)
    assert factor == pytest.approx(sum(0.999**i for i in range(5)))
    assert (variance > 0).all()
    assert all(not np.any(p.diff) for p in statistics(solver))


@every_backend
def test_zero_out_leaves_small_ones_alone_unless_it_follows_the_original(backend):
    for original in (False, True):
        solver = solver_of(backend, original=original)
        scale, bias = solver.net.layer("scale1").parameters
        for parameter in (*statistics(solver)[:2], scale, bias):
            parameter.spec.lr_mult = 0
            parameter.data[...] = 1e-5
        solver.net.layer("conv1").parameters[0].data[...] = 0
        solver.net.layer("conv1").parameters[1].data[...] = 0  # the batch adds mean and variance 0
        solver.step()
        for parameter in (*statistics(solver)[:2], scale, bias):
            assert (parameter.data == 0).all() == original, parameter.name


@every_backend
def test_they_count_as_regularization_in_the_original_only(backend):
    r = {}
    for original in (False, True):
        solver = solver_of(backend, original=original)
        for parameter in solver.net.parameters:
            parameter.data[...] = 0
        statistics(solver)[1].data[...] = 2
        r[original] = solver.regularization()
    assert r == {False: 0, True: pytest.approx(0.1 / 2 * 3 * 2**2)}


@every_backend
def test_no_decay_and_no_clipping_reaches_them(backend):
    solver = solver_of(backend, "clip_gradients: 0.01", lean=False)
    for _ in range(3):
        solver.step()
    before = [p.data.copy() for p in statistics(solver)]
    solver.net.layer("bn1").uses_batch = False
    solver.step()
    for parameter, values in zip(statistics(solver), before, strict=True):
        assert np.array_equal(parameter.data, values)


@every_backend
def test_a_test_net_uses_them_and_leaves_them_as_they_are(backend):
    solver = solver_of(backend)
    for _ in range(3):
        solver.step()
    before = weights_of(solver)
    solver.test()
    for name, values in weights_of(solver).items():
        assert np.array_equal(values, before[name])
    net = solver.test_nets[0]
    mean, variance, factor = (np.asarray(p.data) for p in net.layer("bn1").parameters)
    scale, bias = (np.asarray(p.data)[:, None, None] for p in net.layer("scale1").parameters)
    x = np.asarray(net.blobs["conv1"].data)
    y = (x - (mean / factor)[:, None, None]) / np.sqrt(variance / factor + 1e-5)[:, None, None]
    expected = np.maximum(scale * y + bias, 0)
    assert np.allclose(net.blobs["bn1"].data, expected, rtol=1e-4, atol=1e-5)


@every_backend
def test_a_snapshot_holds_them(backend, tmp_path):
    straight = solver_of(backend, run=tmp_path)
    for _ in range(3):
        straight.step()
    path = straight.snapshot()
    resumed = solver_of(backend)
    resumed.restore(path)
    give_arrays(straight.net)
    give_arrays(resumed.net)
    assert same_weights(resumed, straight)
    for _ in range(3):
        assert resumed.step() == straight.step()
    assert same_weights(resumed, straight)
