from __future__ import annotations

import numpy as np
import pytest

from minissl.compaction import compact, prove
from minissl.errors import ShapeError
from minissl.formats.prototxt import parse_net
from minissl.net import Net
from tests.compaction.nets import build, change, conv, data, ip, rebuild, zeros_at

LABELS = 'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 } } }'
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'


def example():
    net = build(data(), LABELS, conv("conv1", "data", 3), ip("ip", "conv1", 4), LOSS)
    return change(net, conv1=zeros_at(1))


def test_a_forgotten_constant_is_seen():
    net = example()
    compacted = compact(net)
    compacted.weights["ip"][1] = net.weights()["ip"][1]  # the bias without what was folded
    proof = prove(net, rebuild(net, compacted))
    assert proof.compared == ["ip"]
    assert proof.max_abs_difference > 0.1


def test_real_images_are_cut_into_batches():
    net = example()
    smaller = rebuild(net, compact(net))
    # a difference that only the third image, in the second batch, shows
    smaller.layer("conv1").parameters[0].data[:, 0] += 1
    images = np.zeros((3, 2, 6, 5))
    images[:, 1] = 5
    assert prove(net, smaller, images[:2]).real < 1e-9
    images[2, 0] = 100
    proof = prove(net, smaller, images)
    assert proof.real > 50
    assert proof.max_abs_difference == max(proof.real, proof.random)


def test_input_layers_have_no_real_images():
    net = example()
    assert prove(net, rebuild(net, compact(net))).real is None


def test_the_position_in_the_data_stays():
    text = """
        layer { name: "d" type: "Data" top: "data" top: "label"
                data_param { source: "mnist-small" batch_size: 2 } }
    """
    param = parse_net(text + ip("ip", "data", 3))
    net = Net(param, dtype="float64", backend="numpy")
    net.load({"ip": [np.ones((3, 784)), np.ones(3)]})
    first = net.forward()["label"].copy()
    proof = prove(net, rebuild(net, compact(net)))
    assert proof.real is not None and proof.largest_output > 1
    following = net.forward()["label"].copy()
    fresh = Net(param, dtype="float64", backend="numpy")
    np.testing.assert_array_equal(fresh.forward()["label"], first)
    np.testing.assert_array_equal(fresh.forward()["label"], following)


def test_images_of_another_shape_are_refused():
    net = example()
    smaller = rebuild(net, compact(net))
    for images in (np.zeros((2, 1, 6, 5)), np.zeros((0, 2, 6, 5))):
        with pytest.raises(ShapeError, match="blob 'data'"):
            prove(net, smaller, images)


def test_networks_that_do_not_match_are_refused():
    net = example()
    with pytest.raises(ShapeError, match="batch size"):
        prove(net, Net(net.param, data={"batch_size": 1}))
    other = build(data(), LABELS, conv("conv1", "data", 3), ip("ip", "conv1", 5), LOSS)
    with pytest.raises(ShapeError, match="'ip'"):
        prove(net, other)
