"""Networks: phases, gradients over fan-out, shared parameters, loading, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from minissl import Net, memory
from minissl.errors import ConfigError, MinisslError, NonFiniteError, ShapeError, WeightsError
from minissl.formats.prototxt import parse_net
from tests.conftest import needs_compiler
from tests.tiny_nets import TINY, arrays, give_arrays, make_net, net_text


def build(text, phase="TRAIN", backend="numpy", dtype="float64", **options):
    return Net(parse_net(text), phase=phase, backend=backend, dtype=dtype, **options)


def ip(name, bottom, top, outputs=3, more="", **fields):
    """Text of an InnerProduct layer."""
    filler = fields.get("filler", 'weight_filler { type: "gaussian" std: 1 }')
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more}
        inner_product_param {{ num_output: {outputs} {filler} }} }}"""


def layer(type_name, name, bottoms, top, more=""):
    bottom = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "{name}" type: "{type_name}" {bottom} top: "{top}" {more} }}'


INPUT = """layer { name: "in" type: "Input" top: "x" top: "t"
    input_param { shape { dim: 4 dim: 5 } shape { dim: 4 } } }"""


def fill_input(net, seed=0):
    rng = np.random.default_rng(seed)
    net.blobs["x"].data[...] = rng.normal(size=(4, 5))
    net.blobs["t"].data[...] = [0, 2, 1, 2]


def gradients(net):
    """One forward and backward pass; the gradients of all parameters by name."""
    net.clear_gradients()
    net.forward()
    net.backward()
    return {parameter.name: parameter.diff.copy() for parameter in net.parameters}


def check_gradients(net, step=1e-6):
    """Compare every gradient with central differences of the loss."""
    found = gradients(net)
    for parameter in net.parameters:
        numeric = np.zeros_like(parameter.data)
        for index in np.ndindex(parameter.shape):
            value = parameter.data[index]
            losses = []
            for shifted in (value + step, value - step):
                parameter.data[index] = shifted
                net.forward()
                losses.append(net.loss())
            parameter.data[index] = value
            numeric[index] = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(
            found[parameter.name], numeric, rtol=1e-6, atol=1e-8, err_msg=parameter.name
        )
    return found


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


# --- gradients ---


def test_fan_out_gradient_is_the_sum():
    """Three readers of one blob, one of them through an in-place layer behind its own copy."""
    common = INPUT + ip("base", "x", "h", 4)
    heads = [ip(f"head{k}", "h", f"y{k}") for k in range(3)]
    losses = [layer("SoftmaxWithLoss", f"loss{k}", f"y{k} t", f"loss{k}") for k in range(3)]
    together = build(common + "".join(heads) + "".join(losses))
    fill_input(together)
    found = check_gradients(together)
    weights = together.weights()

    alone = np.zeros_like(found["base.0"])
    for k in range(3):
        single = build(common + heads[k] + losses[k])
        fill_input(single)
        single.load({name: weights[name] for name in ("base", f"head{k}")})
        alone += gradients(single)["base.0"]
    np.testing.assert_allclose(found["base.0"], alone, rtol=1e-12)


def test_several_losses_and_loss_weights():
    text = (
        INPUT
        + ip("a", "x", "a")
        + ip("b", "x", "b")
        + layer("SoftmaxWithLoss", "one", "a t", "one", "loss_weight: 0.5")
        + layer("SoftmaxWithLoss", "two", "b t", "two", "loss_weight: -3")
    )
    net = build(text)
    fill_input(net)
    check_gradients(net)
    one, two = float(net.blobs["one"].data), float(net.blobs["two"].data)
    assert net.loss() == pytest.approx(0.5 * one - 3 * two, rel=1e-12)
    assert abs(one - two) > 1e-3


def test_loss_weight_makes_any_top_a_loss():
    text = INPUT + ip("a", "x", "a") + layer("TanH", "act", "a", "y", "loss_weight: 2")
    net = build(text)
    fill_input(net)
    check_gradients(net)
    assert net.loss() == pytest.approx(2 * net.blobs["y"].data.sum(), rel=1e-12)


