"""Residual and branching networks by hand: which layers leave, and where their constants go."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.channels import layer_shapes
from minissl.compaction import compact
from minissl.formats.prototxt import parse_net
from minissl.net import Net
from minissl.sparsity import flops
from tests.compaction.nets import (
    affine,
    build,
    change,
    check,
    conv,
    data,
    everything,
    ip,
    joined,
    layer,
    names,
    norm,
    rebuild,
    residual,
    resnet,
    zeros_at,
)


def shapes(compacted):
    return {x.name: x.shape_after for x in compacted.report.layers if x.shape_after}


def stays(compacted):
    return compacted.report.stays


def set_constant(net, name, values):
    """Let the norms behind a dead convolution put out these numbers."""
    weights = net.weights()
    gamma, beta = weights[f"{name}_scale"]
    gamma[np.broadcast_to(values, gamma.shape) == 0] = 0  # exactly 0, without rounding
    net.load(weights)
    beta += values - affine(net, name)[1]
    net.load(weights)


# ------------------------------------------------------------------------------ dead branches


def test_a_branch_whose_last_convolution_died_leaves_a_bias():
    net = change(build(*resnet(2)), res1a_conv2=everything)
    compacted = check(net)
    assert [x for x in compacted.report.removed_layers if "relu" not in x] == [
        "res1a_conv1", "res1a_conv1_bn", "res1a_conv1_scale",
        "res1a_conv2", "res1a_conv2_bn", "res1a_conv2_scale",
    ]  # fmt: skip
    (bias,) = compacted.weights["res1a"]
    assert compacted.layer_types["res1a"] == "Bias"
    np.testing.assert_allclose(bias, affine(net, "res1a_conv2")[1], rtol=1e-13)


def test_a_branch_that_adds_zero_leaves_nothing():
    net = change(build(*resnet(2)), res1b_conv2=everything)
    set_constant(net, "res1b_conv2", 0)
    compacted = check(net)
    assert not any(name.startswith("res1b") and name != "res1b_relu" for name in names(compacted))
    relu = next(x for x in compacted.net_param.layer if x.name == "res1b_relu")
    assert (relu.bottom[0], relu.top[0]) == ("res1a", "res1b")


def test_behind_a_dead_convolution_the_next_one_sees_the_borders():
    """conv1 is dead, conv2 is not: the branch adds a map, which shows where conv2 is padded."""
    text = [data(channels=3, height=4, width=4), conv("conv0", "data", 4, "kernel_size: 1")]
    net = change(
        build(*text, residual("res", "conv0", 4), ip("ip", "res", 2)), res_conv1=everything
    )
    set_constant(net, "res_conv1", [1.0, -1.0, 2.0, 0.5])
    compacted = check(net)
    assert not any("conv1" in name or "conv2" in name for name in names(compacted))
    (bias,) = compacted.weights["res"]
    assert bias.shape == (4, 4, 4)
    assert np.ptp(bias[:, 1:-1, 1:-1], axis=(1, 2)).max() < 1e-12
    assert np.ptp(bias, axis=(1, 2)).min() > 0.1  # without borders it would be wrong by as much


def test_a_map_that_is_larger_than_its_layers_stays_as_one_channel():
    net = change(build(*resnet(1, size=16)), res1a_conv1=everything)
    set_constant(net, "res1a_conv1", [1.0, -1.0, 2.0, 0.5])
    compacted = check(net)
    assert shapes(compacted)["res1a_conv1"] == (1, 1)
    assert shapes(compacted)["res1a_conv1_scale"] == (1,)
    assert shapes(compacted)["res1a_conv2"] == (4, 1, 3, 3)
    merged = {x.name: x.merged for x in compacted.report.layers if x.merged}
    assert merged == {"res1a_conv2": 2}  # the one below 0 is cut off by the ReLU
    assert "bytes" in stays(compacted)["res1a"][0]


@pytest.mark.parametrize("bias", ["", "bias_term: false"])
def test_what_a_projected_block_adds_moves_into_the_shortcut(bias):
    net = build(*(text.replace("bias_term: false", bias) for text in resnet(1)))
    change(net, res2a_conv2=everything)
    compacted = check(net)
    assert "res2a" not in names(compacted)
    assert [x for x in names(compacted) if x.startswith("res2a")] == [
        "res2a_shortcut",
        "res2a_relu",
    ]
    before = net.weights()
    old = before["res2a_shortcut"][1] if not bias else 0
    k = compacted.weights["res2a_shortcut"][1] - old
    dead = before["res2a_conv2"][1] if not bias else 0
    scale, shift = affine(net, "res2a_conv2")
    np.testing.assert_allclose(k, scale * dead + shift, rtol=1e-12)


def test_a_dead_shortcut_moves_into_the_branch():
    net = change(build(*resnet(1)), res2a_shortcut=everything)
    compacted = check(net)
    assert "res2a" not in names(compacted) and "res2a_shortcut" not in names(compacted)
    assert "res2a_conv2" in names(compacted)


def test_all_blocks_may_die():
    net = build(*resnet(3, widths=(4,)))
    change(net, **{f"res1{block}_conv2": everything for block in "abc"})
    compacted = check(net)
    assert [x.name for x in compacted.net_param.layer if x.type == "Convolution"] == ["conv1"]
    assert [x.type for x in compacted.net_param.layer].count("Bias") == 3


def test_a_network_without_anything_alive_still_answers():
    net = build(*resnet(1))
    compacted = check(change(net, conv1=everything))
    assert shapes(compacted)["ip1"] == (3, 1)


def test_a_branch_of_three_terms():
    text = [data(), conv("a", "data", 3), conv("b", "data", 3), conv("c", "data", 3)]
    net = build(*text, joined("Eltwise", "sum", ["a", "b", "c"]), ip("ip", "sum", 2))
    change(net, b=everything)
    compacted = check(net)
    total = next(x for x in compacted.net_param.layer if x.name == "sum")
    assert list(total.bottom) == ["a", "c"]
    added = net.weights()["a"][1] + net.weights()["b"][1]
    np.testing.assert_allclose(compacted.weights["a"][1], added)


def test_where_no_bias_takes_the_constant_a_layer_of_its_own_does():
    text = [data(), conv("a", "data", 3), conv("b", "data", 3), conv("c", "data", 3)]
    text += [layer("ReLU", f"{name}_relu", name, name) for name in "ac"]
    net = build(*text, joined("Eltwise", "sum", ["a", "b", "c"]), ip("ip", "sum", 2))
    compacted = check(change(net, b=everything))
    assert names(compacted)[-3:] == ["sum", "sum_constant", "ip"]


def test_coefficients_scale_what_a_branch_adds():
    text = [data(), conv("a", "data", 3), conv("b", "data", 3), layer("ReLU", "relu", "a", "a")]
    fields = "eltwise_param { coeff: 1 coeff: -0.5 }"
    net = build(*text, joined("Eltwise", "sum", ["a", "b"], fields), ip("ip", "sum", 2))
    compacted = check(change(net, b=everything))
    np.testing.assert_allclose(compacted.weights["sum"][0], -0.5 * net.weights()["b"][1])
    other = build(*text, joined("Eltwise", "sum", ["a", "b"], fields), ip("ip", "sum", 2))
    compacted = check(change(other, a=everything))
    assert shapes(compacted)["b"] == (3, 2, 3, 3)
    assert "coeff" in stays(compacted)["sum"][0]


@pytest.mark.parametrize("operation", ["PROD", "MAX"])
def test_only_sums_lose_branches(operation):
    text = [data(), conv("a", "data", 3), conv("b", "data", 3)]
    fields = f"eltwise_param {{ operation: {operation} }}"
    net = build(*text, joined("Eltwise", "joint", ["a", "b"], fields), ip("ip", "joint", 2))
    compacted = check(change(net, b=everything))
    assert "joint (Eltwise) joins this with channels that live" in stays(compacted)["b"][0]


def test_a_blob_that_is_overwritten_cannot_be_read_later():
    text = [
        data(),
        conv("a", "data", 3),
        conv("b", "a", 3, "kernel_size: 1"),
        joined("Eltwise", "sum", ["a", "b"]),
        layer("ReLU", "relu", "a", "a"),
        conv("c", "a", 2),
        ip("ip", "sum", 2),
    ]
    net = build(*text)
    net.layer("b").parameters[1].data[...] = 0
    compacted = check(change(net, b=everything))
    assert [x.name for x in compacted.net_param.layer if x.type == "Bias"] == ["sum"]
    assert not compacted.weights["sum"][0].any()


def test_an_output_keeps_its_name():
    net = build(data(), conv("a", "data", 3), conv("b", "data", 3), joined("Eltwise", "y", "ab"))
    compacted = check(change(net, b=everything))
    assert names(compacted) == ["data", "a"]
    assert compacted.net_param.layer[1].top == ["y"]


def test_what_only_training_reads_leaves_with_its_input():
    head = ip("head", "res1a_conv2", 2).replace(
        'type: "Inner', 'include { phase: TRAIN } type: "Inner'
    )
    net = build(*resnet(1), head)
    compacted = check(change(net, res1a_conv2=everything))
    assert "head" not in names(compacted)
    assert "head" in [x.name for x in compact(build(*resnet(1), head)).net_param.layer]


def test_a_network_without_a_block_can_be_trained_on():
    text = [
        *resnet(1),
        'layer { name: "l" type: "Input" top: "label" input_param { shape { dim: 2 } } }',
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }',
    ]
    net = change(build(*text), res1a_conv2=everything)
    compacted = compact(net)
    train = rebuild(net, compacted, phase="TRAIN")
    train.forward()
    train.backward()
    assert train.layer("res1a").parameters[0].diff.any()


# ---------------------------------------------------------------------------------- channels


def test_constants_pass_norms():
    net = build(
        data(), conv("conv1", "data", 4), norm("conv1", "conv1"),
        layer("ReLU", "relu", "conv1", "conv1"), conv("conv2", "conv1", 2),
    )  # fmt: skip
    compacted = check(change(net, conv1=zeros_at(0, 2)))
    assert shapes(compacted) == {
        "conv1": (2, 2, 3, 3), "conv1_bn": (2,), "conv1_scale": (2,), "conv2": (2, 2, 3, 3),
    }  # fmt: skip
    scale, shift = affine(net, "conv1")
    seen = np.maximum(scale * net.weights()["conv1"][1] + shift, 0)
    w, b = net.weights()["conv2"]
    expected = b + (w[:, [0, 2]].sum(axis=(2, 3)) * seen[[0, 2]]).sum(axis=1)
    np.testing.assert_allclose(compacted.weights["conv2"][1], expected, rtol=1e-12)


def test_one_constant_channel_stands_for_all_that_a_padded_layer_sees():
    net = build(
        data(), conv("conv1", "data", 6), layer("ReLU", "relu", "conv1", "conv1"),
        conv("conv2", "conv1", 2, "kernel_size: 3 pad: 1"),
    )  # fmt: skip
    net.layer("conv1").parameters[1].data[:4] = [0.5, -1, 2, 1]
    compacted = check(change(net, conv1=zeros_at(0, 1, 2, 3)))
    assert shapes(compacted) == {"conv1": (3, 2, 3, 3), "conv2": (2, 3, 3, 3)}
    w = net.weights()["conv2"][0]
    expected = (0.5 * w[:, 0] + 2 * w[:, 2] + w[:, 3]) / 2
    expected[:, 1, 1] = 0  # the middle of the window is never in the border: folded
    np.testing.assert_allclose(compacted.weights["conv2"][0][:, 0], expected, rtol=1e-13)
    assert "padding" in stays(compacted)["conv1"][0]


def test_tied_channels_leave_together_or_not_at_all():
    """conv1 and the last convolutions of two blocks are added up; so are their channels."""
    net = build(*resnet(2, widths=(4,)))
    alone = {"conv1": zeros_at(0, 1), "res1a_conv2": zeros_at(0, 2), "res1b_conv2": zeros_at(0, 3)}
    change(net, **alone)
    for name in alone:
        set_constant(net, name, [0, 1, 1, 1])
    compacted = check(net)
    after = shapes(compacted)
    for name in alone:
        assert after[name][0] == 3 and after[f"{name}_bn"] == after[f"{name}_scale"] == (3,)
    assert after["res1a_conv1"][1] == after["res1b_conv1"][1] == 3
    (group,) = [x for x in compacted.report.groups if "conv1" in x.layers]
    assert (group.layers, group.channels, group.removed) == (list(alone), 4, 1)
    assert group.readers == ["res1a_conv1", "res1b_conv1", "ip1"]
    assert "joins this with channels that live" in stays(compacted)["res1a_conv2"][0]


def test_a_filter_that_is_added_to_others_but_not_read_holds_zeros():
    net = build(*resnet(2, widths=(4,)))

    def reads_0_and_3(w):
        w[:, [1, 2]] = 0

    compacted = check(change(net, ip1=reads_0_and_3))
    w = compacted.weights["res1b_conv2"][0]
    assert shapes(compacted)["res1b_conv2"][0] == 4 and not w[[1, 2]].any()
    assert "added to channels that are read elsewhere" in stays(compacted)["res1b_conv2"][0]


def test_lrn_across_channels_holds_on_to_them():
    text = [data(), conv("conv1", "data", 4), ip("ip", "norm1", 2)]
    text.insert(2, layer("LRN", "norm1", "conv1", "norm1"))
    compacted = check(change(build(*text), conv1=zeros_at(1)))
    assert shapes(compacted)["conv1"] == (4, 2, 3, 3)
    assert stays(compacted) == {
        "conv1": ["1 constant filter stays: norm1 (LRN) needs all its channels"]
    }
    within = "lrn_param { norm_region: WITHIN_CHANNEL }"
    text[2] = layer("LRN", "norm1", "conv1", "norm1", within)
    compacted = check(change(build(*text), conv1=zeros_at(1)))
    assert shapes(compacted)["conv1"] == (3, 2, 3, 3)


# ----------------------------------------------------------------------------- Concat, Slice


def inception():
    pooling = "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }"
    return [
        data(channels=3),
        conv("one", "data", 4, "kernel_size: 1"),
        conv("reduce", "data", 2, "kernel_size: 1"),
        layer("ReLU", "reduce_relu", "reduce", "reduce"),
        conv("three", "reduce", 4, "kernel_size: 3 pad: 1"),
        layer("Pooling", "pool", "data", "pool", pooling),
        conv("pooled", "pool", 2, "kernel_size: 1"),
        joined("Concat", "joint", ["one", "three", "pooled"]),
        layer("ReLU", "joint_relu", "joint", "joint"),
        conv("next", "joint", 3, "kernel_size: 1"),
    ]


def test_channels_leave_through_a_concat():
    net = build(*inception())
    compacted = check(change(net, one=zeros_at(1), three=zeros_at(0, 3)))
    after = shapes(compacted)
    assert (after["one"][0], after["three"][0], after["next"]) == (3, 2, (3, 7, 1, 1))


def test_a_dead_branch_leaves_its_concat():
    compacted = check(change(build(*inception()), three=everything))
    joint = next(x for x in compacted.net_param.layer if x.name == "joint")
    assert list(joint.bottom) == ["one", "pooled"]
    assert not {"reduce", "reduce_relu", "three"} & set(names(compacted))
    assert shapes(compacted)["next"] == (3, 6, 1, 1)


def test_a_slice_cuts_elsewhere():
    text = [
        data(), conv("conv1", "data", 6),
        'layer { name: "cut" type: "Slice" bottom: "conv1" top: "a" top: "b" '
        "slice_param { slice_point: 2 } }",
        conv("conv_a", "a", 2), conv("conv_b", "b", 2),
    ]  # fmt: skip
    compacted = check(change(build(*text), conv1=zeros_at(1, 4)))
    cut = next(x for x in compacted.net_param.layer if x.name == "cut")
    assert list(cut.slice_param.slice_point) == [1]
    assert shapes(compacted)["conv_a"][1] == 1 and shapes(compacted)["conv_b"][1] == 3
    equal = [x.replace("slice_param { slice_point: 2 }", "") for x in text]
    compacted = check(change(build(*equal), conv1=zeros_at(0, 1, 2)))
    cut = next(x for x in compacted.net_param.layer if x.name == "cut")
    assert list(cut.top) in (["a", "b"], ["b"])


# ------------------------------------------------------------------------------------- counts


def test_fused_types_and_old_forms():
    fused = conv("conv1", "data", 4).replace("Convolution", "ConvolutionReLU")
    net = change(build(data(), fused, conv("conv2", "conv1", 2)), conv1=zeros_at(1))
    compacted = check(net)
    assert [x.type for x in compacted.net_param.layer[1:3]] == ["Convolution", "ReLU"]
    assert shapes(compacted) == {"conv1": (3, 2, 3, 3), "conv2": (2, 3, 3, 3)}
    old = """
        input: "data" input_dim: 2 input_dim: 2 input_dim: 6 input_dim: 5
        layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1"
                 convolution_param { num_output: 3 kernel_size: 3 } }
        layers { name: "ip" type: INNER_PRODUCT bottom: "conv1" top: "ip"
                 inner_product_param { num_output: 2 } }
    """
    compacted = check(change(build(old), conv1=zeros_at(1)))
    assert shapes(compacted) == {"conv1": (2, 2, 3, 3), "ip": (2, 24)}


def test_flop_of_residual_networks():
    """Dead layers count nothing, and so does what only they read."""
    net = build(*resnet(2))
    dense = {x.name: x.dense for x in flops.count(layer_shapes(net))}
    change(net, res1a_conv2=everything, res1b_conv2=zeros_at(0, 1))
    counts = {x.name: x.propagated for x in flops.count(layer_shapes(net))}
    assert counts["res1a_conv1"] == counts["res1a_conv2"] == 0
    assert counts["res1b_conv2"] == dense["res1b_conv2"] // 2
    assert counts["res2a_conv1"] == dense["res2a_conv1"]
    after = {x.name: x.dense for x in flops.count(layer_shapes(rebuild(net, compact(net))))}
    assert "res1a_conv1" not in after


def test_inputs_of_sums_concats_and_slices():
    text = [
        data(channels=4), conv("a", "data", 4), conv("b", "data", 4),
        joined("Eltwise", "sum", ["a", "b"]),
        'layer { name: "cut" type: "Slice" bottom: "sum" top: "l" top: "r" }',
        joined("Concat", "back", ["r", "l"]), conv("c", "back", 2),
    ]  # fmt: skip
    net = build(*text)
    shape = layer_shapes(net)[-1]
    assert set(shape.inputs) == {
        flops.Input(name, first, 2, 2 - first) for name in "ab" for first in (0, 2)
    }
    # filter 3 of both is channel 1 of c
    change(net, a=zeros_at(3), b=zeros_at(3))
    assert not flops.propagate(layer_shapes(net))["c"].columns.reshape(4, 9)[1].any()

    def without_channel_2(w):
        w[:, 2] = 0

    change(net, c=without_channel_2)
    assert not flops.propagate(layer_shapes(net))["a"].filters[0]


def test_the_summary_knows_residual_networks():
    from minissl.summary import summarize

    net = Net(parse_net("\n".join(resnet(1))), backend="numpy")
    rows = {row.name: row for row in summarize(net)}
    assert rows["res1a"].tops == {"res1a": (2, 4, 8, 8)}
