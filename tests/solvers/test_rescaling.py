"""Weights that BatchNorm follows get their length back, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from minissl.models.resnet import resnet
from minissl.solvers.rescaling import before_batch_norm, rescale

PAIR = """
layer { name: "image" type: "Input" top: "image" input_param { shape { dim: [5, 2, 6, 6] } } }
layer { name: "first" type: "Convolution" bottom: "image" top: "first"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: 1 }
    bias_filler { type: "gaussian" std: 1 } } }
layer { name: "norm" type: "BatchNorm" bottom: "first" top: "NORMED" }
layer { name: "second" type: "Convolution" bottom: "NORMED" top: "second"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "READ" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }
"""

PAIR_OF_FIRST = """
layer { name: "other" type: "Convolution" bottom: "image" top: "other"
  param { name: "w" } param { name: "b" } convolution_param { num_output: 3 kernel_size: 3 } }
"""


def build(text, phase="TRAIN"):
    return Net(parse_net(text), phase, backend="numpy", dtype="float64")


def trained(in_place=True, read="second", seed=0):
    """The pair, after some batches."""
    text = PAIR.replace("NORMED", "first" if in_place else "normed").replace("READ", read)
    net = build(text)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        net.blobs["image"].data[...] = rng.standard_normal((5, 2, 6, 6))
        net.forward()
    return text, net


def outputs(text, net, phase):
    """The scores of other images, with the weights of a network."""
    other = build(text, phase)
    other.load(net.weights())
    other.blobs["image"].data[...] = np.random.default_rng(7).standard_normal((5, 2, 6, 6))
    other.forward()
    return other.blobs["scores"].data.copy()


def copies(net):
    return {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}


@pytest.mark.parametrize("in_place", [True, False])
def test_a_short_layer_is_lengthened_and_the_outputs_stay(in_place):
    text, net = trained(in_place)
    long = copies(net)
    short = copies(net)
    short["first"][0][...] *= 0.001
    short["first"][0][1] = 0  # a filter that died
    short["first"][1][...] *= 0.001
    short["norm"][0][...] *= 0.001
    short["norm"][1][...] *= 0.001**2  # less than the eps that is added to it
    net.load(short)
    before = [outputs(text, net, phase) for phase in ("TEST", "TRAIN")]
    factors = rescale(net, long)
    assert list(factors) == ["first"]
    now = net.weights()
    assert np.linalg.norm(now["first"][0]) == pytest.approx(np.linalg.norm(long["first"][0]))
    assert now["first"][0] == pytest.approx(factors["first"] * short["first"][0])
    assert (now["first"][0][1] == 0).all()
    for name in ("second", "fc"):
        assert all((a == b).all() for a, b in zip(now[name], short[name], strict=True))
    assert outputs(text, net, "TEST") == pytest.approx(before[0], rel=1e-9)
    # with the statistics of a batch, eps weighs less than it did
    assert outputs(text, net, "TRAIN") != pytest.approx(before[1], rel=1e-9)


def test_outputs_in_training_stay_where_eps_is_small():
    text, net = trained()
    long, short = copies(net), copies(net)
    short["first"][0][...] *= 0.5
    short["first"][1][...] *= 0.5
    net.load(short)
    before = outputs(text, net, "TRAIN")
    assert rescale(net, long) == {"first": pytest.approx(2)}
    assert outputs(text, net, "TRAIN") == pytest.approx(before, abs=1e-4)


def test_layers_that_something_else_reads_as_well_stay():
    _, net = trained(in_place=False, read="first")
    assert before_batch_norm(net) == []
    before = copies(net)
    assert rescale(net, {name: [2 * b for b in blobs] for name, blobs in before.items()}) == {}
    assert all(
        (a == b).all()
        for name in before
        for a, b in zip(before[name], net.weights()[name], strict=True)
    )


def test_a_layer_stays_where_eps_is_most_of_what_batch_norm_divides_by():
    """Shorter weights would have to leave a variance below zero."""
    _, net = trained()
    long, tiny = copies(net), copies(net)
    tiny["norm"][1][...] = 1e-9
    net.load(tiny)
    assert rescale(net, {"first": [0.1 * blob for blob in long["first"]]}) == {}
    assert (net.weights()["first"][0] == long["first"][0]).all()


@pytest.mark.parametrize("mode", ["", "connectivity_mode: DISCONNECTED_GRPWISE"])
def test_a_layer_stays_where_frozen_connectivity_would_take_small_weights(mode):
    text, net = trained()
    net = build(text.replace('name: "first" type', f'name: "first" {mode} type'), "TEST")
    weights = copies(trained()[1])
    weights["first"][0][0] *= 1e-3
    net.load(weights)
    before = outputs(text, net, "TEST")
    found = rescale(net, {"first": [0.01 * blob for blob in weights["first"]]})
    assert set(found) == (set() if mode else {"first"})
    np.testing.assert_allclose(outputs(text, net, "TEST"), before, rtol=1e-9)


def test_weights_that_another_layer_shares_stay():
    shared = PAIR.replace("NORMED", "first").replace("READ", "second") + PAIR_OF_FIRST
    named = shared.replace(
        'name: "first" type: "Convolution"', 'name: "first" type: "Convolution" SHARE'
    )
    net = build(named.replace("SHARE", 'param { name: "w" } param { name: "b" }'))
    assert before_batch_norm(net) == []


def test_weights_of_another_network_are_refused():
    _, net = trained()
    with pytest.raises(ConfigError, match="have no layer 'first'; give those of the same network"):
        rescale(net, {"second": [np.ones(3)]})


def test_a_layer_without_weights_stays():
    _, net = trained()
    long, dead = copies(net), copies(net)
    dead["first"][0][...] = 0
    net.load(dead)
    assert rescale(net, long) == {}
    assert (net.weights()["first"][0] == 0).all()


def test_all_convolutions_of_a_residual_network_are_found():
    text = resnet(8, batch_size=2, widths=(2, 2, 4)).replace('"cifar10"', '"mnist-small"')
    net = Net(parse_net(text), "TEST", backend="numpy", data={"source": "mnist-small"})
    found = before_batch_norm(net)
    convolutions = [one.name for one in net.layers if one.type_name == "Convolution"]
    assert [layer.name for layer, _ in found] == convolutions
    assert all(norm.name.startswith(layer.name) for layer, norm in found)


def test_a_layer_stays_before_batch_norm_has_seen_a_batch():
    """Without statistics nothing makes up for other weights."""
    _, net = trained()
    fresh = copies(net)
    for blob in fresh["norm"]:
        blob[...] = 0
    net.load(fresh)
    assert rescale(net, {"first": [10 * blob for blob in fresh["first"]]}) == {}
    assert (net.weights()["first"][0] == fresh["first"][0]).all()
