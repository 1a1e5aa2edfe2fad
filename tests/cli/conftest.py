"""A tiny digits network with weights and a solver, and how commands are run."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from minissl import Net
from minissl.cli import main
from minissl.formats.prototxt import parse_net
from minissl.formats.weights import write_weights
from tests.tiny_nets import DIGITS

SOLVER = """
net: "digits.prototxt"
base_lr: 0.01
momentum: 0.9
lr_policy: "fixed"
block_group_decay: 0.001
display: 2
max_iter: 4
test_iter: 2
test_interval: 2
snapshot: 2
snapshot_prefix: "digits"
random_seed: 1
"""


@pytest.fixture(autouse=True)
def _own_level():
    """Commands set the level of the logger; other tests must not see it."""
    log = logging.getLogger("minissl")
    level, handlers = log.level, log.handlers
    yield
    log.setLevel(level)
    log.handlers = handlers


@pytest.fixture
def run():
    """Run a command in this process; a failed one must say so in one sentence."""

    def call(*arguments, code=0, env=None):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        if code == 1 and "Error:" in result.stderr:
            *_, last = result.stderr.splitlines()
            assert last.startswith("Error: ") and len(last) < 600
        return result

    return call


@pytest.fixture
def run_json(run):
    """Run a command with --json; its standard output must be one object and nothing else."""

    def call(*arguments, code=0):
        output = run(*arguments, "--json", code=code).stdout
        assert output.count("\n") == 1
        return json.loads(output)

    return call


@pytest.fixture
def net_file(tmp_path) -> Path:
    path = tmp_path / "digits.prototxt"
    path.write_text(DIGITS)
    return path


@pytest.fixture
def solver_file(net_file) -> Path:
    path = net_file.with_name("digits_solver.prototxt")
    path.write_text(SOLVER)
    return path


@pytest.fixture
def weights() -> dict[str, list[np.ndarray]]:
    """Weights of the tiny network; filter 1 of conv1 is zero, and so is one of ip1's columns."""
    net = Net(parse_net(DIGITS), "TEST", backend="numpy", seed=3)
    values = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}
    values["conv1"][0][1] = 0
    values["ip1"][0][:, 0] = 0
    return values


@pytest.fixture
def weights_file(tmp_path, weights) -> Path:
    path = tmp_path / "digits.caffemodel"
    write_weights(path, weights, "Digits", {"conv1": "Convolution", "ip1": "InnerProduct"})
    return path
