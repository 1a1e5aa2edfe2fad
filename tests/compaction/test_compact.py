"""Each case has biases and weights of order 1, so that a wrong fold is off by as much."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.channels import layer_shapes
from minissl.compaction import compact, prove
from minissl.net import Net
from minissl.sparsity import flops
from tests.compaction.nets import build, change, check, conv, data, ip, layer, rebuild, zeros_at

BACKENDS = ["numpy", "numba"]


def shapes(compacted):
    return {one.name: one.shape_after for one in compacted.report.layers}


def stays(compacted):
    return {one.name: one.stays for one in compacted.report.layers if one.stays}


def executed(net):
    return flops.total(flops.count(layer_shapes(net)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_dead_changes_nothing(backend):
    net = build(data(), conv("conv1", "data", 3), ip("ip", "conv1", 4), backend=backend)
    compacted = check(net, backends=BACKENDS)
    assert compacted.net_param == net.param
    assert compacted.report.bytes_after == compacted.report.bytes_before
    np.testing.assert_array_equal(compacted.weights["conv1"][0], net.weights()["conv1"][0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_filter_leaves_with_its_channel_and_its_bias_is_folded(backend):
    net = build(data(), conv("conv1", "data", 3), conv("conv2", "conv1", 4), backend=backend)
    change(net, conv1=zeros_at(1))
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted) == {"conv1": (2, 2, 3, 3), "conv2": (4, 2, 3, 3)}
    (w, b), bias = net.weights()["conv2"], net.weights()["conv1"][1][1]
    expected = b + bias * w[:, 1].sum(axis=(1, 2))
    np.testing.assert_allclose(compacted.weights["conv2"][1], expected, rtol=1e-14)
    first, second = compacted.report.layers
    assert (first.filters_removed, second.channels_removed, second.folded) == (1, 1, 4)
    assert not stays(compacted)


def test_an_unread_filter_leaves_with_all_it_alone_needed():
    net = build(data(), conv("conv1", "data", 3), conv("conv2", "conv1", 3, "kernel_size: 1"),
                conv("conv3", "conv2", 2, "kernel_size: 1"))  # fmt: skip

    def first_channel(w):
        w[:, 0] = 0

    def only_filter_0_reads_channel_2(w):
        w[1:, 2] = 0

    change(net, conv3=first_channel, conv2=only_filter_0_reads_channel_2)
    compacted = check(net)
    # conv3 does not read filter 0 of conv2, which alone read filter 2 of conv1
    assert shapes(compacted) == {
        "conv1": (2, 2, 3, 3), "conv2": (2, 2, 1, 1), "conv3": (2, 2, 1, 1),
    }  # fmt: skip


@pytest.mark.parametrize("middle", ["", "bias_term: false"])
def test_a_dead_layer_keeps_one_filter(middle):
    net = build(
        data(),
        conv("conv1", "data", 4),
        conv("conv2", "conv1", 3, f"kernel_size: 2 {middle}"),
        layer("Sigmoid", "s", "conv2", "conv2"),
        ip("ip", "conv2", 3),
    )
    change(net, conv2=zeros_at(0, 1, 2))
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted)["conv1"] == (1, 1)  # one filter, one kept column
    assert shapes(compacted)["conv2"] == (1, 1)
    assert shapes(compacted)["ip"] == (3, 1)
    assert "needs one" in stays(compacted)["conv2"][0]


def test_dead_output_filters_stay():
    net = build(data(), ip("ip", "data", 3))
    change(net, ip=zeros_at(0, 1))
    compacted = check(net)
    assert shapes(compacted) == {"ip": (3, 60)}
    assert "outputs" in stays(compacted)["ip"][0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_columns_of_the_data_are_left_out(backend):
    net = build(data(), conv("conv", "data", 4), backend=backend)

    def shape(w):
        w[:, 0, :2] = 0

    change(net, conv=shape)
    compacted = check(net, backends=BACKENDS)
    (kept,) = compacted.net_param.layer[-1].convolution_param.kept_columns
    assert list(kept.column) == [c for c in range(18) if c >= 6]
    assert shapes(compacted) == {"conv": (4, 12)}
    assert compacted.report.layers[0].columns_removed == 6
    assert executed(rebuild(net, compacted)).executed == executed(net).propagated


def test_columns_stay_where_their_index_would_take_more_than_they_save():
    net = build(data(), conv("conv", "data", 1), ip("ip", "conv", 8), dtype="float32")

    def one_column(w):
        w[:, 0, 0, 0] = 0

    def half(w):
        w[:, :6] = 0

    change(net, conv=one_column, ip=half)
    assert shapes(compact(net)) == {"conv": (1, 2, 3, 3), "ip": (8, 6)}


def test_a_net_that_would_grow_is_returned_unchanged():
    """One constant in, and three biases where there was none: that is more than before."""
    one = "kernel_size: 1"
    net = build(
        data(channels=1),
        conv("conv1", "data", 1, one),
        conv("conv2", "conv1", 3, f"{one} bias_term: false"),
    )
    change(net, conv1=zeros_at(0))
    compacted = check(net)
    assert compacted.net_param == net.param
    assert len(compacted.weights["conv2"]) == 1
    assert all(layer.folded == 0 for layer in compacted.report.layers)


def test_a_packed_layer_with_frozen_connectivity_can_be_loaded():
    fields = "kernel_size: 3 group: 2"
    frozen = 'connectivity_mode: DISCONNECTED_GRPWISE top: "conv"'
    net = build(data(channels=4), conv("conv", "data", 6, fields).replace('top: "conv"', frozen))

    def uneven(w):
        w[:, 0] = 0
        w[:3, 1, 0, 0] = 0

    change(net, conv=uneven)
    assert shapes(check(net)) == {"conv": (3 * (8 + 9),)}  # does not divide into two groups


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_surviving_column(backend):
    net = build(data(), conv("conv", "data", 4, "kernel_size: 3 pad: 1"), backend=backend)

    def one_column(w):
        column = w[:, 1, 2, 0].copy()
        w[...] = 0
        w[:, 1, 2, 0] = column

    change(net, conv=one_column)
    assert shapes(check(net, backends=BACKENDS)) == {"conv": (4, 1)}


def test_one_by_one_kernels():
    one = "kernel_size: 1"
    net = build(data(), conv("conv1", "data", 4, one), conv("conv2", "conv1", 3, one))
    change(net, conv1=zeros_at(0, 3))
    assert shapes(check(net, backends=BACKENDS)) == {"conv1": (2, 2, 1, 1), "conv2": (3, 2, 1, 1)}


def test_conv_groups_keep_equal_numbers():
    """Group 1 loses both filters, group 0 one: one of each must stay, here and in the reader."""
    net = build(
        data(channels=4, height=7, width=7),
        conv("conv1", "data", 4, "kernel_size: 3 group: 2"),
        conv("conv2", "conv1", 4, "kernel_size: 2 group: 2"),
        ip("ip", "conv2", 2),
    )
    change(net, conv1=zeros_at(1, 2, 3), conv2=zeros_at(0))
    compacted = check(net, backends=BACKENDS)
    after = rebuild(net, compacted)
    assert after.layer("conv1").filters == 2
    assert compacted.weights["conv1"][0].shape == (18,)  # nothing is stored for the filler
    assert compacted.weights["conv1"][1][1] in net.weights()["conv1"][1][2:]  # what it was
    assert "equal numbers" in stays(compacted)["conv1"][0]
    # filters of conv2's group 1 read nothing but constants: they leave, and fillers come in
    assert after.layer("conv2").filters == 2


def test_conv_groups_of_the_reader_bind_the_producer():
    net = build(
        data(height=7, width=7),
        conv("conv1", "data", 6),
        conv("conv2", "conv1", 4, "kernel_size: 2 group: 2"),
    )
    change(net, conv1=zeros_at(0, 1, 5))
    compacted = check(net, backends=BACKENDS)
    after = rebuild(net, compacted)
    assert after.layer("conv1").filters == 4  # channels 0-2 lose two, 3-5 one: two each stay
    assert after.layer("conv2").filters == 4  # it is the output


def test_kept_columns_by_group():
    net = build(data(channels=4), conv("conv", "data", 4, "kernel_size: 3 group: 2"))

    def uneven(w):
        w[:2, 0] = 0
        w[2:, 1, 0] = 0

    change(net, conv=uneven)
    compacted = check(net, backends=BACKENDS)
    kept = [list(k.column) for k in compacted.net_param.layer[-1].convolution_param.kept_columns]
    assert kept == [list(range(9, 18)), [c for c in range(18) if c not in (9, 10, 11)]]
    assert shapes(compacted) == {"conv": (2 * (9 + 15),)}
    count = executed(rebuild(net, compacted))
    assert count.executed == count.dense == executed(net).propagated


def test_two_readers_must_both_let_go():
    net = build(
        data(),
        conv("conv1", "data", 4),
        conv("left", "conv1", 2, "kernel_size: 1"),
        conv("right", "conv1", 2, "kernel_size: 3 pad: 1"),
    )

    def channels(*dead):
        def edit(w):
            w[:, list(dead)] = 0

        return edit

    # 0: constant, right holds on to it; 1: constant, right does not read it; 2: read by no one
    change(net, conv1=zeros_at(0, 1), left=channels(2), right=channels(1, 2))
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted)["conv1"][0] == 2
    (reason,) = stays(compacted)["conv1"]
    assert "right" in reason and "left" not in reason


@pytest.mark.parametrize("transpose", [False, True])
def test_flattened_pixels_leave_with_their_filter(transpose):
    net = build(
        data(),
        conv("conv1", "data", 3),
        layer("Pooling", "pool", "conv1", "pool", "pooling_param { kernel_size: 2 stride: 2 }"),
        layer("Flatten", "flat", "pool", "flat"),
        ip("ip1", "flat", 4, f"transpose: {str(transpose).lower()}"),
        ip("ip2", "ip1", 2, f"transpose: {str(transpose).lower()}"),
    )
    pixels = 4
    hidden = 2

    def neuron(w):
        w[(slice(None), hidden) if transpose else hidden] = 0

    change(net, conv1=zeros_at(1), ip1=neuron)
    expected = {"ip1": (3, 2 * pixels), "ip2": (2, 3)}
    if transpose:
        expected = {name: shape[::-1] for name, shape in expected.items()}
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted) == {"conv1": (2, 2, 3, 3), **expected}


def test_a_transposed_layer_that_loses_columns_is_stored_untransposed():
    net = build(data(), ip("ip", "data", 4, "transpose: true"))

    def pixels(w):
        w[10:30] = 0

    change(net, ip=pixels)
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted) == {"ip": (4, 40)}
    assert not compacted.net_param.layer[-1].inner_product_param.transpose


@pytest.mark.parametrize("backend", BACKENDS)
def test_mlp_with_dead_pixels_and_neurons(backend):
    net = build(
        data(channels=1),
        ip("ip1", "data", 8),
        layer("ReLU", "relu1", "ip1", "ip1"),
        ip("ip2", "ip1", 6),
        layer("ReLU", "relu2", "ip2", "ip2"),
        ip("ip3", "ip2", 3),
        backend=backend,
    )

    def border(w):
        w[:, [0, 1, 2, 3, 4, 25, 26, 27, 28, 29]] = 0
        w[[1, 5]] = 0

    def unread(w):
        w[:, 0] = 0
        w[3] = 0

    change(net, ip1=border, ip2=unread)
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted) == {"ip1": (5, 20), "ip2": (5, 5), "ip3": (3, 5)}
    assert executed(rebuild(net, compacted)).executed == executed(net).propagated


def test_an_inner_product_over_another_axis_keeps_its_filters():
    net = build(
        data(),
        conv("conv1", "data", 3, "kernel_size: 1"),
        ip("rows", "conv1", 4, "axis: 3"),
        layer("ReLU", "relu", "rows", "rows"),
        ip("ip", "rows", 2),
    )

    def columns(w):
        w[:, [0, 3]] = 0
        w[1] = 0

    change(net, conv1=zeros_at(0), rows=columns)
    compacted = check(net, backends=BACKENDS)
    assert shapes(compacted) == {"conv1": (3, 2, 1, 1), "rows": (4, 3), "ip": (2, 72)}
    readers = {group.layers[0]: group.readers for group in compacted.report.groups}
    assert readers["conv1"] == ["rows"] and readers["ip"] == []


def test_shared_weights_stay():
    shared = 'param { name: "w" } param { name: "b" }'
    text = [data(), conv("conv1", "data", 3)]
    for name, bottom in (("a", "conv1"), ("b", "conv1")):
        text.append(
            ip(name, bottom, 2).replace("inner_product_param", f"{shared} inner_product_param")
        )
    net = build(*text)
    change(net, conv1=zeros_at(1))
    compacted = check(net)
    assert compacted.net_param == net.param
    assert "shares" in stays(compacted)["conv1"][0]
    assert all(one.folded == 0 for one in compacted.report.layers)


def test_what_does_not_touch_shared_weights_still_leaves():
    shared = 'type: "InnerProduct" param { name: "w" } param { name: "b" }'
    text = [ip(name, "conv2", 2).replace('type: "InnerProduct"', shared) for name in "ab"]
    net = build(data(), conv("conv1", "data", 3), conv("conv2", "conv1", 3), *text)
    change(net, conv1=zeros_at(1), conv2=zeros_at(0))
    compacted = check(net)
    assert shapes(compacted)["conv1"] == (2, 2, 3, 3)
    assert shapes(compacted)["conv2"] == (3, 2, 3, 3)
    assert [one.folded for one in compacted.report.layers] == [0, 2, 0, 0]


def test_sparse_conv_modes_survive():
    for mode in ("LOWERED_CSRMM", "LOWERED_CCNMM"):
        net = build(
            data(height=8, width=8),
            conv("conv1", "data", 4, f"kernel_size: 3 conv_mode: {mode}"),
            conv("conv2", "conv1", 4, f"kernel_size: 3 conv_mode: {mode}"),
        )

        def columns(w):
            w[:, :, 0] = 0

        change(net, conv1=zeros_at(1, 2), conv2=columns)
        compacted = check(net, backends=BACKENDS)
        assert shapes(compacted) == {"conv1": (2, 2, 3, 3), "conv2": (4, 12)}
        assert compacted.net_param.layer[1].convolution_param.conv_mode != 0


def test_a_net_that_only_lost_filters_can_be_trained_on():
    text = [
        data(),
        'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 } } }',
        conv("conv1", "data", 4),
        ip("ip", "conv1", 3),
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }',
    ]
    net = build(*text)
    change(net, conv1=zeros_at(0, 3))
    compacted = check(net)
    train = rebuild(net, compacted, phase="TRAIN")
    train.forward()
    train.backward()
    assert train.layer("conv1").parameters[0].diff.shape == (2, 2, 3, 3)


def test_both_phases_are_changed():
    text = "\n".join(
        [
            data(batch=3).replace('top: "data"', 'top: "data" include { phase: TRAIN }'),
            data(batch=2).replace('top: "data"', 'top: "data" include { phase: TEST }'),
            conv("conv1", "data", 4),
            ip("train_only", "conv1", 2).replace('top: "', 'include { phase: TRAIN } top: "'),
            ip("ip", "conv1", 2),
        ]
    )
    net = build(text)
    change(net, conv1=zeros_at(2))
    compacted = check(net)
    assert len(compacted.net_param.layer) == 5
    train = rebuild(net, compacted, phase="TRAIN")
    assert train.blobs["conv1"].shape[:2] == (3, 3)
    assert train.layer("train_only").parameters[0].shape == (2, 36)


def test_lenet_with_structured_zeros():
    from minissl.models import path

    net = Net(
        path("lenet.prototxt"), backend="numba", dtype="float64", data={"source": "mnist-small"}
    )
    rng = np.random.default_rng(3)

    def structured(w):
        matrix = w.reshape(len(w), -1)
        matrix[rng.random(len(matrix)) < 0.4] = 0
        matrix[:, rng.random(matrix.shape[1]) < 0.4] = 0

    weights = net.weights()
    for blobs in weights.values():
        blobs[1][...] = rng.standard_normal(blobs[1].shape)
    net.load(weights)
    change(net, conv1=structured, conv2=structured, ip1=structured)
    compacted = compact(net)
    smaller = rebuild(net, compacted, "numba")
    proof = prove(net, smaller)
    assert proof.real is not None
    assert proof.compared == ["ip2"]
    assert proof.max_abs_difference < 1e-12 * proof.largest_output
    assert compacted.report.bytes_after < compacted.report.bytes_before / 2
    assert executed(smaller).executed == executed(net).propagated
    assert net.forward()["accuracy"] == smaller.forward()["accuracy"]
