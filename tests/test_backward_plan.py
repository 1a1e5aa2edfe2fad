"""Gradients over fan-out and several losses; what the backward pass leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tiny_nets import give_arrays, make_net
from tests.written_nets import INPUT, build, check_gradients, fill_input, gradients, ip, layer


def test_fan_out_gradient_is_the_sum():
    """Three readers of one blob, one of them through an in-place layer behind its own copy."""
    common = INPUT + ip("base", "x", "h", 4)
    heads = [ip(f"head{k}", "h", f"y{k}") for k in range(3)]
    losses = [layer("SoftmaxWithLoss", f"loss{k}", f"y{k} t", f"loss{k}") for k in range(3)]
    together = build(common + "".join(heads) + "".join(losses))
    fill_input(together)
    found = check_gradients(together)
    weights = together.weights()

    alone = np.zeros_like(found["base.0"])
    for k in range(3):
        single = build(common + heads[k] + losses[k])
        fill_input(single)
        single.load({name: weights[name] for name in ("base", f"head{k}")})
        alone += gradients(single)["base.0"]
    np.testing.assert_allclose(found["base.0"], alone, rtol=1e-12)


def test_several_losses_and_loss_weights():
    text = (
        INPUT
        + ip("a", "x", "a")
        + ip("b", "x", "b")
        + layer("SoftmaxWithLoss", "one", "a t", "one", "loss_weight: 0.5")
        + layer("SoftmaxWithLoss", "two", "b t", "two", "loss_weight: -3")
    )
    net = build(text)
    fill_input(net)
    check_gradients(net)
    one, two = float(net.blobs["one"].data), float(net.blobs["two"].data)
    assert net.loss() == pytest.approx(0.5 * one - 3 * two, rel=1e-12)
    assert abs(one - two) > 1e-3


def test_loss_weight_makes_any_top_a_loss():
    text = INPUT + ip("a", "x", "a") + layer("TanH", "act", "a", "y", "loss_weight: 2")
    net = build(text)
    fill_input(net)
    check_gradients(net)
    assert net.loss() == pytest.approx(2 * net.blobs["y"].data.sum(), rel=1e-12)


def test_loss_weight_zero_stops_the_backward_pass():
    text = (
        INPUT
        + ip("a", "x", "a")
        + ip("b", "x", "b")
        + layer("SoftmaxWithLoss", "one", "a t", "one", "loss_weight: 0")
        + layer("SoftmaxWithLoss", "two", "b t", "two")
    )
    net = build(text)
    fill_input(net)
    found = gradients(net)
    assert not net.runs_backward(net.layer("a"))
    assert not found["a.0"].any() and found["b.0"].any()


def test_in_place_layers():
    """In place and in blobs of their own: the same gradients."""

    def text(relu, tanh):
        return (
            INPUT
            + ip("a", "x", "a", 4)
            + layer("ReLU", "relu", "a", relu, "relu_param { negative_slope: 0.25 }")
            + layer("TanH", "tanh", relu, tanh)
            + ip("b", tanh, "y")
            + layer("SoftmaxWithLoss", "loss", "y t", "loss")
        )

    in_place, apart = build(text("a", "a")), build(text("h", "g"))
    for net in (in_place, apart):
        fill_input(net)
    apart.load(in_place.weights())
    found, expected = check_gradients(in_place), gradients(apart)
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient)


def test_in_place_layer_beside_another_reader():
    """What the other reader sees is the value before the in-place layer."""
    text = (
        INPUT
        + ip("a", "x", "a")
        + layer("TanH", "other", "a", "other")
        + layer("ReLU", "relu", "a", "a")
        + layer("SoftmaxWithLoss", "one", "other t", "one")
        + layer("SoftmaxWithLoss", "two", "a t", "two")
    )
    net = build(text)
    fill_input(net)
    check_gradients(net)
    net.forward()
    before = net.layer("a").parameters[0].data @ net.blobs["x"].data.T
    np.testing.assert_allclose(net.blobs["other"].data, np.tanh(before.T), rtol=1e-12)


def test_gradients_add_up_over_passes():
    net = make_net(phase="TRAIN", backend="numpy", dtype="float64")
    give_arrays(net, count=4)
    once = gradients(net)
    net.backward()
    for parameter in net.parameters:
        np.testing.assert_allclose(parameter.diff, 2 * once[parameter.name], rtol=1e-12)


def test_propagate_down_false_cuts_the_path():
    def text(more):
        return (
            INPUT
            + ip("a", "x", "a")
            + ip("b", "a", "b", more=more)
            + layer("SoftmaxWithLoss", "loss", "b t", "loss")
        )

    net = build(text("propagate_down: false"))
    fill_input(net)
    found = gradients(net)
    assert not found["a.0"].any()
    assert found["b.0"].any()
    assert not net.runs_backward(net.layer("a"))
    assert gradients_exist(build(text("propagate_down: true")))


def test_propagate_down_false_in_place():
    """The gradient of the in-place output must not pass for that of its input."""
    text = (
        INPUT
        + ip("a", "x", "a")
        + layer("TanH", "act", "a", "a", "propagate_down: false")
        + ip("b", "a", "b")
        + layer("SoftmaxWithLoss", "loss", "b t", "loss")
    )
    net = build(text)
    fill_input(net)
    assert not gradients(net)["a.0"].any()


def gradients_exist(net):
    fill_input(net)
    return all(gradient.any() for gradient in gradients(net).values())


def test_frozen_layers_below_are_not_run_backward():
    text = (
        INPUT
        + ip("a", "x", "a", more="param { lr_mult: 0 } param { lr_mult: 0 }")
        + ip("b", "a", "b")
        + layer("SoftmaxWithLoss", "loss", "b t", "loss")
    )
    net = build(text)
    assert not net.runs_backward(net.layer("a"))
    assert net.propagates(net.layer("b")) == [False]


def test_force_backward_reaches_the_input():
    text = INPUT + ip("a", "x", "a") + layer("SoftmaxWithLoss", "loss", "a t", "loss")
    plain, forced = build(text), build("force_backward: true " + text)
    for net in (plain, forced):
        fill_input(net)
        gradients(net)
    weights, d_y = forced.layer("a").parameters[0].data, forced.blobs["a"].diff
    np.testing.assert_allclose(forced.blobs["x"].diff, d_y @ weights, rtol=1e-12)
    assert not plain.blobs["x"].diff.any()
