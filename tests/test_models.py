"""Networks that come with minissl: their published sizes."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from minissl import Net, fusion, models
from minissl.formats.prototxt import read_net
from minissl.summary import summarize
from tests.conftest import needs_compiler


@pytest.mark.parametrize("name", ["caffenet.prototxt", "caffenet_deploy.prototxt"])
def test_caffenet_has_its_published_size(name):
    # 61 million random numbers are not what is tested
    zeros = mock.patch("minissl.layers.base.fill", lambda filler, shape, *_, **__: np.zeros(shape))
    with zeros:
        net = Net(models.path(name), "TEST", backend="numpy", data={"batch_size": 1})
    layers = {one.name: one for one in summarize(net)}
    assert sum(one.parameters for one in layers.values()) == 60_965_224
    assert {name: one.flop // 2 for name, one in layers.items() if one.flop} == {
        "conv1": 105_415_200,
        "conv2": 223_948_800,
        "conv3": 149_520_384,
        "conv4": 112_140_288,
        "conv5": 74_760_192,
        "fc6": 37_748_736,
        "fc7": 16_777_216,
        "fc8": 4_096_000,
    }  # 724 million
    sizes = {top: shape[1:] for one in layers.values() for top, shape in one.tops.items()}
    assert sizes["conv1"] == (96, 55, 55) and sizes["norm1"] == (96, 27, 27)
    assert sizes["norm2"] == (256, 13, 13) and sizes["pool5"] == (256, 6, 6)


def test_convnet_has_its_published_size():
    net = Net(models.path("convnet.prototxt"), "TRAIN", backend="numpy", data={"batch_size": 1})
    layers = {one.name: one for one in summarize(net)}
    # products of one image: pixels x filters x columns
    assert {name: one.flop // 2 for name, one in layers.items() if one.flop} == {
        "conv1": 1024 * 32 * 75,
        "conv2": 256 * 32 * 800,
        "conv3": 64 * 64 * 800,
        "ip1": 10 * 1024,
    }
    assert sum(one.parameters for one in layers.values()) == 89_578


def layers_of(net):
    return {layer.name: layer for layer in net.layer if layer.param}


def put_dropout_in_front(net):
    """Move Dropout from the scores of ip1 to what ip1 reads."""
    names = [layer.name for layer in net.layer]
    ip1, drop = (net.layer[names.index(name)] for name in ("ip1", "drop"))
    assert names.index("drop") == names.index("ip1") + 1
    assert list(drop.bottom) == list(drop.top) == ["ip1"]
    moved = type(drop)()
    moved.CopyFrom(drop)
    moved.bottom[:] = moved.top[:] = ip1.bottom
    drop.CopyFrom(ip1)
    ip1.CopyFrom(moved)


def test_convnets_differ_only_in_what_is_said():
    """Multipliers of group lasso, frozen zeros, fillers, decay of ip1, place of Dropout."""
    plain, dense, frozen, *lassos = (
        read_net(models.path(f"convnet{kind}.prototxt"))
        for kind in ("", "_dense", "_ft", "2_ssl", "2_ssl2", "3_ssl")
    )
    rows = [
        {"conv1": (0.2, 1.75), "conv2": (1.12, 0.97), "conv3": (0.82, 0.35), "ip1": (0.7, 0.7)},
        {"conv1": (0.2, 1), "conv2": (1.12, 0.9), "conv3": (0.79, 0.5), "ip1": (0.7, 0.7)},
        {"conv1": (0.2, 1.2), "conv2": (1.1, 0.2), "conv3": (0.8, 0.08), "ip1": (1, 1)},
    ]
    for lasso, expected in zip(lassos, rows, strict=True):
        found = {}
        for name, layer in layers_of(lasso).items():
            weights = layer.param[0]
            found[name] = (weights.kernel_shape_decay_mult, weights.breadth_decay_mult)
            weights.ClearField("breadth_decay_mult")
            weights.ClearField("kernel_shape_decay_mult")
        assert {name: pytest.approx(pair) for name, pair in expected.items()} == found
    for name, layer in layers_of(frozen).items():
        assert layer.connectivity_mode == (0 if name == "ip1" else 2)  # CONNECTED, GRPWISE
        layer.ClearField("connectivity_mode")
    for name, layer in layers_of(dense).items():
        if name != "ip1":
            filler = layer.convolution_param.weight_filler
            published = layers_of(plain)[name].convolution_param.weight_filler
            assert filler.std == published.std if name == "conv1" else filler.std > published.std
            filler.CopyFrom(published)
    decays = []
    for net in (plain, dense, *lassos, frozen):
        weights = layers_of(net)["ip1"].param[0]
        decays.append(weights.decay_mult)
        weights.ClearField("decay_mult")
    assert decays == [250, 2, 1, 1, 1, 2]
    for lasso in lassos:
        put_dropout_in_front(lasso)
    assert all(net == plain for net in (dense, *lassos, frozen))


def narrow_caffenet(pixels: int = 67):
    """CaffeNet with few filters and a small image: the same chains."""
    param = read_net(models.path("caffenet_deploy.prototxt"))
    for layer in param.layer:
        if layer.type == "Convolution":
            layer.convolution_param.num_output //= 16
            layer.convolution_param.weight_filler.std = 0.1
        if layer.type == "InnerProduct":
            layer.inner_product_param.num_output = 10
            layer.inner_product_param.weight_filler.std = 0.1
    param.layer[0].input_param.shape[0].dim[:] = [3, 3, pixels, pixels]
    return param


@needs_compiler
def test_caffenet_is_fused_as_skimcaffe_does_it():
    net = Net(narrow_caffenet(), fuse=True)
    plain = Net(narrow_caffenet(), fuse=False)
    kinds = [step.kind for step in net.steps if isinstance(step, fusion.FusedStep)]
    assert kinds == [
        "ConvolutionReLUPoolLRN",
        "ConvolutionReLUPoolLRN",
        "ConvolutionReLU",
        "ConvolutionReLU",
        "ConvolutionReLUPool",
        "InnerProductReLUDropout",
        "InnerProductReLUDropout",
    ]
    x = np.random.default_rng(0).normal(scale=50, size=(3, 3, 67, 67))
    found, expected = net.forward({"data": x})["prob"], plain.forward({"data": x})["prob"]
    assert np.array_equal(found, expected) and np.ptp(found) > 0.01
    assert np.array_equal(net.blobs["pool1"].data, plain.blobs["pool1"].data)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_caffenet_reads_and_learns_in_both_phases(phase):
    with mock.patch("minissl.layers.base.fill", lambda filler, shape, *_, **__: np.zeros(shape)):
        net = Net(models.path("caffenet.prototxt"), phase, backend="numpy", data={"batch_size": 2})
    assert "loss" in net.outputs and ("accuracy" in net.outputs) == (phase == "TEST")
    assert [p.spec.lr_mult for p in net.parameters] == [1, 2] * 8
