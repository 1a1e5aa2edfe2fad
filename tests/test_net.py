"""Networks: phases, what is refused, and how they run."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from minissl import Net, memory
from minissl.errors import ConfigError, MinisslError, ShapeError
from tests.conftest import needs_compiler
from tests.tiny_nets import TINY, arrays, give_arrays, make_net
from tests.written_nets import INPUT, build, gradients, ip, layer

# --- phases ---


def test_phases():
    train, test = make_net(phase="TRAIN", backend="numpy"), make_net(phase="TEST", backend="numpy")
    assert [x.name for x in train.layers] == [
        "data", "conv1", "relu1", "pool1", "ip1", "relu2", "ip2", "loss",
    ]  # fmt: skip
    assert train.outputs == ["loss"]
    # what accuracy reads too is split
    assert "ip2_ip2_0_split" in [x.name for x in test.layers]
    assert test.outputs == ["accuracy", "loss"]


def test_levels_and_stages():
    text = INPUT + layer("TanH", "a", "x", "a", 'include { stage: "deep" min_level: 1 }')
    assert len(build(text).layers) == 1
    assert len(build(text, level=1).layers) == 1
    assert len(build(text, level=1, stages=("deep",)).layers) == 2


# --- refused set-ups ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            INPUT + layer("PReLU", "p", "x", "y") + layer("PReLU", "p", "y", "z"),
            "two layers of phase TRAIN are named 'p'; rename one, weights are matched by name",
        ),
        (INPUT + layer("SoftmaxWithLoss", "l", "x", "l"), "'l'.* has 1 bottoms where 2 belong"),
        (INPUT + layer("Softmax", "s", "x", "x"), "cannot compute in place"),
        (INPUT + layer("Softmx", "s", "x", "y"), "did you mean 'Softmax'"),
        (
            INPUT + layer("TanH", "a", "x", "y", "loss_weight: 1 loss_weight: 2"),
            "2 loss_weight values for 1 tops",
        ),
        (
            INPUT + layer("PReLU", "p", "x", "y", "param { lr_mult: 1 } param { lr_mult: 2 }"),
            "'p'.* has 2 param blocks for 1 blob of weights; remove those at the end",
        ),
        (
            INPUT + layer("TanH", "a", "x", "y", "param { lr_mult: 0 }"),
            "has 1 param blocks for 0 blobs of weights",
        ),
        (layer("TanH", "a", "x", "y", "include { phase: TEST }"), "no layer in phase TRAIN"),
        (INPUT + layer("SoftmaxWithLoss", "l", "x x", "l"), "20 labels|need 4 labels"),
    ],
)
def test_refused(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build(text)
    assert "\n" not in str(caught.value)


def test_unknown_names():
    net = make_net(backend="numpy")
    with pytest.raises(ConfigError, match=r"no layer 'conv9'; its layers are data, .*conv1"):
        net.layer("conv9")
    with pytest.raises(ConfigError, match="no blob 'y'"):
        net.forward({"y": 1})


def test_too_big_for_memory_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**9)
    text = INPUT + ip("a", "x", "a", 100_000) + ip("b", "a", "b", 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ShapeError, match=r"needs 1\.\d TB of memory .* has 1\.0 GB") as caught:
            build(text, dtype="float32")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    # the bias of the last layer alone has 4 MB
    assert peak < 10**6


def test_bytes_needed_counts_what_training_adds():
    text = INPUT + ip("a", "x", "a", 1000)
    weights, activations = 1000 * 5 + 1000, 4 * 5 + 4 + 4 * 1000
    assert build(text, "TEST", dtype="float32").bytes_needed() == 4 * (weights + activations)
    # without a loss nothing has a gradient but the weights, whose memory is there all the same
    assert build(text, "TRAIN", dtype="float32").bytes_needed() == 4 * (3 * weights + activations)


# --- running ---


def test_first_non_finite():
    net = make_net(phase="TRAIN", backend="numpy")
    give_arrays(net)
    net.forward()
    assert net.first_non_finite() is None
    net.layer("ip1").parameters[1].data[2] = np.inf
    with np.errstate(invalid="ignore"):
        net.forward()
    assert net.first_non_finite() == "layer 'ip1', blob 'ip1'"


def test_both_backends_agree():
    results = []
    for name in ("numpy", "numba"):
        net = make_net(phase="TRAIN", backend=name, dtype="float64")
        give_arrays(net)
        results.append((gradients(net), net.loss()))
    (one, loss), (other, other_loss) = results
    assert loss == pytest.approx(other_loss, rel=1e-12)
    for name, gradient in one.items():
        assert np.abs(gradient).max() > 1e-6
        np.testing.assert_allclose(gradient, other[name], rtol=1e-9, atol=1e-12)


def test_forward_with_inputs():
    net = build(INPUT + ip("a", "x", "a"))
    x = np.arange(20.0).reshape(4, 5)
    weights, bias = (p.data for p in net.layer("a").parameters)
    np.testing.assert_allclose(net.forward({"x": x})["a"], x @ weights.T + bias)


def test_watcher_sees_every_layer():
    net = make_net(TINY, phase="TRAIN", backend="numpy")
    give_arrays(net)
    seen = []
    net.watcher = lambda direction, layer: seen.append((direction, layer.name))
    net.forward()
    net.backward()
    forward = [name for direction, name in seen if direction == "Forward"]
    backward = [name for direction, name in seen if direction == "Backward"]
    assert forward == [x.name for x in net.layers]
    assert backward == [x.name for x in reversed(net.layers) if x.name != "data"]


def test_arrays_of_the_tests_can_be_learnt():
    images, labels = arrays(6)
    assert images.shape == (6, 2, 6, 6) and set(labels) <= {0, 1, 2}


THREADS = """
import sys, hashlib
from minissl import Solver, backend, models
from minissl.formats.prototxt import read_solver
backend.set_threads(int(sys.argv[1]))
param = read_solver(models.path("lenet_solver.prototxt"))
del param.test_iter[:]
param.ClearField("test_interval")
param.net = str(models.path("lenet.prototxt"))
solver = Solver(param, data={"source": "mnist-small"}, backend="numba")
for _ in range(4):
    solver.step()
digest = hashlib.sha256(repr(solver.losses).encode())
for parameter in solver.net.parameters:
    digest.update(parameter.data.tobytes())
print(digest.hexdigest())
"""


@needs_compiler
def test_results_do_not_depend_on_the_number_of_threads():
    """Four iterations of LeNet in float32, bitwise."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2"}
    digests = [
        subprocess.run(
            [sys.executable, "-c", THREADS, threads],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert len(digests[0]) == 65
    assert digests[0] == digests[1]


def test_net_file_that_is_missing(tmp_path):
    with pytest.raises(MinisslError, match=r"missing\.prototxt"):
        Net(tmp_path / "missing.prototxt")
