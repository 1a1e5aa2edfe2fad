"""Chains of layers that train as one step give what the single layers give."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from minissl import Net, fused_training
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from tests.tiny_nets import make_solver

HEAD = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 5 dim: 3 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 5 } } }
"""
TAIL = """
layer { name: "ip" type: "InnerProduct" bottom: "last" top: "ip" inner_product_param {
  num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def conv(name, bottom, top=None, channels=4):
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{top or name}" '
        f"convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 bias_term: false "
        'weight_filler { type: "msra" } } }'
    )


def layer(kind, name, bottoms, top, options=""):
    bottoms = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top}" {options} }}'


BIAS = "scale_param { bias_term: true }"

#: in place as ResNets are written, and with a blob for every layer
IN_PLACE = HEAD + "\n".join([
    conv("a", "data"),
    layer("BatchNorm", "a_bn", "a", "a"),
    layer("Scale", "a_scale", "a", "a", BIAS),
    layer("ReLU", "a_relu", "a", "a"),
    conv("b", "a"),
    layer("BatchNorm", "b_bn", "b", "b"),
    layer("Scale", "b_scale", "b", "b", BIAS),
    layer("Eltwise", "sum", "a b", "sum"),
    layer("ReLU", "last", "sum", "sum"),
]) + TAIL.replace('"last"', '"sum"')  # fmt: skip
APART = HEAD + "\n".join([
    conv("a", "data"),
    layer("BatchNorm", "a_bn", "a", "a_bn"),
    layer("Scale", "a_scale", "a_bn", "a_scale"),
    layer("ReLU", "a_relu", "a_scale", "a_relu"),
    conv("b", "a_relu"),
    layer("BatchNorm", "b_bn", "b", "b_bn", "batch_norm_param { eps: 0.1 }"),
    layer("Scale", "b_scale", "b_bn", "b_bn", BIAS),
    layer("Eltwise", "sum", "a_relu b_bn", "sum"),
    layer("ReLU", "last_relu", "sum", "last"),
]) + TAIL  # fmt: skip
#: with a blob between BatchNorm and Scale too where no ReLU follows
BETWEEN = APART.replace(
    layer("Scale", "b_scale", "b_bn", "b_bn", BIAS),
    layer("Scale", "b_scale", "b_bn", "b_scale", BIAS),
).replace('bottom: "b_bn" top: "sum"', 'bottom: "b_scale" top: "sum"')


def run(text, backend="numba", watched=False, lean=True, looks=(), **options):
    """Two passes of one network; its values, gradients and statistics.

    Values of the blobs in ``looks`` are asked for before it goes back.
    """
    net = Net(
        parse_net(text), "TRAIN", backend=backend, dtype="float64", seed=3, lean=lean, **options
    )
    rng = np.random.default_rng(0)
    for parameter in net.parameters:
        if parameter.role in ("scale", "bias"):
            parameter.data[...] = rng.normal(size=parameter.shape)
    if watched:
        net.watcher = lambda *what: None
    net.clear_gradients()
    for _ in range(2):
        images, labels = rng.normal(size=(5, 3, 6, 6)), rng.integers(0, 4, 5)
        net.forward({"data": images, "label": labels})
        assert all(np.isfinite(net.blobs[name].data).all() for name in looks)
        net.backward()
    found = {"loss": np.array(net.loss())}
    found |= {f"{p.name} diff": p.diff.copy() for p in net.parameters}
    found |= {f"{p.name} data": p.data.copy() for p in net.parameters if p.role == "statistic"}
    return net, found


def assert_same(found, expected, tolerance=1e-11):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=tolerance, atol=tolerance), name
    assert any(np.abs(values).max() > 0.1 for name, values in expected.items() if "diff" in name)


def kinds(net):
    return [type(step).__name__ for step in net.steps if len(step.layers) > 1]


@pytest.mark.parametrize("text", [IN_PLACE, APART, BETWEEN])
def test_values_and_gradients_are_those_of_the_single_layers(text):
    net, found = run(text)
    assert kinds(net) == ["NormalizedStep", "NormalizedStep", "SummedStep"]
    plain, expected = run(text, lean=False)
    assert kinds(plain) == []
    assert_same(found, expected)
    for name, blob in plain.blobs.items():  # also those that lie between fused layers
        assert np.allclose(net.blobs[name].data, blob.data, rtol=1e-12, atol=1e-12), name


@pytest.mark.parametrize("text", [IN_PLACE, APART])
def test_who_watches_sees_single_layers(text):
    _, found = run(text, watched=True)
    assert_same(found, run(text, fuse=False)[1], tolerance=0)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_shared_gradients_change_nothing(backend):
    for text in (IN_PLACE, APART):
        _, found = run(text, backend, fuse=False)
        assert_same(found, run(text, backend, lean=False)[1], tolerance=0)


def test_the_plain_backend_runs_layer_by_layer():
    assert kinds(run(IN_PLACE, "numpy")[0]) == []


@pytest.mark.parametrize(
    ("kind", "name", "options", "expected"),
    [
        ("ReLU", "a_relu", "relu_param { negative_slope: 0.1 }", [2, 2, 2]),
        ("Sigmoid", "last", "", [3, 2]),
        ("Scale", "a_scale", "scale_param { axis: 2 bias_term: true }", [2, 2]),
        ("BatchNorm", "a_bn", "batch_norm_param { use_global_stats: true }", [2, 2]),
        ("ReLU", "a_relu", "loss_weight: 1", [2, 2, 2]),
        ("Eltwise", "sum", "eltwise_param { coeff: 1 coeff: 2 }", [3, 2]),
        ("Eltwise", "sum", "eltwise_param { operation: MAX }", [3, 2]),
    ],
)
def test_what_does_not_fit_runs_by_itself(kind, name, options, expected):
    param = parse_net(IN_PLACE)
    (changed,) = [one for one in param.layer if one.name == name]
    changed.type = kind
    if "scale_param" in options:
        changed.ClearField("scale_param")
    text_format.Merge(options, changed)
    net, found = run(text_format.MessageToString(param))
    assert [len(step.layers) for step in net.steps if len(step.layers) > 1] == expected
    assert_same(found, run(text_format.MessageToString(param), fuse=False)[1])


def test_a_layer_in_place_behind_the_relu_keeps_it_out():
    drop = layer("Dropout", "drop", "a", "a", "dropout_param { dropout_ratio: 0.3 }")
    text = IN_PLACE.replace(conv("b", "a"), drop + conv("b", "a"))
    assert text != IN_PLACE
    net, found = run(text)
    assert [step.layers[-1].name for step in net.steps if len(step.layers) > 1] == [
        "a_scale",
        "b_scale",
        "last",
    ]
    assert_same(found, run(text, fuse=False)[1])


def test_frozen_layers_in_front_are_not_fused():
    text = IN_PLACE
    for name in ("a", "a_scale"):
        fixed = "param { lr_mult: 0 } " * (2 if name == "a_scale" else 1)
        text = text.replace(f'name: "{name}" ', f'name: "{name}" {fixed}')
    net, found = run(text)
    assert kinds(net) == ["NormalizedStep"]
    assert_same(found, run(text, fuse=False)[1])


def test_normalized_data_stay_where_the_caller_put_them():
    text = HEAD + layer("BatchNorm", "bn", "data", "data") + layer("Scale", "s", "data", "data")
    text = "force_backward: true " + text + TAIL.replace('"last"', '"data"')
    net = Net(parse_net(text), "TRAIN", lean=True)
    assert kinds(net) == []
    memory = net.blobs["data"].data
    net.forward({"data": np.ones((5, 3, 6, 6)), "label": np.zeros(5)})
    assert net.blobs["data"].data is memory


def test_a_solver_shares_gradients_and_learns_the_same():
    text = IN_PLACE.replace(
        HEAD,
        """layer { name: "data" type: "MemoryData" top: "data" top: "label"
          memory_data_param { batch_size: 4 channels: 2 height: 6 width: 6 } }""",
    )
    fields = "momentum: 0.9 weight_decay: 0.01"
    one = make_solver(fields, net=text, backend="numba", dtype="float64")
    other = make_solver(fields, net=text, backend="numba", dtype="float64", lean=False)
    plain = make_solver(fields, net=text, backend="numpy", dtype="float64")
    for _ in range(4):
        loss = one.step()
        assert loss == pytest.approx(other.step(), rel=1e-10)
        assert loss == pytest.approx(plain.step(), rel=1e-10)
    for a, b, c in zip(*(s.net.parameters for s in (one, other, plain)), strict=True):
        assert np.allclose(a.data, b.data, rtol=1e-9, atol=1e-11)
        assert np.allclose(a.data, c.data, rtol=1e-9, atol=1e-11)
    assert one.net.needs().backward < other.net.needs().backward


def test_going_back_layer_by_layer_needs_a_network_that_is_not_lean():
    net, _ = run(IN_PLACE)
    with pytest.raises(ConfigError, match="build it with lean=False"):
        net.backward(start="loss", end="b_scale")
    net.backward(start="loss", end="ip")  # what is not fused can
    net.forward(start="ip")
    net.backward(start="loss", end="ip")
    with pytest.raises(ConfigError, match="or run all of it"):
        net.backward()  # no longer what has run
    net.forward()
    net.backward()


def test_looking_between_layers_leaves_gradients_alone():
    """The normalized values take the memory of the input, which the backward pass needs."""
    text = IN_PLACE.replace(
        layer("Scale", "b_scale", "b", "b", BIAS), layer("Scale", "b_scale", "b", "s", BIAS)
    ).replace('bottom: "a" bottom: "b" top: "sum"', 'bottom: "a" bottom: "s" top: "sum"')
    assert text.count('"s"') == 2
    net, found = run(text, looks=["b"])
    assert "NormalizedStep" in kinds(net)
    assert_same(found, run(text, fuse=False)[1])


def test_the_plan_covers_every_layer_once():
    net, _ = run(IN_PLACE)
    assert [one for step in net.steps for one in step.layers] == net.layers
    assert all(isinstance(s, fused_training.TrainingStep) for s in net.steps if len(s.layers) > 1)
