import numpy as np
import pytest

from minissl.formats.prototxt import parse_net, parse_solver
from minissl.solvers import Solver
from minissl.solvers.revivals import EVERY, FILE, Revivals
from tests.tiny_nets import DIGITS

SOLVER = """base_lr: 0.01 lr_policy: "fixed" block_group_decay: 0.001 max_iter: 100 random_seed: 2
snapshot_prefix: "digits" """


def make(tmp_path, **options):
    param = parse_solver(SOLVER)
    param.net_param.CopyFrom(parse_net(DIGITS))
    solver = Solver(param, backend="numpy", run=tmp_path, **options)
    solver.reporter = Revivals(tmp_path)
    return solver


def kill(solver, rows):
    weights, bias = solver.net.parameters[:2]
    weights.matrix[rows] = 0
    bias.data[...] = 0.1  # so that ReLU lets the gradient through


@pytest.mark.parametrize("dead", [[], [1], [0, 2]])
def test_each_group_that_comes_back_counts_once(tmp_path, dead):
    solver = make(tmp_path)
    kill(solver, dead)
    before = solver.net.parameters[0].matrix.copy()
    solver.solve(EVERY)  # the loss lifts the filters again: nothing freezes them
    assert not np.array_equal(solver.net.parameters[0].matrix[dead], before[dead]) or not dead
    assert solver.reporter.counts() == {"conv1 25x1": len(dead)}
    kill(solver, dead)
    solver.solve(2 * EVERY)
    assert solver.reporter.counts() == {"conv1 25x1": len(dead)}


def test_groups_that_die_and_stay_dead_do_not_count(tmp_path):
    solver = make(tmp_path)
    solver.net.parameters[0].spec.lr_mult = 0
    solver.solve(EVERY)
    kill(solver, [1])
    solver.solve(2 * EVERY)
    assert solver.reporter.counts() == {"conv1 25x1": 0}


@pytest.mark.parametrize("stop", [EVERY - 3, EVERY, EVERY + 4])
def test_a_resumed_run_counts_as_one_that_was_not_stopped(tmp_path, stop):
    solver = make(tmp_path)
    kill(solver, [0, 1])
    solver.solve(stop)
    path = solver.snapshot()
    assert (tmp_path / FILE).exists()
    again = make(tmp_path, resume=path)
    again.solve(3 * EVERY - stop)
    assert again.reporter.counts() == {"conv1 25x1": 2}


def test_what_another_snapshot_saw_is_not_taken(tmp_path):
    solver = make(tmp_path)
    kill(solver, [0])
    solver.solve(EVERY)
    early = solver.snapshot()
    solver.solve(EVERY)
    solver.snapshot()  # revived.json now belongs to this one
    again = make(tmp_path, resume=early)
    again.solve(EVERY)
    assert again.reporter.counts() == {"conv1 25x1": 0}
