"""Normalization, scales and biases folded into the layers before them."""

from __future__ import annotations

import numpy as np
import pytest

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
    resnet,
    zeros_at,
)


def test_norms_become_part_of_their_convolutions():
    net = build(*resnet(1))
    compacted = check(net, fold_norms=True)
    assert not {"BatchNorm", "Scale", "Bias"} & {x.type for x in compacted.net_param.layer}
    assert len(compacted.weights["res1a_conv1"]) == 2
    scale, shift = affine(net, "conv1")
    expected = net.weights()["conv1"][0] * scale[:, None, None, None]
    np.testing.assert_allclose(compacted.weights["conv1"][0], expected, rtol=1e-13)
    np.testing.assert_allclose(compacted.weights["conv1"][1], shift, rtol=1e-12)


@pytest.mark.parametrize("fields", ["group: 2", "group: 2 kept_columns", "kept_columns"])
def test_norms_fold_into_packed_and_grouped_convolutions(fields):
    groups = 2 if "group" in fields else 1
    kept = "kept_columns { column: 0 column: 4 } kept_columns { column: 1 column: 7 column: 8 }"
    kept = kept if groups == 2 else kept.split("} ")[0] + "}"
    fields = "kernel_size: 3 " + fields.replace("kept_columns", kept)
    net = build(data(channels=4), conv("conv1", "data", 4, fields), norm("conv1", "conv1"))
    compacted = check(net, fold_norms=True)
    assert names(compacted) == ["data", "conv1"]


@pytest.mark.parametrize("transpose", ["true", "false"])
def test_norms_fold_into_inner_products(transpose):
    net = build(data(), ip("ip", "data", 4, f"transpose: {transpose}"), norm("ip", "ip"),
                layer("Bias", "raise", "ip", "high"))  # fmt: skip
    compacted = check(net, fold_norms=True)
    assert names(compacted) == ["data", "ip"]


def test_norms_stay_where_others_see_what_they_read():
    net = build(data(), conv("conv1", "data", 4), layer("BatchNorm", "bn", "conv1", "bn"),
                joined("Eltwise", "sum", ["conv1", "bn"]), ip("ip", "sum", 2))  # fmt: skip
    assert "bn" in names(check(net, fold_norms=True))
    batch = "batch_norm_param { use_global_stats: false }"
    net = build(data(), conv("conv1", "data", 4), layer("BatchNorm", "bn", "conv1", "bn", batch))
    assert "bn" in names(check(net, fold_norms=True))
    net = build(data(), layer("BatchNorm", "bn", "data", "bn"), conv("conv1", "bn", 2))
    assert "bn" in names(check(net, fold_norms=True))


def test_a_batch_norm_that_has_seen_nothing():
    net = build(data(), conv("conv1", "data", 4), norm("conv1", "conv1"), ip("ip", "conv1", 2))
    for parameter in net.layer("conv1_bn").parameters:
        parameter.data[...] = 0
    for fold in (False, True):
        check(change(net, conv1=zeros_at(1)), fold)


def test_constants_of_a_branch_fold_into_the_other_one():
    """With a coeff the sum becomes a Bias layer first, which a second run would find to fold."""
    text = [
        data(),
        conv("a", "data", 4, "kernel_size: 1"),
        conv("b", "data", 4, "kernel_size: 1"),
        joined("Eltwise", "sum", ["a", "b"], "eltwise_param { coeff: 1 coeff: 2 }"),
        layer("ReLU", "relu", "sum", "sum"),
        layer("Pooling", "pool", "sum", "pool", "pooling_param { pool: AVE global_pooling: true }"),
        ip("ip", "pool", 3),
    ]
    net = change(build(*text), b=everything)
    assert names(check(net, fold_norms=True)) == ["data", "a", "relu", "pool", "ip"]
