"""What group lasso can take off a group in a trial."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.recipes import trial_length
from minissl.recipes.trial_length import Need, default_iterations, need_of
from tests.tiny_nets import make_solver, net_text

NET = net_text(ip1="param { lr_mult: 0.5 breadth_decay_mult: 2 }")
FIELDS = 'momentum: 0.5 lr_policy: "multistep" gamma: 0.1 stepvalue: 30 stepvalue: 40 max_iter: 50'


def test_the_reach_is_what_a_constant_gradient_moves_a_group():
    """Trained without data: the norm of every group falls by the reach, and no further."""
    solver = make_solver(f"{FIELDS} breadth_decay: 0.01", NET, backend="numpy", dtype="float64",
                         collapse_check=False, zero_out=False)  # fmt: skip
    need = need_of(solver, {"breadth_decay": 0.01})
    (number,) = [i for i, p in enumerate(solver.net.parameters) if p.name == "ip1.0"]
    parameter = solver.net.parameters[number]
    before = np.linalg.norm(parameter.matrix, axis=1)
    assert need.layer == "ip1" and need.norm == pytest.approx(np.median(before))
    while solver.iteration < 50:
        rate = solver.learning_rate()
        parameter.diff[...] = 0
        solver.group_lasso(number, parameter)
        solver.compute_step(number, parameter, rate)
        solver.apply_step(parameter)
        solver.iteration += 1
    fallen = before - np.linalg.norm(parameter.matrix, axis=1)
    # the momentum needs some iterations to get going, and keeps some for afterwards
    assert fallen == pytest.approx(np.full(6, need.reach), rel=0.02)


def test_the_slowest_tiling_counts():
    net = net_text(ip1="param { breadth_decay_mult: 2 }", conv1="param { breadth_decay_mult: 0.1 }")
    solver = make_solver(FIELDS, net, backend="numpy")
    assert need_of(solver, {"breadth_decay": 0.01}).layer == "conv1"
    solver.net.layer("conv1").parameters[0].data[...] = 0
    assert need_of(solver, {"breadth_decay": 0.01}).layer == "ip1"
    solver.net.layer("ip1").parameters[0].data[...] = 0
    assert need_of(solver, {"breadth_decay": 0.01}) is None


def test_adam_does_not_follow_the_decay():
    solver = make_solver(f'{FIELDS} type: "Adam"', NET, backend="numpy")
    assert need_of(solver, {"breadth_decay": 0.01}) is None


@pytest.mark.parametrize(
    ("whole", "need", "iterations"),
    [
        (1000, None, 200),
        (1000, Need("x", 0.1, 3.0), 200),
        (1000, Need("x", 1.0, 3.0), 500),  # with a margin
        (1000, Need("x", 1.0, 0.5), 1000),
        (3, None, 1),
    ],
)
def test_a_trial_is_a_fifth_or_as_long_as_it_takes(whole, need, iterations):
    assert default_iterations(whole, need) == iterations


def test_a_trial_that_is_too_short_is_told():
    need = Need("conv1", 1.0, 4.0)
    assert trial_length.warning(250, 1000, need) is None
    told = trial_length.warning(200, 1000, need)
    assert "in 200 iterations" in told and "0.8 off a group of conv1" in told
    assert "--iterations 250 or more" in told
    assert "train for more" in trial_length.warning(200, 1000, Need("conv1", 9.0, 4.0))
    assert trial_length.warning(200, 1000, None) is None
