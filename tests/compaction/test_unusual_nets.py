"""Nets that are written or fed in unusual ways: equal names, rows that are no images, numbers."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.compaction import compact, prove
from minissl.errors import ConfigError, MinisslError
from tests.compaction.nets import (
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
    zeros_at,
)

PAD = "kernel_size: 3 pad: 1"
ROWS = layer("Reshape", "rows", "data", "rows", "reshape_param { shape { dim: -1 dim: 5 } }")
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { %s } } }'


def test_layers_of_one_name_leave_one_by_one():
    """The second and third ReLU have another name in the net than in the prototxt."""
    text = [
        data(), conv("a", "data", 4, PAD), conv("b", "a", 4, PAD), layer("ReLU", "relu", "b", "b"),
        conv("c", "b", 4, PAD), joined("Eltwise", "sum", ["a", "c"]),
        layer("ReLU", "relu", "sum", "sum"), conv("d", "sum", 4, PAD),
        layer("ReLU", "relu", "d", "d"), ip("ip", "d", 3),
    ]  # fmt: skip
    compacted = check(change(build(*text), c=everything))
    assert {"b", "c", "relu"}.isdisjoint(names(compacted))
    assert {"a", "relu_2", "d", "relu_3", "ip"} <= set(names(compacted))


@pytest.mark.parametrize("dead", [0, 1])
def test_sums_of_one_name(dead):
    branches = [conv("b", "a", 4, PAD), conv("c", "a", 4, PAD)]
    first = joined("Eltwise", "sum", ["a", "b"]).replace('top: "sum"', 'top: "first"')
    second = joined("Eltwise", "sum", ["first", "c"]).replace('top: "sum"', 'top: "second"')
    net = build(data(), conv("a", "data", 4, PAD), *branches, first, second, ip("ip", "second", 3))
    compacted = check(change(net, **{"bc"[dead]: everything}))
    assert "bc"[dead] not in names(compacted) and "bc"[1 - dead] in names(compacted)


def test_concatenations_of_one_name():
    first = joined("Concat", "cat", ["a", "b", "a"]).replace('top: "cat"', 'top: "first"')
    second = joined("Concat", "cat", ["first", "b"]).replace('top: "cat"', 'top: "second"')
    net = build(data(), conv("a", "data", 3, PAD), conv("b", "data", 3, PAD), first, second,
                ip("ip", "second", 3))  # fmt: skip
    compacted = check(change(net, a=zeros_at(1), b=everything))
    assert "b" not in names(compacted) and compacted.weights["a"][0].shape[0] == 2


@pytest.mark.parametrize("kind", ["rows", "images behind each other"])
def test_a_batch_of_more_rows_than_images(kind):
    if kind == "rows":
        dims = "dim: 3 dim: 2 dim: 5"
        net = build(INPUT % dims, ROWS, ip("a", "rows", 4), layer("ReLU", "relu", "a", "a"),
                    ip("b", "a", 3))  # fmt: skip
    else:
        split = 'layer { name: "s" type: "Slice" bottom: "data" top: "x" top: "y" slice_param '
        net = build(data(4), split + "{ axis: 1 } }",
                    joined("Concat", "both", ["x", "y"], "concat_param { axis: 0 }"),
                    conv("a", "both", 4), layer("ReLU", "relu", "a", "a"),
                    layer("Pooling", "p", "a", "p",
                          "pooling_param { pool: AVE global_pooling: true }"),
                    ip("b", "p", 3))  # fmt: skip
    compacted = check(change(net, a=zeros_at(0, 1)))
    assert compacted.weights["a"][0].shape[0] == 2


@pytest.mark.parametrize(
    "between",
    [
        layer("Reshape", "r", "a", "r", "reshape_param { shape { dim: 1 dim: -1 } }"),
        'layer { name: "s" type: "Slice" bottom: "a" top: "r" top: "t" slice_param { axis: 0 } }',
    ],
    ids=["Reshape", "Slice"],
)
def test_layers_that_need_the_number_of_images(between):
    net = build(data(), conv("z", "data", 3), conv("a", "z", 3), between, ip("ip", "r", 3))
    compacted = check(change(net, z=zeros_at(1)))
    assert compacted.weights["z"][0].shape[0] == 2


@pytest.mark.parametrize("power", ["power: -1", "power: -0.5", "power: 0.5"])
def test_a_filter_that_fills_a_place_stays_what_it_was(power):
    """Without its bias 1 / x would be infinite, and times 0 no number."""
    net = build(data(), conv("a", "data", 8, "kernel_size: 1"), layer("AbsVal", "abs", "a", "a"),
                layer("Power", "p", "a", "p", f"power_param {{ {power} }}"),
                conv("b", "p", 2, "kernel_size: 1 group: 2"), ip("ip", "b", 3))  # fmt: skip
    compacted = check(change(net, a=zeros_at(0, 1, 4)))
    assert compacted.weights["a"][0].shape[0] == 6  # three in each group: one dead one stays


def test_what_is_not_known_may_be_no_number_on_an_image_of_zeros():
    """The dead branch reads the logarithm of 0, which times 0 is not 0."""
    net = build(data(), conv("z", "data", 4, PAD), conv("a", "data", 3, PAD),
                layer("AbsVal", "abs", "a", "a"), layer("Log", "log", "a", "log"),
                conv("b", "log", 4, PAD), joined("Eltwise", "sum", ["z", "b"]),
                ip("ip", "sum", 3))  # fmt: skip
    change(net, a=zeros_at(0), b=everything)
    net.layer("a").parameters[1].data[1:] = 0  # what lives has the logarithm of 0 there
    compacted = check(net)
    assert {"a", "abs", "log", "b"}.isdisjoint(names(compacted))


def test_no_number_is_a_difference():
    net = build(data(), conv("a", "data", 3), ip("ip", "a", 4))
    other = rebuild(net, compact(net))
    other.layer("ip").parameters[1].data[0] = np.nan
    proof = prove(net, other)
    assert proof.max_abs_difference == np.inf
    with pytest.raises(MinisslError, match="differs from the original by inf"):
        proof.demand()
    net.layer("ip").parameters[1].data[0] = np.nan
    assert prove(net, other).max_abs_difference == 0


def test_numbers_that_an_embedding_knows():
    net = build(INPUT % "dim: 3 dim: 2",
                layer("Embed", "em", "data", "em", "embed_param { input_dim: 5 num_output: 4 }"),
                ip("a", "em", 6), ip("b", "a", 3))  # fmt: skip
    compacted = check(change(net, a=zeros_at(1, 2)))
    assert compacted.weights["a"][0].shape[0] == 4


def test_small_products_of_folded_norms_are_not_frozen_at_zero():
    """What is below the zero-out threshold behind the norm was a weight like others."""
    frozen = 'top: "a" connectivity_mode: DISCONNECTED_GRPWISE'
    text = conv("a", "data", 4).replace('top: "a"', frozen)
    net = build(data(), text, norm("a", "a"), ip("ip", "a", 3))
    net.layer("a_scale").parameters[0].data[...] = 1e-5
    assert names(check(net, fold_norms=True)) == ["data", "a", "ip"]


ONE_EACH = "propagate_down: true propagate_down: true"


@pytest.mark.parametrize("kind", ["Eltwise", "Concat"])
def test_settings_of_each_bottom_leave_with_it(kind):
    net = build(data(), conv("a", "data", 3, PAD), conv("b", "data", 3, PAD),
                joined(kind, "both", ["a", "b", "a"], f"{ONE_EACH} propagate_down: true"),
                ip("ip", "both", 2))  # fmt: skip
    compacted = check(change(net, b=everything))
    (both,) = (x for x in compacted.net_param.layer if x.name == "both")
    assert list(both.bottom) == ["a", "a"] and list(both.propagate_down) == [True, True]


def test_settings_of_each_bottom_of_a_sum_that_becomes_a_bias():
    total = joined("Eltwise", "sum", ["data", "b"], ONE_EACH)
    net = build(data(), conv("b", "data", 2, PAD), total, ip("ip", "sum", 2))
    compacted = check(change(net, b=everything))
    assert [x.type for x in compacted.net_param.layer] == ["Input", "Bias", "InnerProduct"]


def test_settings_of_each_top_leave_with_it():
    tops = 'top: "p" top: "q" loss_weight: 0 loss_weight: 0'
    cut = f'layer {{ name: "cut" type: "Slice" bottom: "a" {tops} }}'
    net = build(data(), conv("a", "data", 4), cut, ip("c", "p", 3), ip("d", "q", 3),
                joined("Eltwise", "sum", ["c", "d"]), ip("ip", "sum", 2))  # fmt: skip
    compacted = check(change(net, d=everything))
    (cut,) = (x for x in compacted.net_param.layer if x.name == "cut")
    assert list(cut.top) == ["p"] and list(cut.loss_weight) == [0]


@pytest.mark.parametrize("counted", ["a", "s"])
def test_what_counts_in_the_loss_stays(counted):
    """Neither a norm that is folded nor a dead filter may change what is added to the loss."""
    text = [data(), conv("a", "data", 4), layer("Scale", "s", "a", "s"), ip("ip", "s", 2)]
    weighted = f'top: "{counted}" loss_weight: 0.5'
    net = build(*(one.replace(f'top: "{counted}"', weighted) for one in text))
    change(net, a=zeros_at(1))
    smaller = rebuild(net, check(net, fold_norms=True))
    images = np.random.default_rng(0).normal(size=net.blobs["data"].shape)
    for one in (net, smaller):
        one.forward({"data": images})
    assert smaller.loss() == pytest.approx(net.loss(), rel=1e-12)


def test_norms_are_folded_beside_fused_types():
    """Their parts are counted as layers, too."""
    fused = conv("b", "a", 3).replace('"Convolution"', '"ConvolutionReLU"')
    net = build(data(), conv("a", "data", 4), layer("BatchNorm", "bn", "a", "a"), fused)
    assert "bn" not in names(check(net, fold_norms=True))


def test_constants_that_would_take_more_than_what_leaves():
    """The branch has another reader, which sees borders: only the sum would become a Bias."""
    branch, reader = conv("b", "data", 1, "kernel_size: 1"), conv("other", "b", 2, PAD)
    total = joined("Eltwise", "sum", ["data", "b"])
    net = build(data(channels=1), branch, reader, total, ip("ip", "sum", 2))
    compacted = check(change(net, b=everything))
    assert names(compacted) == ["data", "b", "other", "sum", "ip"]
    assert compacted.report.bytes_after == compacted.report.bytes_before


def test_kept_columns_that_count_the_images_as_well():
    net = build(data(batch=3), ip("ip", "data", 3, "axis: 0"))
    assert net.weights()["ip"][0].shape == (3, 180)  # 60 for each image
    compacted = check(change(net, ip=lambda w: w.__setitem__((slice(None), slice(40, None)), 0)))
    assert compacted.weights["ip"][0].shape == (3, 40)


def test_a_network_that_stays_is_copied():
    net = build(data(), conv("a", "data", 3), norm("a", "a"), ip("ip", "a", 4))
    own = [blob for blobs in net.weights().values() for blob in blobs]
    given = [blob for blobs in compact(net).weights.values() for blob in blobs]
    assert not any(np.shares_memory(one, other) for one in own for other in given)


@pytest.mark.parametrize("mode", ["", "connectivity_mode: DISCONNECTED_GRPWISE"])
def test_small_weights_of_a_merged_channel_are_not_frozen_at_zero(mode):
    """Three dead filters have one constant channel left, whose weights may be small."""
    net = build(
        data(), conv("a", "data", 6), conv("b", "a", 4, PAD).replace("} }", f"}} {mode} }}")
    )
    net.layer("a").parameters[1].data[:3] = 20, 0.001, 0.002

    def mostly_of_the_second(w):
        w[0:2, 0] = 0

    check(change(net, a=zeros_at(0, 1, 2), b=mostly_of_the_second))


def test_a_layer_with_shared_weights_may_fill_a_place():
    """Nothing reads b, but it runs; its weights are a's, and stay whole."""
    share = 'param { name: "w" } param { name: "b" }'
    shared = [conv(name, "data", 2, PAD)[:-2] + f" {share} }}" for name in "ab"]
    net = build(data(), *shared, ip("first", "a", 3), ip("ip", "b", 3))
    compacted = check(change(net, ip=everything))
    assert compacted.weights["a"][0].shape == compacted.weights["b"][0].shape == (2, 2, 3, 3)