def test_loss_weight_zero_stops_the_backward_pass():
    text = (
        INPUT
        + ip("a", "x", "a")
        + ip("b", "x", "b")
        + layer("SoftmaxWithLoss", "one", "a t", "one", "loss_weight: 0")
        + layer("SoftmaxWithLoss", "two", "b t", "two")
    )
    net = build(text)
    fill_input(net)
    found = gradients(net)
    assert not net.runs_backward(net.layer("a"))
    assert not found["a.0"].any() and found["b.0"].any()


def test_in_place_layers():
    """In place and in blobs of their own: the same gradients."""

    def text(relu, tanh):
        return (
            INPUT
            + ip("a", "x", "a", 4)
            + layer("ReLU", "relu", "a", relu, "relu_param { negative_slope: 0.25 }")
            + layer("TanH", "tanh", relu, tanh)
            + ip("b", tanh, "y")
            + layer("SoftmaxWithLoss", "loss", "y t", "loss")
        )

    in_place, apart = build(text("a", "a")), build(text("h", "g"))
    for net in (in_place, apart):
        fill_input(net)
    apart.load(in_place.weights())
    found, expected = check_gradients(in_place), gradients(apart)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient)


def test_in_place_layer_beside_another_reader():
    """What the other reader sees is the value before the in-place layer."""
    text = (
        INPUT
        + ip("a", "x", "a")
        + layer("TanH", "other", "a", "other")
        + layer("ReLU", "relu", "a", "a")
        + layer("SoftmaxWithLoss", "one", "other t", "one")
        + layer("SoftmaxWithLoss", "two", "a t", "two")
    )
    net = build(text)
    fill_input(net)
    check_gradients(net)
    net.forward()
    before = net.layer("a").parameters[0].data @ net.blobs["x"].data.T
    np.testing.assert_allclose(net.blobs["other"].data, np.tanh(before.T), rtol=1e-12)


def test_gradients_add_up_over_passes():
    net = make_net(phase="TRAIN", backend="numpy", dtype="float64")
    give_arrays(net, count=4)
    once = gradients(net)
    net.backward()
    for parameter in net.parameters:
        np.testing.assert_allclose(parameter.diff, 2 * once[parameter.name], rtol=1e-12)


def test_propagate_down_false_cuts_the_path():
    def text(more):
        return (
            INPUT
            + ip("a", "x", "a")
            + ip("b", "a", "b", more=more)
            + layer("SoftmaxWithLoss", "loss", "b t", "loss")
        )

    net = build(text("propagate_down: false"))
    fill_input(net)
    found = gradients(net)
    assert not found["a.0"].any()
    assert found["b.0"].any()
    assert not net.runs_backward(net.layer("a"))
    assert gradients_exist(build(text("propagate_down: true")))


def test_propagate_down_false_in_place():
    """The gradient of the in-place output must not pass for that of its input."""
    text = (
        INPUT
        + ip("a", "x", "a")
        + layer("TanH", "act", "a", "a", "propagate_down: false")
        + ip("b", "a", "b")
        + layer("SoftmaxWithLoss", "loss", "b t", "loss")
    )
    net = build(text)
    fill_input(net)
    assert not gradients(net)["a.0"].any()


def gradients_exist(net):
    fill_input(net)
    return all(gradient.any() for gradient in gradients(net).values())


def test_frozen_layers_below_are_not_run_backward():
    text = (
        INPUT
        + ip("a", "x", "a", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + ip("b", "a", "b")
        + layer("SoftmaxWithLoss", "loss", "b t", "loss")
    )
    net = build(text)
    assert not net.runs_backward(net.layer("a"))
    assert net.propagates(net.layer("b")) == [False]


def test_force_backward_reaches_the_input():
    text = INPUT + ip("a", "x", "a") + layer("SoftmaxWithLoss", "loss", "a t", "loss")
    plain, forced = build(text), build("force_backward: true " + text)
    for net in (plain, forced):
        fill_input(net)
        gradients(net)
    weights, d_y = forced.layer("a").parameters[0].data, forced.blobs["a"].diff
    np.testing.assert_allclose(forced.blobs["x"].diff, d_y @ weights, rtol=1e-12)
    assert not plain.blobs["x"].diff.any()


# --- shared parameters ---


def test_parameters_shared_by_name():
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" } param { name: "b" }')
        + layer("TanH", "act", "a", "a")
        + ip("b", "a", "y", 5, 'param { name: "w" } param { name: "b" }')
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    net = build(text)
    assert [p.name for p in net.parameters] == ["a.0", "a.1"]
    assert net.layer("b").parameters[0] is net.layer("a").parameters[0]
    fill_input(net)
    check_gradients(net)


def test_shared_names_need_equal_shapes():
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" }')
        + ip("b", "a", "y", 4, 'param { name: "w" }')
    )
    with pytest.raises(ConfigError, match=r"'b.0' of shape \(4, 5\) cannot share .* \(5, 5\)"):
        build(text)


