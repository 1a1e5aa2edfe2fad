"""One iteration in the published order, on networks small enough to recompute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minissl import Solver
from minissl.backend import to_host
from minissl.errors import ConfigError
from minissl.formats.blobs import blob_parts
from minissl.solvers.update_rules import RULES
from tests.tiny_nets import (
    give_arrays,
    make_solver,
    net_text,
    same_weights,
    solver_param,
    weights_of,
)

THRESHOLD = 1e-4


def f32(x):
    """A field of a prototxt: float32, widened."""
    return float(np.float32(x))


def momentum_of(kind):
    """The momentum of a solver; two rules have none."""
    return "" if kind in ("AdaGrad", "RMSProp") else "momentum: 0.9"


def data_gradients(solver):
    """The gradients of the data loss at the present weights, without touching the run."""
    state = solver.net.state()
    solver.net.clear_gradients()
    solver.net.forward()
    solver.net.backward()
    gradients = {p.name: to_host(p.diff).copy() for p in solver.net.parameters}
    solver.net.set_state(state)
    return gradients


def spec(fields, bias=""):
    return f"param {{ {fields} }} param {{ {bias} }}"


def unit(w):
    """Rows of length 1."""
    return w / np.linalg.norm(w, axis=1, keepdims=True)


# --- the order of an iteration ---


def test_plain_step_by_hand(backend):
    solver = make_solver(net=net_text(conv1=spec("lr_mult: 0.5", "lr_mult: 2")),
                         backend=backend, dtype="float64", zero_out=False)  # fmt: skip
    before, gradients = weights_of(solver), data_gradients(solver)
    solver.step()
    multipliers = {"conv1.0": 0.5, "conv1.1": 2.0}
    for name, weights in weights_of(solver).items():
        step = f32(0.1) * multipliers.get(name, 1.0) * gradients[name]
        assert np.abs(step).max() > 1e-4
        np.testing.assert_allclose(weights, before[name] - step, rtol=1e-12, atol=1e-15)


def test_decay_and_lasso_enter_the_momentum(backend):
    """Two steps of one weight matrix, recomputed with all terms inside the momentum buffer."""
    fields = "momentum: 0.9 weight_decay: 0.1 breadth_decay: 0.3 block_group_decay: 0.2"
    ip1 = spec(
        "decay_mult: 0.5 breadth_decay_mult: 2 block_group_lasso { xdimen: 4 ydimen: 3 }",
        "decay_mult: 0",
    )
    solver = make_solver(fields, net_text(ip1=ip1), backend=backend, dtype="float64")
    h = 0.0
    for _ in range(3):
        w, g = weights_of(solver)["ip1.0"], data_gradients(solver)["ip1.0"]  # (6, 16)
        rows = w / np.linalg.norm(w, axis=1, keepdims=True)
        tiles = w.reshape(2, 3, 4, 4)
        tiles = (tiles / np.linalg.norm(tiles, axis=(1, 3), keepdims=True)).reshape(w.shape)
        g = g + f32(0.1) * 0.5 * w + f32(0.3) * 2 * rows + f32(0.2) * tiles
        h = f32(0.9) * h + f32(0.1) * g
        solver.step()
        expected = w - h
        expected[np.abs(expected) < THRESHOLD] = 0
        np.testing.assert_allclose(weights_of(solver)["ip1.0"], expected, rtol=1e-11, atol=1e-14)


PROXIMAL = 'group_lasso_method: "proximal"'


@pytest.mark.parametrize(
    ("rule", "share"), [("SGD", 1 / (1 - f32(0.9))), ("Nesterov", 1 / (1 - f32(0.9))), ("Adam", 1)]
)
def test_a_proximal_step_follows_the_update(backend, rule, share):
    """Rows, then blocks, each by what the rate amounts to in the long run, with lr_mult."""
    fields = f'momentum: 0.9 type: "{rule}" breadth_decay: 0.02 block_group_decay: 0.05'
    ip1 = spec("lr_mult: 0.5 breadth_decay_mult: 2 block_group_lasso { xdimen: 4 ydimen: 3 }")
    net = net_text(ip1=ip1)
    options = {"backend": backend, "dtype": "float64", "zero_out": False}
    solver = make_solver(f"{fields} {PROXIMAL}", net, **options)
    plain = make_solver(f'momentum: 0.9 type: "{rule}"', net, **options)
    solver.step()
    plain.step()
    before, after = weights_of(plain), weights_of(solver)
    w = before["ip1.0"]  # (6, 16)
    rate = f32(0.1) * 0.5 * share
    norms = np.linalg.norm(w, axis=1, keepdims=True)
    w = w * np.maximum(0, 1 - rate * f32(0.02) * 2 / norms)
    tiles = w.reshape(2, 3, 4, 4)
    norms = np.linalg.norm(tiles, axis=(1, 3), keepdims=True)
    expected = (tiles * np.maximum(0, 1 - rate * f32(0.05) / norms)).reshape(w.shape)
    assert np.abs(expected - before["ip1.0"]).max() > 1e-4
    np.testing.assert_allclose(after["ip1.0"], expected, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(after["ip2.0"], before["ip2.0"])


@pytest.mark.parametrize("rule", ["SGD", "Nesterov"])
def test_where_a_proximal_run_ends_the_objective_is_stationary(rule):
    """A living group's gradient has the length lambda; a dead one's is shorter. No threshold."""
    fields = f'momentum: 0.9 type: "{rule}" kernel_shape_decay: 0.15 {PROXIMAL}'
    fixed, columns = spec("lr_mult: 0", "lr_mult: 0"), spec("kernel_shape_decay_mult: 1")
    net = net_text(conv1=fixed, ip1=fixed, ip2=columns)  # a convex problem is left
    options = {"count": 4, "backend": "numpy", "dtype": "float64", "zero_out": False}
    solver = make_solver(fields, net, **options)
    for _ in range(1000):  # always the same batch
        solver.step()
    w, g = weights_of(solver)["ip2.0"].T, data_gradients(solver)["ip2.0"].T  # (6, 3)
    alive = w.any(axis=1)
    assert 0 < np.count_nonzero(alive) < 6
    np.testing.assert_allclose(g[alive], -f32(0.15) * unit(w[alive]), rtol=1e-6, atol=1e-9)
    assert (np.linalg.norm(g[~alive], axis=1) < 0.15).all()
    penalty = f32(0.15) * np.linalg.norm(w, axis=1).sum()
    assert solver.regularization() == pytest.approx(penalty)  # displayed as ever


def test_without_decay_the_methods_are_the_same(backend):
    net = net_text(ip1=spec("breadth_decay_mult: 1"))
    solvers = [
        make_solver(f"momentum: 0.9 {method}", net, backend=backend) for method in ("", PROXIMAL)
    ]
    for _ in range(3):
        for solver in solvers:
            solver.step()
    assert same_weights(*solvers)


def test_a_proximal_step_leaves_frozen_zeros_alone(backend):
    net = net_text(ip1="connectivity_mode: DISCONNECTED_ELTWISE " + spec("breadth_decay_mult: 1"))
    solver = make_solver(f"breadth_decay: 0.1 {PROXIMAL}", net, backend=backend)
    start = solver.net.weights()
    start["ip1"][0][1:4, ::3] = 0
    solver.net.load(start)
    for _ in range(3):
        solver.step()
    w = solver.net.layer("ip1").parameters[0].data
    assert (w[1:4, ::3] == 0).all() and w[0].all()


def test_unknown_group_lasso_method():
    with pytest.raises(ConfigError, match="unknown group_lasso_method 'prox'"):
        make_solver('group_lasso_method: "prox"', backend="numpy")


def test_clipping_comes_before_the_average_of_iter_size(backend):
    """The norm is that of the summed gradients, without decay; then 1 / iter_size."""
    fields = "iter_size: 3 clip_gradients: 0.25 weight_decay: 0.5"
    solver = make_solver(fields, backend=backend, dtype="float64", zero_out=False)
    before = weights_of(solver)
    solver.net.clear_gradients()
    state = solver.net.state()
    for _ in range(3):
        solver.net.forward()
        solver.net.backward()
    summed = {p.name: to_host(p.diff).copy() for p in solver.net.parameters}
    solver.net.set_state(state)
    norm = math.sqrt(sum(np.sum(g**2) for g in summed.values()))
    assert norm > 3 * 0.25  # so that clipping after the average would act as well, differently
    solver.step()
    for name, weights in weights_of(solver).items():
        g = summed[name] * (0.25 / norm) / 3 + 0.5 * before[name]
        np.testing.assert_allclose(weights, before[name] - f32(0.1) * g, rtol=1e-11, atol=1e-14)


def test_small_gradients_are_not_clipped(backend):
    clipped, plain = (
        make_solver(f"clip_gradients: {limit}", backend=backend, dtype="float64")
        for limit in (1e6, -1)
    )
    clipped.step()
    plain.step()
    assert same_weights(clipped, plain)


def test_what_does_not_learn_is_not_part_of_the_norm(backend):
    frozen = net_text(ip2="param { lr_mult: 0 } param { lr_mult: 0 }")
    solver = make_solver("clip_gradients: 0.01", frozen, backend=backend, dtype="float64")
    solver.forward_backward()
    solver.clip_gradients()
    squares = [(p.diff**2).sum() for p in solver.net.parameters if p.layer_name != "ip2"]
    assert math.sqrt(sum(map(float, squares))) == pytest.approx(0.01, rel=1e-6)


def test_iter_size_equals_one_larger_batch(backend):
    fields = "momentum: 0.9 weight_decay: 0.01"
    split = make_solver(f"iter_size: 3 {fields}", net_text(), backend=backend, dtype="float64")
    whole = make_solver(fields, net_text(batch_size=12), backend=backend, dtype="float64")
    for _ in range(4):
        assert float(split.step()) == pytest.approx(float(whole.step()), rel=1e-12)
    for name, weights in weights_of(split).items():
        np.testing.assert_allclose(weights, weights_of(whole)[name], rtol=1e-9, atol=1e-13)


def test_average_loss():
    solver = make_solver("average_loss: 3", backend="numpy")
    losses = [solver.step() for _ in range(5)]
    assert len(set(losses)) == 5
    assert solver.smoothed_loss() == pytest.approx(sum(losses[-3:]) / 3, rel=1e-12)


def test_regularization_sums_all_terms(backend):
    fields = "weight_decay: 0.1 kernel_shape_decay: 0.3 breadth_decay: 0.2"
    conv1 = spec("kernel_shape_decay_mult: 1 breadth_decay_mult: 0", "decay_mult: 0")
    net = net_text(conv1=conv1, ip1=spec('regularization_type: "L1" breadth_decay_mult: 1'))
    solver = make_solver(fields, net, backend=backend, dtype="float64")
    w = weights_of(solver)
    conv1 = w["conv1.0"].reshape(2, 2, 9)  # columns in each of the two conv groups
    expected = 0.05 * sum(np.sum(w[n] ** 2) for n in ("conv1.0", "ip1.1", "ip2.0", "ip2.1"))
    expected += 0.1 * np.abs(w["ip1.0"]).sum()
    expected += 0.3 * np.linalg.norm(conv1, axis=1).sum()
    expected += 0.2 * np.linalg.norm(w["ip1.0"], axis=1).sum()
    assert solver.regularization() == pytest.approx(expected, rel=1e-6)


# --- group lasso, many ways ---


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("breadth_decay: 0.5", "xdimen: 16 ydimen: 1"),
        ("kernel_shape_decay: 0.5", "xdimen: 1 ydimen: 6"),
    ],
)
def test_rows_and_columns_are_blocks(kind, block, backend):
    """ip1 is 6 x 16: breadth is a block of one row, kernel_shape a block of one column."""
    name = kind.partition(":")[0]
    off = f"{name}_mult: 0"
    by_kind = net_text(conv1=spec(off, off), ip1=spec(f"{name}_mult: 1", off), ip2=spec(off, off))
    by_block = net_text(ip1=spec(f"block_group_lasso {{ {block} }}"))
    one = make_solver(kind, by_kind, backend=backend, dtype="float64")
    other = make_solver("block_group_decay: 0.5", by_block, backend=backend, dtype="float64")
    plain = make_solver(backend=backend, dtype="float64")
    for solver in (one, other, plain):
        solver.step()
        solver.step()
    assert same_weights(one, other)
    assert np.abs(weights_of(one)["ip1.0"] - weights_of(plain)["ip1.0"]).max() > 1e-3


def test_columns_of_conv_groups_are_blocks_of_a_band(backend):
    off = "kernel_shape_decay_mult: 0"
    by_kind = net_text(
        conv1=spec("kernel_shape_decay_mult: 1", off), ip1=spec(off, off), ip2=spec(off, off)
    )
    by_block = net_text(conv1=spec("block_group_lasso { xdimen: 1 ydimen: 2 }"))
    one = make_solver("kernel_shape_decay: 0.5", by_kind, backend=backend, dtype="float64")
    other = make_solver("block_group_decay: 0.5", by_block, backend=backend, dtype="float64")
    for solver in (one, other):
        solver.step()
        solver.step()
    assert same_weights(one, other)


def test_both_backends_take_the_same_steps():
    fields = "momentum: 0.9 weight_decay: 0.01 block_group_decay: 0.1 breadth_decay: 0.05"
    net = net_text(ip1=spec("block_group_lasso { xdimen: 4 ydimen: 2 }"))
    one, other = (
        make_solver(fields, net, backend=name, dtype="float64") for name in ("numpy", "numba")
    )
    for _ in range(6):
        assert one.step() == pytest.approx(other.step(), rel=1e-11)
    for name, weights in weights_of(one).items():
        np.testing.assert_allclose(weights, weights_of(other)[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", RULES)
def test_strength_zero_is_bitwise_plain(kind, backend):
    rule = f'type: "{kind}" {momentum_of(kind)} '
    blocks = net_text(
        conv1=spec("block_group_lasso { xdimen: 9 ydimen: 1 block_decay_mult: 0 }"),
        ip1=spec("block_group_lasso { xdimen: 4 ydimen: 3 } breadth_decay_mult: 0"),
    )
    sparse = make_solver(rule + "block_group_decay: 0 weight_decay: 0", blocks, backend=backend)
    plain = make_solver(rule, backend=backend)
    for _ in range(5):
        assert sparse.step() == plain.step()
    assert same_weights(sparse, plain)


def test_tiles_that_do_not_divide_are_refused():
    net = net_text(ip1=spec("block_group_lasso { xdimen: 5 ydimen: 1 }"))
    with pytest.raises(ConfigError, match="layer 'ip1', blob 0"):
        make_solver(net=net, backend="numpy")


def test_decay_proto(tmp_path):
    """The file multiplies the decay of each weight; with zeros there is none."""
    factors = np.zeros((6, 16), np.float32)
    factors[2] = 3
    (tmp_path / "ip1.binaryproto").write_bytes(b"".join(blob_parts(factors)[1]))
    one = spec(f'decay_proto: "{tmp_path / "ip1.binaryproto"}"')
    solvers = [
        make_solver("weight_decay: 0.1", net_text(ip1=ip1), backend="numpy") for ip1 in (one, "")
    ]
    for solver in solvers:
        weights = solver.net.layer("ip1").parameters[0]
        weights.diff[...] = 0
        solver.weight_decay(2, weights)
    ours, plain = (solver.net.layer("ip1").parameters[0].diff for solver in solvers)
    np.testing.assert_allclose(ours, plain * factors, rtol=1e-6)
    assert (ours[2] != 0).all() and not ours[[0, 1, 3]].any()


def test_decay_proto_that_is_missing():
    net = net_text(ip1=spec('decay_proto: "nowhere.binaryproto"'))
    with pytest.raises(ConfigError, match=r"There is no decay_proto nowhere\.binaryproto"):
        make_solver(net=net, backend="numpy")


# --- zero-out and frozen zeros ---


def small_values(solver):
    """Put values below the threshold into weights and biases whose gradients are zero."""
    for parameter in solver.net.parameters:
        parameter.data.reshape(-1)[:2] = [0.5e-4, -0.99e-4]
        parameter.data.reshape(-1)[2] = np.float32(1e-4) if parameter.size > 2 else 0
        parameter.spec.lr_mult = 0


@pytest.mark.parametrize(
    ("options", "weights_zeroed", "biases_zeroed"),
    [
        ({}, True, False),
        ({"original": True}, True, True),
        ({"zero_out": False}, False, False),
        ({"zero_out": False, "original": True}, False, False),
    ],
)
def test_zero_out(options, weights_zeroed, biases_zeroed, backend):
    solver = make_solver(backend=backend, **options)
    small_values(solver)
    solver.step()
    for parameter in solver.net.parameters:
        zeroed = weights_zeroed if parameter.role == "weight" else biases_zeroed
        assert (parameter.data.reshape(-1)[:2] == 0).all() == zeroed, parameter.name
        assert parameter.data.reshape(-1)[2] == np.float32(1e-4)  # strict: the threshold stays


FROZEN = "connectivity_mode: {mode} "


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("mode", ["DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"])
def test_frozen_zeros_stay(kind, mode, backend):
    """Loaded with momentum, decay and lasso at work; a lone zero is free under GRPWISE."""
    connectivity = f"connectivity_mode: {mode} "
    net = net_text(conv1=connectivity, ip1=connectivity)
    fields = f'type: "{kind}" {momentum_of(kind)} weight_decay: 0.01'
    start = make_solver(fields, net, backend=backend)
    weights = {name: [np.array(b) for b in blobs] for name, blobs in start.net.weights().items()}
    weights["ip1"][0][2] = 0  # a row
    weights["ip1"][0][:, 5] = 0  # a column
    weights["ip1"][0][4, 7] = 0  # a lone zero
    weights["conv1"][0][:2, 0, 1, 1] = 0  # a column of the first conv group only
    solver = Solver(solver_param(fields, net), weights=weights, backend=backend)
    give_arrays(solver.net)
    # momentum that was there before must not move frozen weights either
    for history in solver.history:
        for buffer in history:
            buffer[...] = 0.01
    for _ in range(6):
        solver.step()
    after = weights_of(solver)
    ip1, conv1 = after["ip1.0"], after["conv1.0"]
    assert (ip1[2] == 0).all() and (ip1[:, 5] == 0).all()
    assert (conv1[:2, 0, 1, 1] == 0).all()
    assert (conv1[2:, 0, 1, 1] != 0).any()
    assert (ip1[4, 7] == 0) == (mode == "DISCONNECTED_ELTWISE")
    moved = ip1[[0, 1, 3]][:, :5] != weights["ip1"][0][[0, 1, 3]][:, :5]
    assert moved.any()
    assert set(solver.frozen()) == {"conv1", "ip1"}


def test_nothing_is_frozen_without_loading(backend):
    solver = make_solver(net=net_text(ip1="connectivity_mode: DISCONNECTED_ELTWISE"))
    assert solver.frozen() == {}
