"""Nets that are written or fed in unusual ways: equal names, rows that are no images, numbers."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.compaction import compact, prove
from minissl.errors import MinisslError
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
