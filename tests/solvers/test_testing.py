"""Test networks on the way: when they run, which they are, and what they average."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Solver
from minissl.errors import ConfigError
from minissl.solvers.display import Silent
from tests.tiny_nets import (
    make_solver,
    net_text,
    solver_param,
)


class Seen(Silent):
    def __init__(self):
        self.at = []
        self.announced = []

    def testing(self, solver, number):
        self.announced.append((solver.iteration, number))

    def tested(self, solver, number, outputs):
        self.at.append((solver.iteration, number))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("test_interval: 2", [0, 2, 4, 5]),
        ("test_interval: 2 test_initialization: false", [2, 4, 5]),
        ("test_interval: 5", [0, 5]),
    ],
)
def test_test_interval(fields, expected):
    reporter = Seen()
    solver = make_solver(f"test_iter: 2 max_iter: 5 {fields}", backend="numpy", reporter=reporter)
    solver.solve()
    assert reporter.at == [(i, 0) for i in expected]
    assert reporter.announced == reporter.at


def test_several_test_nets():
    """Each has its own number of batches and its own state; they share the weights."""
    fields = """test_interval: 2 test_iter: 2 test_iter: 3 max_iter: 2
        test_state { } test_state { stage: "twice" }"""
    net = net_text().replace(
        'name: "accuracy"', 'name: "again" type: "Softmax" bottom: "ip2" top: "p"'
        ' include { stage: "twice" } } layer { name: "accuracy"'
    )  # fmt: skip
    reporter = Seen()
    solver = make_solver(fields, net, backend="numpy", reporter=reporter)
    solver.solve()
    assert reporter.at == [(0, 0), (0, 1), (2, 0), (2, 1)]
    first, second = solver.last_test
    assert set(first) == {"accuracy", "loss"}
    # 12 probabilities of a batch, each with its mean
    assert set(second) == {"accuracy", "loss"} | {f"p[{i}]" for i in range(12)}
    for net in solver.test_nets:
        assert net.parameters[0] is solver.net.parameters[0]


def test_mean_over_the_batches():
    solver = make_solver("test_interval: 1 test_iter: 6", backend="numpy", dtype="float64")
    net = solver.test_nets[0]
    losses = []
    for _ in range(6):
        net.forward()
        losses.append(net.loss())
    assert solver.test()[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("test_iter: 1", "test_iter is given without test_interval"),
        ("test_interval: 1 test_net_param { }", "1 test nets are given but only 0 test_iter"),
    ],
)
def test_test_nets_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        Solver(solver_param(fields), backend="numpy")


def test_one_training_net():
    with pytest.raises(ConfigError, match="names its training net once; this one has no net"):
        param = solver_param()
        param.ClearField("net_param")
        Solver(param)
    with pytest.raises(ConfigError, match="has net, net_param"):
        Solver(solver_param('net: "lenet.prototxt"'))


def test_weights_and_snapshot_are_alternatives(tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        Solver(solver_param(), weights={}, resume=tmp_path / "x.safetensors")
