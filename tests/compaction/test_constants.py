"""What is known of dead filters, and how far it is known; biases and weights are of order 1."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.compaction import compact, prove
from tests.compaction.nets import build, change, check, conv, data, ip, layer, rebuild, zeros_at

BACKENDS = ["numpy", "numba"]


def shapes(compacted):
    return {one.name: one.shape_after for one in compacted.report.layers}


def stays(compacted):
    return {one.name: one.stays for one in compacted.report.layers if one.stays}


@pytest.mark.parametrize("bias", ["", "bias_term: false"])
@pytest.mark.parametrize("activation", ["ReLU", "Sigmoid", "TanH", "Dropout"])
@pytest.mark.parametrize("in_place", [True, False])
def test_constants_pass_activations(activation, in_place, bias):
    top = "conv1" if in_place else "activation"
    net = build(
        data(),
        conv("conv1", "data", 4, f"kernel_size: 3 {bias}"),
        layer(activation, "act", "conv1", top),
        conv("conv2", top, 2, "kernel_size: 2 bias_term: false"),
    )
    change(net, conv1=zeros_at(0, 2))
    compacted = check(net)
    assert shapes(compacted) == {"conv1": (2, 2, 3, 3), "conv2": (2, 2, 2, 2)}
    gets_bias = activation == "Sigmoid" or not bias
    assert len(compacted.weights["conv2"]) == 1 + gets_bias
    assert compacted.net_param.layer[-1].convolution_param.bias_term == gets_bias
    if activation == "Sigmoid" and bias:  # sigmoid(0) = 0.5 is what the next layer saw
        expected = 0.5 * net.weights()["conv2"][0][:, [0, 2]].sum(axis=(1, 2, 3))
        np.testing.assert_allclose(compacted.weights["conv2"][1], expected, rtol=1e-14)


@pytest.mark.parametrize(
    "pooling, passes",
    [
        ("pool: MAX kernel_size: 3 stride: 2", True),
        ("pool: MAX kernel_size: 3 stride: 2 pad: 1", True),
        ("pool: AVE kernel_size: 3 stride: 2", True),  # 6 / 3 windows hang over the edge
        ("pool: AVE kernel_size: 3 stride: 2 pad: 1", False),
    ],
)
def test_constants_pass_pooling_where_it_keeps_them_even(pooling, passes):
    net = build(
        data(height=8, width=8),
        conv("conv1", "data", 3),
        layer("Pooling", "pool", "conv1", "pool", f"pooling_param {{ {pooling} }}"),
        conv("conv2", "pool", 2, "kernel_size: 2"),
    )
    change(net, conv1=zeros_at(1))
    compacted = check(net)
    assert shapes(compacted)["conv1"][0] == (2 if passes else 3)
    assert list(stays(compacted)) == ([] if passes else ["conv1"])


def test_an_inner_product_takes_any_constant_even_an_uneven_one():
    """Behind padded average pooling each pixel has its own weight, so its own constant as well."""
    fields = "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"
    net = build(
        data(height=8, width=8),
        conv("conv1", "data", 3),
        layer("Pooling", "pool", "conv1", "pool", fields),
        ip("ip", "pool", 2),
    )
    change(net, conv1=zeros_at(1))
    pixels = int(np.prod(net.blobs["pool"].shape[2:]))
    assert shapes(check(net)) == {"conv1": (2, 2, 3, 3), "ip": (2, 2 * pixels)}


def test_padding_keeps_a_filter_with_a_bias_and_the_report_says_why():
    padded = conv("conv2", "conv1", 2, "kernel_size: 3 pad: 1")
    net = build(data(), conv("conv1", "data", 3), padded)
    change(net, conv1=zeros_at(1))
    compacted = check(net)
    assert shapes(compacted)["conv1"] == (3, 2, 3, 3)
    assert stays(compacted) == {
        "conv1": [
            "1 constant filter stays: conv2, which sees its border (padding), "
            "cannot take that into a bias"
        ]
    }


@pytest.mark.parametrize("bias", [0.0, -2.0])
def test_padding_does_not_matter_to_a_constant_of_zero(bias):
    net = build(
        data(),
        conv("conv1", "data", 3),
        layer("ReLU", "relu", "conv1", "conv1"),
        conv("conv2", "conv1", 2, "kernel_size: 3 pad: 1"),
    )
    net.layer("conv1").parameters[1].data[1] = bias
    change(net, conv1=zeros_at(1))
    compacted = check(net)
    assert shapes(compacted) == {"conv1": (2, 2, 3, 3), "conv2": (2, 2, 3, 3)}


def test_padding_does_not_matter_where_the_border_columns_are_dead():
    net = build(
        data(), conv("conv1", "data", 3), conv("conv2", "conv1", 2, "kernel_size: 3 pad: 1")
    )

    def only_the_centre_reads_channel_1(w):
        centre = w[:, 1, 1, 1].copy()
        w[:, 1] = 0
        w[:, 1, 1, 1] = centre

    change(net, conv1=zeros_at(1), conv2=only_the_centre_reads_channel_1)
    assert shapes(check(net)) == {"conv1": (2, 2, 3, 3), "conv2": (2, 2, 3, 3)}


def test_constants_run_through_a_chain():
    """A filter that reads dead filters only is constant in turn."""
    net = build(
        data(height=9, width=9),
        conv("conv1", "data", 3),
        layer("Sigmoid", "s1", "conv1", "conv1"),
        conv("conv2", "conv1", 3),
        layer("TanH", "s2", "conv2", "conv2"),
        conv("conv3", "conv2", 2),
        ip("ip", "conv3", 2),
    )

    def filter_0_reads_channel_1(w):
        w[0, [0, 2]] = 0

    change(net, conv1=zeros_at(1), conv2=filter_0_reads_channel_1)
    assert shapes(check(net, backends=BACKENDS)) == {
        "conv1": (2, 2, 3, 3), "conv2": (2, 2, 3, 3), "conv3": (2, 2, 3, 3), "ip": (2, 18),
    }  # fmt: skip


def test_means_that_differ_by_rounding_are_even():
    pooling = "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"
    net = build(
        data(height=8, width=8),
        conv("conv1", "data", 40),
        layer("Pooling", "pool", "conv1", "pool", pooling),
        conv("conv2", "pool", 2, "kernel_size: 2"),
    )
    net.layer("conv1").parameters[1].data[...] = np.arange(1, 41) / 10
    change(net, conv1=zeros_at(*range(39)))
    assert shapes(check(net))["conv1"] == (1, 2, 3, 3)


def test_float32_is_folded_in_double_and_kept_single():
    net = build(data(), conv("conv1", "data", 3), conv("conv2", "conv1", 2), dtype="float32")
    change(net, conv1=zeros_at(0))
    compacted = compact(net)
    assert {blob.dtype.name for blobs in compacted.weights.values() for blob in blobs} == {
        "float32"
    }
    proof = prove(net, rebuild(net, compacted))
    assert proof.max_abs_difference < 1e-5 * proof.largest_output
