"""Which layers run in a phase, and where a blob that several layers read is split."""

from __future__ import annotations

import pytest

from minissl import graph
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net


def names(rules, phase="TRAIN", level=0, stages=()):
    text = f'layer {{ name: "x" type: "ReLU" bottom: "a" top: "b" {rules} }}'
    return [layer.name for layer in graph.select_layers(parse_net(text), phase, level, stages)]


@pytest.mark.parametrize(
    ("rules", "state", "stays"),
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {}, True),
        ("include { phase: TEST }", {}, False),
        ("include { phase: TEST }", {"phase": "TEST"}, True),
        ("exclude { phase: TRAIN }", {}, False),
        ("exclude { phase: TEST }", {}, True),
        # any of several rules is enough, for both kinds
        ("include { phase: TEST } include { phase: TRAIN }", {}, True),
        ("exclude { phase: TEST } exclude { phase: TRAIN }", {}, False),
        # everything inside one rule must hold
        ('include { phase: TRAIN stage: "s" }', {}, False),
        ('include { phase: TRAIN stage: "s" }', {"stages": ("s",)}, True),
        ('include { stage: "s" stage: "t" }', {"stages": ("s",)}, False),
        ('include { stage: "s" stage: "t" }', {"stages": ("t", "s")}, True),
        ('include { not_stage: "s" }', {"stages": ("s",)}, False),
        ('include { not_stage: "s" }', {"stages": ("t",)}, True),
        ('exclude { stage: "s" }', {"stages": ("s",)}, False),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ("include { min_level: 1 max_level: 2 }", {"level": 2}, True),
        ("include { max_level: -1 }", {}, False),
    ],
)
def test_rules(rules, state, stays):
    assert names(rules, **state) == (["x"] if stays else [])


def test_both_kinds_of_rules():
    with pytest.raises(ConfigError, match="layer 'x': give include rules or exclude rules"):
        names("include { phase: TRAIN } exclude { phase: TEST }")


def test_the_net_is_not_changed():
    net = parse_net(FAN_OUT)
    before = net.SerializeToString()
    graph.insert_splits(graph.select_layers(net, "TRAIN"))
    assert net.SerializeToString() == before


def test_layers_of_one_name_are_told_apart():
    """Both losses of Caffe's MNIST autoencoder are named 'loss'; weights stay with their name."""
    text = """
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" }
    layer { name: "ip" type: "ReLU" bottom: "ip" top: "ip" }
    layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "ip" bottom: "data" top: "a" }
    layer { name: "loss_2" type: "Sigmoid" bottom: "ip" top: "p" }
    layer { name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "data" top: "b" }
    """
    layers = graph.select_layers(parse_net(text), "TRAIN")
    assert [layer.name for layer in layers] == ["ip", "ip_2", "loss", "loss_2", "loss_3"]


FAN_OUT = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "act" type: "ReLU" bottom: "x" top: "x" }
layer { name: "a" type: "TanH" bottom: "x" top: "a" }
layer { name: "b" type: "TanH" bottom: "x" top: "b" }
layer { name: "c" type: "TanH" bottom: "x" top: "c" }
"""


def test_fan_out():
    """The split stands behind the in-place layer, not behind the first maker of the name."""
    layers = graph.insert_splits(graph.select_layers(parse_net(FAN_OUT), "TRAIN"))
    assert [layer.name for layer in layers] == ["in", "act", "x_act_0_split", "a", "b", "c"]
    split = layers[2]
    assert split.type == "Split"
    assert list(split.bottom) == ["x"]
    assert list(split.top) == [f"x_act_0_split_{k}" for k in range(3)]
    assert [layer.bottom[0] for layer in layers[3:]] == list(split.top)


def test_same_blob_twice_in_one_layer():
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "x" top: "l" }
    """
    layers = graph.insert_splits(graph.select_layers(parse_net(text), "TRAIN"))
    assert list(layers[2].bottom) == ["x_in_0_split_0", "x_in_0_split_1"]


def test_one_reader_needs_no_split():
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "a" type: "TanH" bottom: "x" top: "a" }
    """
    assert len(graph.insert_splits(graph.select_layers(parse_net(text), "TRAIN"))) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'layer { name: "a" type: "ReLU" bottom: "nowhere" top: "a" }',
            "layer 'a': no earlier layer makes its bottom 'nowhere'",
        ),
        (
            'layer { name: "a" type: "Input" top: "x" } layer { name: "b" type: "Input" top: "x" }',
            "layer 'b': its top 'x' is made by an earlier layer",
        ),
    ],
)
def test_errors(text, words):
    with pytest.raises(ConfigError, match=words):
        graph.insert_splits(graph.select_layers(parse_net(text), "TRAIN"))
