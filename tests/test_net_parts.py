"""Running parts of a network, and what a program reads and writes between them."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from minissl import Net, models
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net, read_net
from tests.conftest import needs_compiler

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "analysis.ipynb"


@pytest.fixture
def net():
    found = Net(
        models.path("lenet.prototxt"),
        phase="TRAIN",
        dtype="float64",
        data={"source": "mnist-small", "batch_size": 4},
    )
    found.forward()
    return found


def test_params_are_the_parameters_by_layer(net):
    assert list(net.params) == ["conv1", "conv2", "ip1", "ip2"]
    assert net.params["conv2"][0] is net.layer("conv2").parameters[0]
    assert net.params["conv2"][0].data.shape == (50, 20, 5, 5)


def test_inputs_and_outputs_are_names(net):
    assert (net.inputs, net.outputs) == ([], ["loss"])  # of Data layers the net reads by itself
    param = read_net(models.path("caffenet_deploy.prototxt"))
    del param.layer[2:]
    deployed = Net(param)
    assert (deployed.inputs, deployed.outputs) == (["data"], [param.layer[1].top[0]])


def test_a_part_computes_what_the_whole_does(net):
    whole = {name: blob.data.copy() for name, blob in net.blobs.items()}
    pool1 = net.blobs["pool1"].data.copy()
    found = net.forward({"pool1": pool1}, start="conv2", end="ip2")
    assert list(found) == ["ip2"]
    np.testing.assert_array_equal(found["ip2"], whole["ip2"])


def test_a_part_follows_what_was_changed_before_it(net):
    before = net.blobs["ip2"].data.copy()
    changed = net.blobs["pool1"].data.copy()
    changed[:, 3] = 0
    after = net.forward({"pool1": changed}, start="conv2")
    assert set(after) == {"loss"}
    assert not np.array_equal(net.blobs["ip2"].data, before)
    data = net.blobs["data"].data.copy()
    net.forward(end="pool2")  # a data layer is the first: it reads the next batch
    assert not np.array_equal(net.blobs["data"].data, data)


def test_backward_from_a_layer_takes_what_stands_in_its_tops(net):
    # d ip2[n, k] / d ip1 is row k of the last weights
    net.blobs["ip2"].diff[...] = 0
    net.blobs["ip2"].diff[:, 7] = 1
    net.backward(start="ip2", end="ip2")
    rows = np.broadcast_to(net.params["ip2"][0].data[7], (4, 500))
    np.testing.assert_allclose(net.blobs["ip1"].diff, rows)


def test_parts_of_the_backward_pass_make_up_the_whole(net):
    net.clear_gradients()
    net.backward()
    whole = [parameter.diff.copy() for parameter in net.parameters]
    net.clear_gradients()
    net.backward(end="ip1")
    net.backward(start="pool2")
    for parameter, gradient in zip(net.parameters, whole, strict=True):
        np.testing.assert_array_equal(parameter.diff, gradient)


def test_the_gradient_with_respect_to_the_image():
    param = """name: "n"
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 6 } } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
      convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }"""
    text = parse_net(param)
    text.force_backward = True
    net = Net(text, dtype="float64", backend="numpy")
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["y"].diff[...] = 0
    net.blobs["y"].diff[0, 1, 2, 2] = 1
    net.backward(start="conv")
    expected = np.zeros((6, 6))
    expected[2:5, 2:5] = net.params["conv"][0].data[1, 0]
    np.testing.assert_allclose(net.blobs["x"].diff[0, 0], expected)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda net: net.forward(start="conv3"), "no layer 'conv3'"),
        (lambda net: net.forward(start="conv2", end="conv1"), "runs before"),
        (lambda net: net.backward(start="conv1", end="conv2"), "runs before"),
        (lambda net: net.forward({"pool9": 0}), "no blob 'pool9'"),
    ],
)
def test_wrong_names_are_refused(net, call, words):
    with pytest.raises(ConfigError, match=words):
        call(net)


def test_a_part_of_a_fused_net():
    options = {"data": {"source": "mnist-small", "batch_size": 4}, "phase": "TEST"}
    fused = Net(models.path("lenet.prototxt"), **options)
    fused.forward()
    assert fused.fused
    expected = fused.blobs["ip2"].data.copy()
    found = fused.forward(start="conv2", end="ip2")["ip2"]
    np.testing.assert_array_equal(found, expected)


@needs_compiler
def test_the_notebook_runs(monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(NOTEBOOK.parent)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    namespace: dict = {}
    for cell in code:
        exec(compile(cell, "analysis.ipynb", "exec"), namespace)
    assert namespace["accuracy"] > 0.8


@pytest.mark.parametrize("mode", ["LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_DCONV"])
def test_packed_weights_are_assigned_and_not_written_into(mode):
    """They are a copy then: what is written into it would be lost."""
    param = read_net(models.path("lenet.prototxt"))
    for layer in param.layer:
        if layer.type == "Convolution":
            layer.convolution_param.conv_mode = layer.convolution_param.ConvMode.Value(mode)
    net = Net(param, data={"source": "mnist-small", "batch_size": 2})
    net.load(net.weights())
    conv1 = net.params["conv1"][0]
    with pytest.raises(ValueError, match="read-only"):
        conv1.data[...] = 0
    assert conv1.data.any()
    conv1.data = np.zeros(conv1.shape, net.dtype)
    net.prepare()
    assert not conv1.data.any()


TWO_READERS = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 3 weight_filler { type: "constant" value: 1 } } }
layer { name: "b" type: "InnerProduct" bottom: "h" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } } }
RELU
layer { name: "c" type: "InnerProduct" bottom: "h" top: "z"
  inner_product_param { num_output: 2 weight_filler { type: "constant" value: 1 } } }
"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }'


@pytest.mark.parametrize("relu", ["", RELU], ids=["read twice", "changed in place as well"])
def test_a_part_can_begin_where_a_blob_is_read_twice(relu):
    text = TWO_READERS.replace("RELU", relu)
    ones = np.ones((1, 3))
    fresh = Net(parse_net(text))
    assert fresh.forward({"h": 5 * ones}, start="b")["y"].tolist() == [[15, 15]]
    assert fresh.blobs["z"].data.tolist() == [[15, 15]]
    halves = Net(parse_net(text))
    halves.forward({"x": ones}, end="a")
    assert halves.forward(start="b", end="b")["y"].tolist() == [[9, 9]]
    found = halves.forward({"h": -ones}, start="b")
    assert found["y"].tolist() == [[-3, -3]]
    assert found["z"].tolist() == ([[0, 0]] if relu else [[-3, -3]])


def test_a_part_behind_a_layer_in_place_begins_with_what_that_made():
    net = Net(parse_net(TWO_READERS.replace("RELU", RELU)))
    net.forward({"h": -np.ones((1, 3))}, start="b")
    assert net.forward(start="c")["z"].tolist() == [[0, 0]]
    assert net.forward({"h": np.ones((1, 3))}, start="c")["z"].tolist() == [[3, 3]]


def test_an_input_that_is_changed_in_place_beside_another_reader():
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
    layer { name: "neg" type: "Power" bottom: "x" top: "y" power_param { scale: -1 } }
    layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
    layer { name: "copy" type: "Power" bottom: "x" top: "z" }"""
    found = Net(parse_net(text)).forward({"x": np.array([[-2, 3]])})
    assert found["y"].tolist() == [[2, -3]] and found["z"].tolist() == [[0, 3]]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    "kind, param, more",
    [
        ("Convolution", "convolution_param", "kernel_size: 2"),
        ("InnerProduct", "inner_product_param", ""),
    ],
)
def test_a_compacted_layer_has_no_gradient(kind, param, more, backend):
    text = f"""
    force_backward: true
    layer {{ name: "x" type: "Input" top: "x"
      input_param {{ shape {{ dim: 1 dim: 2 dim: 3 dim: 3 }} }} }}
    layer {{ name: "small" type: "{kind}" bottom: "x" top: "y" loss_weight: 1
      {param} {{ num_output: 1 kept_columns {{ column: 1 column: 5 }} {more} }} }}"""
    net = Net(parse_net(text), backend=backend)
    net.forward({"x": np.ones((1, 2, 3, 3))})
    with pytest.raises(ConfigError, match=r"'small' .* go back through the net it was made from"):
        net.backward()
