from __future__ import annotations

import numpy as np

from minissl.channels import layer_shapes
from minissl.formats.prototxt import parse_net
from minissl.models import path
from minissl.net import Net
from minissl.sparsity import flops
from minissl.sparsity.flops import Input


def net_of(text, **options) -> Net:
    return Net(parse_net(text), backend="numpy", **options)


DATA = """
    layer { name: "d" type: "Input" top: "data" top: "label"
            input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }
"""
CONV = """
    layer { name: "%s" type: "Convolution" bottom: "%s" top: "%s"
            convolution_param { num_output: %d kernel_size: 3 %s } }
"""
IP = """
    layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"
            inner_product_param { num_output: %d %s } }
"""


def sources(net):
    """Of each layer with weights its inputs and the number of columns that are one channel."""
    return {one.name: (*one.inputs, one.columns_per_channel) for one in layer_shapes(net)}


def outputs(net):
    return {one.name for one in layer_shapes(net) if one.is_output}


def test_lenet():
    net = Net(path("lenet.prototxt"), data={"source": "mnist-small"}, backend="numpy")
    assert sources(net) == {
        "conv1": (Input(None, 0, 1), 25),
        "conv2": (Input("conv1", 0, 20), 25),
        "ip1": (Input("conv2", 0, 50), 16),
        "ip2": (Input("ip1", 0, 500), 1),
    }
    assert outputs(net) == {"ip2"}
    dense = {one.name: one.dense for one in flops.count(layer_shapes(net))}
    assert dense == {"conv1": 576000, "conv2": 3200000, "ip1": 800000, "ip2": 10000}


def test_dead_filters_of_lenet_propagate_through_pooling_and_flattening():
    net = Net(path("lenet.prototxt"), data={"source": "mnist-small"}, backend="numpy")
    weights = net.weights()
    for name, dead in (("conv1", 15), ("conv2", 40), ("ip1", 400)):
        weights[name][0][:dead] = 0
    net.load(weights)
    counts = {one.name: one for one in flops.count(layer_shapes(net))}
    assert counts["conv1"].propagated == 2 * 576 * 5 * 25
    assert counts["conv2"].propagated == 2 * 64 * 10 * (5 * 25)
    assert counts["conv2"].structured == 2 * 64 * 10 * (20 * 25)
    assert counts["ip1"].propagated == 2 * 100 * (10 * 16)
    assert counts["ip2"].propagated == 2 * 10 * 100


def test_every_per_channel_layer_hands_channels_on():
    names = ["ReLU", "Sigmoid", "TanH", "Dropout"]
    text, bottom = DATA + CONV % ("conv1", "data", "conv1", 4, ""), "conv1"
    for name in names:
        text += f'layer {{ name: "{name}" type: "{name}" bottom: "{bottom}" top: "{name}" }}'
        bottom = name
    text += 'layer { name: "pool" type: "Pooling" bottom: "Dropout" top: "pool" top: "where" '
    text += "pooling_param { kernel_size: 2 stride: 2 } }"
    text += 'layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }'
    text += IP % ("ip", "flat", "ip", 2, "")
    net = net_of(text)
    assert sources(net)["ip"] == (Input("conv1", 0, 4), 9)
    # the positions of the maxima are an output, so every filter is needed
    assert outputs(net) == {"conv1", "ip"}


def test_fan_out_and_whole_readers():
    text = DATA + CONV % ("conv1", "data", "conv1", 4, "")
    text += CONV % ("a", "conv1", "a", 2, "group: 2") + CONV % ("b", "conv1", "b", 3, "")
    text += 'layer { name: "soft" type: "Softmax" bottom: "b" top: "soft" }'
    text += IP % ("after", "soft", "after", 2, "")
    net = net_of(text)
    assert outputs(net) == {"a", "b", "after"}
    assert sources(net)["a"] == sources(net)["b"] == (Input("conv1", 0, 4), 9)
    assert sources(net)["after"] == (Input(None, 0, 3), 16)


def test_a_last_layer_in_place_is_an_output():
    text = DATA + CONV % ("conv1", "data", "conv1", 4, "")
    text += 'layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }'
    net = net_of(text)
    assert net.outputs == ["label", "conv1"]
    assert outputs(net) == {"conv1"}


def test_other_axes_are_not_followed():
    text = DATA + CONV % ("conv1", "data", "conv1", 4, "")
    text += IP % ("rows", "conv1", "rows", 5, "axis: -1")
    text += 'layer { name: "relu" type: "ReLU" bottom: "rows" top: "rows" }'
    text += IP % ("ip", "rows", "ip", 2, "")
    net = net_of(text)
    assert sources(net)["rows"] == (Input(None), 1)
    assert sources(net)["ip"] == (Input(None, 0, 4), 30)
    assert outputs(net) == {"conv1", "rows", "ip"}
    pixels = {shape.name: shape.pixels for shape in layer_shapes(net)}
    assert pixels == {"conv1": 36, "rows": 4 * 6, "ip": 1}


def test_a_flatten_from_the_batch_is_not_followed():
    text = DATA + CONV % ("conv1", "data", "conv1", 4, "")
    text += 'layer { name: "flat" type: "Flatten" bottom: "conv1" top: "flat" '
    text += "flatten_param { axis: 0 end_axis: 1 } }"
    text += IP % ("ip", "flat", "ip", 2, "")
    net = net_of(text)
    assert outputs(net) == {"conv1", "ip"}
    assert sources(net)["ip"] == (Input(None, 0, 6), 6)


def test_conv_modes_and_groups_are_counted():
    mode = "group: 3 conv_mode: LOWERED_CSRMM"
    net = net_of(DATA + CONV % ("conv1", "data", "conv1", 6, mode))
    weights = net.weights()
    weights["conv1"][0][...] = 1
    weights["conv1"][0][0, 0, 0, 0] = 0
    net.load(weights)
    (count,) = flops.count(layer_shapes(net))
    assert (count.dense, count.executed) == (2 * 36 * 54, 2 * 36 * 53)


def test_packed_layers_count_what_they_hold():
    kept = "kept_columns { column: 0 column: 26 } "
    text = DATA + CONV % ("conv1", "data", "conv1", 4, kept)
    text += CONV % (
        "conv2",
        "conv1",
        "conv2",
        2,
        "group: 2 kept_columns { column: 1 } kept_columns { column: 0 column: 9 column: 17 }",
    )
    text += IP % ("ip", "conv2", "ip", 3, "kept_columns { column: 5 column: 30 }")  # fmt: skip
    net = net_of(text)
    net.load({name: [np.ones_like(b) for b in blobs] for name, blobs in net.weights().items()})
    counts = {one.name: one for one in flops.count(layer_shapes(net))}
    assert counts["conv1"].dense == counts["conv1"].executed == 2 * 36 * 4 * 2
    assert counts["conv2"].dense == counts["conv2"].executed == 2 * 16 * (1 * 1 + 1 * 3)
    assert counts["ip"].dense == counts["ip"].executed == 2 * 3 * 2
    # group 0 reads channel 0 only; group 1 both of its own
    assert counts["conv1"].propagated == 2 * 36 * 3 * 2