def test_a_split_that_is_written_out_may_end_in_an_output():
    split = 'layer { name: "s" type: "Split" bottom: "a" top: "out" top: "read" }'
    net = build(data(), conv("a", "data", 4), split, ip("ip", "read", 3))

    def without_channel_0(w):
        w.reshape(3, 4, -1)[:, 0] = 0

    compacted = check(change(net, ip=without_channel_0))
    assert compacted.weights["a"][0].shape[0] == 4


@pytest.mark.parametrize("bottoms", [["c", "a"], ["a", "c"]])
def test_a_sum_with_the_name_of_one_of_its_terms(bottoms):
    """The term is read elsewhere too, and wanted under its name."""
    total = joined("Eltwise", "sum", bottoms).replace('top: "sum"', f'top: "{bottoms[0]}"')
    net = build(data(), conv("a", "data", 2, PAD), conv("c", "a", 2, PAD),
                ip("one", bottoms[0], 2), total)  # fmt: skip
    net.layer("c").parameters[1].data[...] = 0
    compacted = check(change(net, c=everything))
    assert rebuild(net, compacted).outputs == net.outputs


def test_data_that_are_read_before_they_are_changed_in_place():
    """A proof must see a fault on either side of the change."""
    net = build(data(), ip("before", "data", 3), layer("Power", "p", "data", "data",
                "power_param { scale: 2 shift: 1 }"), ip("behind", "data", 3))  # fmt: skip
    check(net)
    for name in ("before", "behind"):
        other = rebuild(net, compact(net))
        other.layer(name).parameters[0].data[...] *= 2
        assert prove(net, other).max_abs_difference > 0.1


