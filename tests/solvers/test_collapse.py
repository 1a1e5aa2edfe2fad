"""A layer that loses all of its groups within the first epoch stops the run, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import Solver
from minissl.errors import CollapseError
from minissl.solvers.collapse import EVERY, UNKNOWN_EPOCH, epoch_of, is_due, vanished
from tests.tiny_nets import (
    DIGITS,
    make_net,
    make_solver,
    net_text,
    same_weights,
    solver_param,
)

#: conv1 (4 filters of 9) and ip1 have rows; 24 images in batches of 4 are 6 iterations an epoch
ROWS = "param { breadth_decay_mult: 1 }"
LETHAL = "breadth_decay: 50 momentum: 0.9 max_iter: 40"
GENTLE = "breadth_decay: 0.02 momentum: 0.9 max_iter: 12"


def solver_of(fields, net=None, **options):
    return make_solver(fields, net or net_text(ip1=ROWS), backend="numpy", **options)


@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_too_large_a_decay_stops_the_run(backend, method, tmp_path):
    fields = f'{LETHAL} group_lasso_method: "{method}"'
    solver = make_solver(fields, net_text(ip1=ROWS), backend=backend, run=tmp_path)
    with pytest.raises(CollapseError) as told:
        solver.solve()
    assert (told.value.layer, told.value.iteration) == ("ip1", 6)
    assert solver.iteration == 6  # the end of the epoch, the first time to look
    for words in ("iteration 6", "'ip1'", "16x1", "breadth_decay 50", "halve it", "minissl lambda"):
        assert words in str(told.value)
    (snapshot,) = tmp_path.glob("*_iter_6.safetensors")
    assert str(snapshot) in str(told.value)


def test_a_snapshot_of_that_iteration_is_not_written_twice(tmp_path):
    solver = solver_of(f"{LETHAL} snapshot: 6", run=tmp_path)
    saved = []
    solver.reporter.saved = lambda solver, path: saved.append(path)
    with pytest.raises(CollapseError):
        solver.solve()
    assert len(saved) == 1


def test_without_a_run_folder_nothing_is_said_of_a_file():
    with pytest.raises(CollapseError) as told:
        solver_of(LETHAL).solve()
    assert "saved" not in str(told.value)


@pytest.mark.parametrize("options", [{"collapse_check": False}, {"original": True}])
def test_it_can_be_switched_off(options):
    solver = solver_of(LETHAL, **options)
    solver.solve()
    assert solver.iteration == 40


def test_a_run_that_goes_on_is_bitwise_the_same():
    fields = f'{GENTLE} lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 5 stepvalue: 5'
    watched, free = solver_of(fields), solver_of(fields, collapse_check=False)
    for solver in (watched, free):
        solver.solve()
    assert watched.iteration == 12 and watched.steps_passed == free.steps_passed == 3
    assert same_weights(watched, free)


@pytest.mark.parametrize("checked", [True, False])
def test_a_resumed_run_knows_what_was_zero_from_the_start(checked, tmp_path):
    fields = "breadth_decay: 0.02 momentum: 0.9 max_iter: 30 snapshot: 5"
    net = net_text(ip1=ROWS)
    weights = make_net(net, backend="numpy").weights()
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in weights.items()}
    weights["ip1"][0][...] = 0
    frozen = net.replace('name: "ip1"', 'name: "ip1" connectivity_mode: DISCONNECTED_ELTWISE')
    straight = make_solver(
        fields, frozen, weights=weights, count=120, backend="numpy", run=tmp_path,
        collapse_check=checked,
    )  # fmt: skip
    straight.solve()
    resumed = make_solver(fields, frozen, count=120, backend="numpy")
    resumed.restore(tmp_path / "Tiny_iter_5.safetensors")
    resumed.solve()
    assert same_weights(straight, resumed)


def test_a_resumed_run_stops_again_and_can_go_on(tmp_path):
    """A snapshot before the end of an epoch, in which the layer is dead already."""
    dead = solver_of(LETHAL, count=120, run=tmp_path)
    with pytest.raises(CollapseError) as first:
        dead.solve()
    assert first.value.iteration == EVERY
    again = solver_of(LETHAL, count=120)
    again.restore(dead.last_snapshot)
    with pytest.raises(CollapseError) as second:
        again.solve()
    assert second.value.iteration == EVERY  # before anything is trained
    free = solver_of(LETHAL, count=120, collapse_check=False)
    free.restore(dead.last_snapshot)
    free.solve()
    assert free.iteration == 40


def test_after_the_first_epoch_a_layer_may_die():
    solver = solver_of("breadth_decay: 0.02 max_iter: 30")
    solver.solve(7)
    solver.net.layer("ip1").parameters[0].data[...] = 0
    solver.param.base_lr = 0
    solver.solve()
    assert solver.iteration == 30
    assert vanished(solver, 2)


def test_a_layer_that_was_zero_before_is_not_lost():
    solver = solver_of(LETHAL)
    solver.net.layer("ip1").parameters[0].data[...] = 0
    solver.param.base_lr = 0
    solver.solve(5)
    solver.solve()  # in two parts: at the beginning of the second it is zero as well
    assert solver.iteration == 40


def test_a_layer_that_is_one_group_may_die():
    """Depth: ip1 is 6 x 16. Beside rows it is a layer like any other."""
    depth = "block_group_lasso { xdimen: 16 ydimen: 6 }"
    fields = "block_group_decay: 50 momentum: 0.9 max_iter: 40"
    solver = solver_of(fields, net_text(ip1=f"param {{ {depth} }}"))
    solver.solve()
    assert solver.iteration == 40
    rows = "block_group_lasso { xdimen: 16 ydimen: 1 }"
    with pytest.raises(CollapseError):
        solver_of(fields, net_text(ip1=f"param {{ {depth} {rows} }}")).solve()


def test_a_bias_may_die():
    bias = "param { lr_mult: 1 } param { breadth_decay_mult: 1 }"
    solver = solver_of(LETHAL, net_text(ip1=bias))
    solver.solve()
    assert solver.iteration == 40


def test_all_decays_that_did_it_are_named():
    both = "param { breadth_decay_mult: 1 kernel_shape_decay_mult: 1 }"
    with pytest.raises(CollapseError, match="kernel_shape_decay 40 and breadth_decay 50 are too"):
        solver_of(f"{LETHAL} kernel_shape_decay: 40", net_text(ip1=both)).solve()


# --- when is an epoch over ---


def due(solver, last):
    looks = []
    for i in range(1, last + 1):
        solver.iteration = i
        if is_due(solver):
            looks.append(i)
    return looks


def test_it_looks_every_few_iterations_of_the_first_epoch_and_at_its_end():
    solver = make_solver("max_iter: 1000", count=100, backend="numpy")
    assert epoch_of(solver) == 25
    assert due(solver, 100) == [10, 20, 25]


def test_it_looks_at_the_end_of_a_shorter_run():
    solver = make_solver("max_iter: 13", count=100, backend="numpy")
    assert due(solver, 13) == [10, 13]


def test_batches_of_one_update_count_together():
    assert epoch_of(make_solver("iter_size: 2", count=100, backend="numpy")) == 13


def test_an_epoch_of_a_data_set():
    """5,000 digits in batches of 6."""
    assert epoch_of(Solver(solver_param(net=DIGITS), backend="numpy")) == 834


def test_where_the_records_are_not_known_many_iterations_stand_for_an_epoch():
    solver = Solver(solver_param(), backend="numpy")  # MemoryData without arrays
    assert epoch_of(solver) == UNKNOWN_EPOCH
    assert due(solver, 30) == [10, 20, 30]


# --- what is gone ---


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    scale=st.floats(0.01, 1),
    decay=st.floats(0.001, 1),
    momentum=st.floats(0, 0.95),
    proximal=st.booleans(),
    dead=st.booleans(),
)
def test_gone_is_zero_or_within_one_step_of_zero(seed, scale, decay, momentum, proximal, dead):
    method = "proximal" if proximal else "subgradient"
    fields = f'breadth_decay: {decay} momentum: {momentum} group_lasso_method: "{method}"'
    solver = solver_of(fields, net_text(ip1="param { lr_mult: 0.5 breadth_decay_mult: 2 }"))
    solver.iteration = 1
    weights = solver.net.layer("ip1").parameters[0].data  # (6, 16)
    weights[...] = np.random.default_rng(seed).normal(size=weights.shape) * scale * (not dead)
    rate = np.float32(0.1) * 0.5 / (1 - np.float32(momentum))
    reach = 0 if proximal else rate * np.float32(decay) * 2
    longest = np.sqrt((weights.astype(float) ** 2).sum(axis=1)).max()
    if longest and abs(reach / longest - 1) < 1e-5:
        return  # decided by rounding
    (number,) = [i for i, p in enumerate(solver.net.parameters) if p.name == "ip1.0"]
    assert [decay for decay, _ in vanished(solver, number)] == (
        ["breadth_decay"] if longest <= reach else []
    )
    assert not any(vanished(solver, i) for i in range(len(solver.net.parameters)) if i != number)


def test_records_of_data_that_a_program_hands_over():
    net = make_net(backend="numpy")
    assert net.layer("data").batches_per_epoch() is None
    net.layer("data").set_arrays(np.zeros((8, 2, 6, 6)), np.zeros(8))
    assert net.layer("data").batches_per_epoch() == 2
    assert net.layer("conv1").batches_per_epoch() is None


def test_a_second_start_does_not_pass_the_end_of_the_epoch(tmp_path):
    first = solver_of(LETHAL, run=tmp_path)
    with pytest.raises(CollapseError):
        first.solve()
    second = solver_of(LETHAL)
    second.restore(first.last_snapshot)
    with pytest.raises(CollapseError) as told:
        second.solve()
    assert told.value.iteration == epoch_of(second) == 6
