"""Gradients over fan-out and several losses; what the backward pass leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError
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


@pytest.mark.parametrize("flags", ["propagate_down: true", "propagate_down: true " * 3])
def test_one_flag_for_each_bottom(flags):
    text = INPUT + ip("a", "x", "y") + layer("SoftmaxWithLoss", "loss", "y t", "loss", flags)
    with pytest.raises(ConfigError, match="propagate_down values for 2 bottoms"):
        build(text)


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


@pytest.mark.parametrize(
    ("maker", "changer"),
    [
        (("TanH", ""), ("Dropout", "")),
        (("Sigmoid", ""), ("Power", "power_param { scale: 2 }")),
        (("ELU", ""), ("Dropout", "")),
        (("MVN", ""), ("Bias", "")),
        (("Softmax", ""), ("ReLU", "")),
        (("ReLU", "in place"), ("Power", "power_param { shift: 1 }")),
        (("ReLU", "in place"), ("BatchNorm", "")),
    ],
    ids=str,
)
def test_what_a_gradient_looks_at_is_not_changed_in_place(maker, changer):
    (kind, place), (other, options) = maker, changer
    top = "a" if place else "h"
    text = (
        INPUT
        + ip("a", "x", "a", 4)
        + layer(kind, "maker", "a", top)
        + layer(other, "changer", top, "%s", options)
        + ip("b", "%s", "y")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    message = f"'changer' .*: changes '{top}' in place, which layer 'maker' .* another name"
    with pytest.raises(ConfigError, match=message):
        build(text % (top, top))
    build(text % ("g", "g"))
    build(text % (top, top), phase="TEST")
    frozen = text.replace(
        'name: "a" type', 'name: "a" param { lr_mult: 0 } param { lr_mult: 0 } type'
    )
    build(frozen % (top, top))  # nothing learns below, so there is no gradient to spoil


@pytest.mark.parametrize(("kind", "options"), [("Dropout", ""), ("ReLU", ""), ("TanH", "")])
def test_what_keeps_signs_may_follow_a_rectifier_in_place(kind, options):
    text = (
        INPUT
        + ip("a", "x", "a", 4)
        + layer("ReLU", "relu", "a", "a")
        + layer(kind, "other", "a", "%s", options)
        + ip("b", "%s", "y")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    found = []
    for top in ("a", "h"):
        net = build(text % (top, top), seed=5)
        fill_input(net)
        found.append(gradients(net))
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(found[1][name], gradient)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    "view",
    [
        layer("Flatten", "view", "a", "h"),
        layer("Reshape", "view", "a", "h", "reshape_param { shape { dim: 0 dim: -1 } }"),
        'layer { name: "view" type: "Split" bottom: "a" top: "h" top: "rest" }'
        + layer("Silence", "quiet", "rest", "").replace('top: ""', ""),
    ],
    ids=["Flatten", "Reshape", "Split"],
)
def test_a_layer_in_place_on_a_view_leaves_other_readers_alone(view, phase):
    text = (
        INPUT
        + ip("a", "x", "a")
        + view
        + layer("Power", "cube", "h", "%s", "power_param { power: 3 scale: 0.2 }")
        + layer("Eltwise", "sum", "a %s", "y")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    found = []
    for top in ("h", "g"):
        net = build(text % (top, top), phase=phase)
        fill_input(net)
        found.append([float(net.forward()["loss"]) for _ in range(2)])
        if phase == "TRAIN":
            found[-1].append(check_gradients(net)["a.0"].sum())
    assert found[0] == pytest.approx(found[1], rel=1e-12) and found[0][0] == found[0][1]


def test_a_loss_weight_adds_to_what_readers_give():
    text = (
        INPUT
        + ip("a", "x", "y", 3, "loss_weight: 0.5")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    net = build(text)
    fill_input(net)
    assert check_gradients(net)["a.0"].any()


def test_a_part_of_the_loss_is_not_changed_in_place():
    text = (
        INPUT
        + ip("a", "x", "y", 3, "loss_weight: 0.5")
        + layer("ReLU", "relu", "y", "y")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    with pytest.raises(
        ConfigError, match=r"'relu' .* changes 'y' in place, which has a loss_weight"
    ):
        build(text)


def test_going_back_from_one_reader_leaves_out_what_others_gave():
    text = (
        INPUT
        + ip("a", "x", "h", 4)
        + ip("b", "h", "y")
        + ip("c", "h", "z")
        + layer("SoftmaxWithLoss", "one", "y t", "one")
        + layer("SoftmaxWithLoss", "two", "z t", "two")
    )
    net = build(text)
    fill_input(net)
    found = []
    for _ in range(2):
        net.forward()
        net.clear_gradients()
        net.blobs["y"].diff[...] = 1
        net.backward(start="b")
        found.append(net.params["a"][0].diff.copy())
        net.forward()
        net.backward()  # gives both readers' gradients
    np.testing.assert_array_equal(found[1], found[0])


def test_going_back_from_one_reader_of_a_slice_leaves_out_the_other():
    text = (
        INPUT
        + ip("a", "x", "h", 4)
        + 'layer { name: "cut" type: "Slice" bottom: "h" top: "p" top: "q" }'
        + ip("b", "p", "y")
        + ip("c", "q", "z")
        + layer("SoftmaxWithLoss", "one", "y t", "one")
        + layer("SoftmaxWithLoss", "two", "z t", "two")
    )
    net = build(text)
    fill_input(net)
    net.forward()
    net.backward()  # gives the gradients of both
    net.clear_gradients()
    net.blobs["y"].diff[...] = 1
    net.backward(start="b")
    found = net.params["a"][0].diff
    assert found[:2].any() and not found[2:].any()


@pytest.mark.parametrize("kind", ["ReLU", "Scale"])
def test_propagate_down_false_in_place_holds_for_a_part_too(kind):
    text = (
        INPUT
        + ip("a", "x", "h")
        + layer(kind, "act", "h", "h", "propagate_down: false")
        + ip("b", "h", "y")
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    net = build(text)
    fill_input(net)
    whole = gradients(net)
    net.clear_gradients()
    net.backward(start="loss")
    assert not whole["a.0"].any() and whole["b.0"].any()
    for parameter in net.parameters:
        np.testing.assert_array_equal(parameter.diff, whole[parameter.name])


def test_propagate_down_true_forces_a_gradient():
    def text(more):
        return (
            INPUT + ip("a", "x", "y", more=more) + layer("SoftmaxWithLoss", "loss", "y t", "loss")
        )

    found = {}
    for more in ("", "propagate_down: true"):
        net = build(text(more))
        fill_input(net)
        gradients(net)
        found[more] = net.blobs["x"].diff.copy()
    assert not found[""].any() and found["propagate_down: true"].any()


def test_in_phase_test_only_going_back_is_refused():
    """TanH needs its top, which Bias changes; going forward needs nothing."""
    text = (
        INPUT
        + ip("a", "x", "h")
        + layer("TanH", "act", "h", "z")
        + layer("Bias", "shift", "z", "z")
        + layer("SoftmaxWithLoss", "loss", "z t", "loss")
    )
    net = build(text, phase="TEST")
    fill_input(net)
    net.forward()
    with pytest.raises(ConfigError, match=r"'shift' .* changes 'z' in place, which layer 'act'"):
        net.backward()
    net.backward(end="shift")