def test_tiles_follow_the_smaller_matrix():
    tiles = [(50, 1), (25, 8), (50, 8), (1, 8), (10, 1), (25, 2)]
    written = " ".join(f"block_group_lasso {{ xdimen: {x} ydimen: {y} }}" for x, y in tiles)
    net = build(data(1, 12, 12), conv("a", "data", 2, "kernel_size: 5"),
                conv("b", "a", 8, "kernel_size: 5")[:-2] + f" param {{ {written} }} }}",
                ip("ip", "b", 3))  # fmt: skip

    def first_three(w):
        w[:3] = 0

    compacted = check(change(net, a=zeros_at(1), b=first_three))
    (layer_b,) = [one for one in compacted.net_param.layer if one.name == "b"]
    found = [(tile.xdimen, tile.ydimen) for tile in layer_b.param[0].block_group_lasso]
    # whole rows, channels, all, columns; the last two were of no whole
    assert found == [(25, 1), (25, 5), (25, 5), (1, 5)]
    rebuild(net, compacted, phase="TRAIN")


def test_a_network_that_trains_is_refused():
    net = build(data(), conv("a", "data", 3), ip("ip", "a", 3), phase="TRAIN")
    with pytest.raises(ConfigError, match="compact one of phase TEST"):
        compact(net)