def test_share_between_nets():
    train = make_net(phase="TRAIN", backend="numpy")
    before = train.layer("ip1").parameters[0].data.copy()
    test = make_net(phase="TEST", backend="numpy", share=train, seed=5)
    assert test.parameters == train.parameters
    np.testing.assert_array_equal(train.layer("ip1").parameters[0].data, before)
    train.layer("ip1").parameters[0].data[...] = 7
    assert (test.layer("ip1").parameters[0].data == 7).all()


def test_share_fills_only_what_is_new():
    train = make_net(phase="TRAIN", backend="numpy")
    larger = Net(
        parse_net(net_text() + ip("extra", "ip2", "z")), "TRAIN", backend="numpy", share=train
    )
    assert larger.layer("ip2").parameters[0] is train.layer("ip2").parameters[0]
    assert larger.layer("extra").parameters[0].data.any()


# --- weights ---


def test_save_and_load(tmp_path):
    net, other = make_net(seed=1, backend="numpy"), make_net(seed=2, backend="numpy")
    for suffix in (".caffemodel", ".safetensors", ".npz"):
        path = tmp_path / f"net{suffix}"
        net.save(path)
        assert other.load(path) == ["conv1", "ip1", "ip2"]
        for mine, theirs in zip(net.parameters, other.parameters, strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
            theirs.data[...] = 0


def test_weights_of_other_layers_stay():
    net = make_net(backend="numpy")
    before = net.layer("ip1").parameters[0].data.copy()
    other = {"ip2": [np.ones((3, 6)), np.zeros(3)], "unknown": [np.ones(3)]}
    assert net.load(other) == ["ip2"]
    np.testing.assert_array_equal(net.layer("ip1").parameters[0].data, before)
    assert (net.layer("ip2").parameters[0].data == 1).all()


def test_old_shapes_are_taken():
    """Old files hold a matrix as (1, 1, F, K) and a bias as (1, 1, 1, F)."""
    net = make_net(backend="numpy")
    weights = np.arange(18.0).reshape(1, 1, 3, 6)
    net.load({"ip2": [weights, np.zeros((1, 1, 1, 3))]})
    np.testing.assert_array_equal(net.layer("ip2").parameters[0].data, weights[0, 0])


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ({"ip2": [np.ones((3, 6))]}, WeightsError, "layer 'ip2' has 1 blobs where the net has 2"),
        (
            {"ip2": [np.ones((6, 3)), np.ones(3)]},
            WeightsError,
            r"blob 0 of layer 'ip2' has shape \(6, 3\) where the net has \(3, 6\)",
        ),
        (
            {"ip2": [np.ones((3, 6)), np.full(3, np.nan)]},
            NonFiniteError,
            "blob 1 of layer 'ip2' holds NaN",
        ),
        ({"fc8": [np.ones(3)]}, WeightsError, "holds no layer of net 'Tiny': it has fc8"),
        ({}, WeightsError, "it has none"),
    ],
)
def test_load_errors(weights, error, words):
    net = make_net(backend="numpy")
    with pytest.raises(error, match=words) as caught:
        net.load(weights)
    assert "\n" not in str(caught.value)


# --- refused set-ups ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (INPUT + INPUT.replace('"x"', '"y"').replace('"t"', '"u"'), "two layers of phase TRAIN"),
        (INPUT + layer("SoftmaxWithLoss", "l", "x", "l"), "'l'.* has 1 bottoms where 2 belong"),
        (INPUT + layer("Softmax", "s", "x", "x"), "cannot compute in place"),
        (INPUT + layer("Softmx", "s", "x", "y"), "did you mean 'Softmax'"),
        (
            INPUT + layer("TanH", "a", "x", "y", "loss_weight: 1 loss_weight: 2"),
            "2 loss_weight values for 1 tops",
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
