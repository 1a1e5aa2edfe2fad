"""Whole runs: where they stop and save, and numbers that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Solver
from minissl.errors import ConfigError, MinisslError, NonFiniteError
from minissl.formats import proto
from minissl.formats.prototxt import parse_net
from minissl.solvers.display import Silent
from tests.tiny_nets import (
    give_arrays,
    make_solver,
    net_text,
    same_weights,
    solver_param,
    weights_of,
)

# --- solving ---


def test_training_learns(backend):
    solver = make_solver("base_lr: 0.02 momentum: 0.9 max_iter: 120", backend=backend, count=24)
    first = solver.step()
    solver.solve()
    assert solver.iteration == 120
    assert np.mean([float(solver.step()) for _ in range(6)]) < 0.3 * float(first)


def test_solve_for_some_iterations():
    solver = make_solver("max_iter: 10", backend="numpy")
    solver.solve(4)
    assert solver.iteration == 4
    solver.solve(40)
    assert solver.iteration == 10


def test_stops_after_a_whole_iteration_and_saves(tmp_path):
    class StopAtThree(Silent):
        def before_update(self, solver, rate):
            solver.stop_requested = solver.iteration == 3

    solver = make_solver("max_iter: 10", backend="numpy", reporter=StopAtThree(), run=tmp_path)
    solver.solve()
    assert solver.iteration == 4
    assert solver.last_snapshot == tmp_path / "Tiny_iter_4.safetensors"
    assert solver.last_snapshot.is_file()


def test_no_run_folder_no_snapshots():
    solver = make_solver("max_iter: 4 snapshot: 2", backend="numpy")
    solver.snapshot_requested = True
    solver.solve()
    assert solver.iteration == 4 and solver.last_snapshot is None
    with pytest.raises(ConfigError, match="no run folder"):
        solver.snapshot()


def test_snapshots_on_the_way(tmp_path):
    solver = make_solver(
        'max_iter: 5 snapshot: 2 snapshot_prefix: "some/where/x"', backend="numpy", run=tmp_path
    )
    solver.solve()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"x_iter_{i}.safetensors" for i in (2, 4, 5)
    ]


def test_no_last_snapshot_where_the_solver_says_so(tmp_path):
    solver = make_solver("max_iter: 3 snapshot_after_train: false", backend="numpy", run=tmp_path)
    solver.solve()
    assert not list(tmp_path.iterdir())


# --- numbers that are not finite ---


def test_loss_that_is_not_finite(backend):
    solver = make_solver("display: 1", backend=backend)
    solver.step()
    before = weights_of(solver)
    solver.net.layer("ip1").parameters[1].data[1] = np.nan
    with pytest.raises(NonFiniteError) as caught:
        solver.step()
    message = str(caught.value)
    assert message.startswith("iteration 1: the loss is nan: layer 'ip1', blob 'ip1'")
    assert "lower base_lr" in message and "\n" not in message
    assert solver.iteration == 1
    np.testing.assert_array_equal(weights_of(solver)["ip2.0"], before["ip2.0"])


def test_weight_that_is_not_finite(backend, tmp_path):
    """The gradient overflows while the loss is fine: found in the same iteration.

    A backend that does not wait finds it in the next, or before anything is saved.
    """
    solver = make_solver(backend=backend, run=tmp_path)
    solver.step()
    saved = solver.snapshot()
    number = [p.name for p in solver.net.parameters].index("ip1.0")
    solver.history[number][0][0, 0] = np.inf
    solver.rule.momentum = 0.5
    with pytest.raises(NonFiniteError) as caught:
        solver.step()
        assert not solver.kernels.WAITS
        solver.snapshot()
    message = str(caught.value)
    assert "layer 'ip1', blob 0 holds weights that are not finite" in message
    assert message.startswith(f"iteration {1 if solver.kernels.WAITS else 2}: ")
    assert str(saved) in message and "\n" not in message


def test_learning_rate_far_too_high(backend):
    """A run that really diverges ends with this error, never with NaN weights saved."""
    solver = make_solver("base_lr: 1e30 display: 1", backend=backend)
    with pytest.raises(NonFiniteError, match=r"^iteration \d: ") as caught:
        for _ in range(20):
            solver.step()
    assert "\n" not in str(caught.value)


def test_all_errors_have_one_base():
    assert issubclass(NonFiniteError, MinisslError)


def test_net_from_a_message():
    param = solver_param()
    param.net_param.CopyFrom(parse_net(net_text()))
    assert Solver(param, backend="numpy").net.name == "Tiny"


@pytest.mark.parametrize(
    ("field", "value"),
    [("iter_size", 0), ("max_iter", -1), ("base_lr", -0.1), ("block_group_decay", float("nan"))],
)
def test_numbers_that_no_run_can_follow_are_refused(field, value):
    from minissl.solvers.solver import _check_fields

    param = proto.SolverParameter(**{field: value})
    with pytest.raises(ConfigError, match=field):
        _check_fields(param)


def test_a_test_net_with_sparse_modes_follows_the_training_net():
    """Its packed copies are made anew for each test; the weights that learn stay what they are."""
    text = net_text(conv1="", ip1="")
    sparse = text.replace("num_output: 4", "num_output: 4 conv_mode: LOWERED_CSRMM")
    sparse = sparse.replace("num_output: 6", "num_output: 6 gemm_mode: SPMDM")
    solvers, losses = [], []
    for test_net in (text, sparse):
        param = solver_param("test_iter: 2 test_interval: 1", net=text)
        param.test_net_param.add().CopyFrom(parse_net(test_net))
        solver = Solver(param)
        for network in (solver.net, *solver.test_nets):
            give_arrays(network)
        found = []
        for _ in range(4):
            found.append(solver.test()[0]["loss"])
            solver.step()
        solvers.append(solver)
        losses.append(found)
    assert same_weights(*solvers)
    assert len(set(losses[0])) == 4
    assert np.allclose(*losses, rtol=1e-5)
