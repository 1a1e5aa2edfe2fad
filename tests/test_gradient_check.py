"""The checker must pass what is right and catch what is wrong: layers with seeded bugs."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import backend
from minissl.errors import ConfigError
from minissl.gradient_check import adjoint_error, check_layer, relative_error
from minissl.layers import (
    Context,
    Convolution,
    Dropout,
    InnerProduct,
    Pooling,
    ReLU,
    SoftmaxWithLoss,
    TanH,
)
from tests.gradient_cases import layer_param

CONTEXT = Context(backend.get("numpy"), np.dtype(np.float64))


def make(layer_class, options: str = "", context: Context = CONTEXT):
    return layer_class(layer_param(f'name: "one" bottom: "x" top: "y" {options}'), context)


def inner_product(layer_class=InnerProduct):
    return make(layer_class, "inner_product_param { num_output: 3 }")


CONVOLUTION = "convolution_param { num_output: 2 kernel_size: 2 }"
X = np.array([[-1.3, -0.4, 0.7], [2.1, -0.2, 0.9]])


# --- seeded bugs: a wrong gradient is far outside any tolerance ---


class ReLUWithoutSlope(ReLU):
    def backward(self, top, propagate_down, bottom):
        self.kernels.relu_backward(bottom[0].data, top[0].diff, 0, bottom[0].diff)


class TanHWithoutSquare(TanH):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff * (1 - top[0].data)


class TanHThatAddsToTheBottom(TanH):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff += top[0].diff * (1 - top[0].data ** 2)


class TanHThatForgetsARow(TanH):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[1:] = (top[0].diff * (1 - top[0].data ** 2))[1:]


class LossWithoutWeight(SoftmaxWithLoss):
    def backward(self, top, propagate_down, bottom):
        top[0].diff, kept = np.ones(()), top[0].diff
        super().backward(top, propagate_down, bottom)
        top[0].diff = kept


class ConvolutionWithTurnedKernel(Convolution):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        turned = np.ascontiguousarray(self.parameters[0].data[:, :, ::-1, ::-1])
        self.kernels.conv_backward_input(top[0].diff, turned, *self.geometry, bottom[0].diff)


class ConvolutionWithoutBiasGradient(Convolution):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        self.parameters[1].diff[...] = 0


class DropoutWithTwoMasks(Dropout):
    def backward(self, top, propagate_down, bottom):
        kept = self.rng.random(top[0].shape) >= self.ratio
        bottom[0].diff[...] = top[0].diff * kept / (1 - self.ratio)


class PoolingOfTheLastMaximum(Pooling):
    def backward(self, top, propagate_down, bottom):
        self._argmax = self._argmax[..., ::-1].copy()
        super().backward(top, propagate_down, bottom)


BUGS = [
    (ReLUWithoutSlope, "relu_param { negative_slope: 0.1 }", [X]),
    (TanHWithoutSquare, "", [X]),
    (TanHThatAddsToTheBottom, "", [X]),
    (TanHThatForgetsARow, "", [X]),
    (LossWithoutWeight, "", [X, [2, 0]]),
    (ConvolutionWithTurnedKernel, CONVOLUTION, [(1, 1, 3, 3)]),
    (DropoutWithTwoMasks, "", [(4, 4)]),
    (PoolingOfTheLastMaximum, "pooling_param { kernel_size: 1 }", [X[None, None]]),
]


@pytest.mark.parametrize(("layer_class", "options", "bottoms"), BUGS)
def test_seeded_bug_is_caught(layer_class, options, bottoms):
    assert check_layer(make(layer_class, options), bottoms) > 0.01


@pytest.mark.parametrize(("layer_class", "options", "bottoms"), BUGS)
def test_without_the_bug_the_same_layer_passes(layer_class, options, bottoms):
    (original,) = layer_class.__bases__
    assert check_layer(make(original, options), bottoms) < 1e-7


# --- broken contracts ---


class TanHThatSpoilsItsInput(TanH):
    def forward(self, bottom, top):
        super().forward(bottom, top)
        bottom[0].data *= 2


class TanHThatSpoilsTheTopsGradient(TanH):
    def backward(self, top, propagate_down, bottom):
        super().backward(top, propagate_down, bottom)
        top[0].diff *= 2


class InnerProductThatOverwrites(InnerProduct):
    def backward(self, top, propagate_down, bottom):
        self.parameters[0].diff[...] = 0
        super().backward(top, propagate_down, bottom)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (make(TanHThatSpoilsItsInput), "layer 'one'.*forward changes bottom 0"),
        (make(TanHThatSpoilsTheTopsGradient), "backward changes top 0's diff"),
        (inner_product(InnerProductThatOverwrites), "does not add to the gradient of 'one.0'"),
        (make(ConvolutionWithoutBiasGradient, CONVOLUTION), None),
    ],
)
def test_broken_contract_is_caught(layer, words):
    if words is None:  # a missing gradient is a wrong one: it shows as an error, not as a contract
        assert check_layer(layer, [(1, 1, 3, 3)], step=0.5) == 1
    else:
        with pytest.raises(AssertionError, match=words):
            check_layer(layer, [X])


# --- the arithmetic of the check itself ---


def test_linear_layer_is_checked_to_the_last_digits():
    assert check_layer(inner_product(), [(2, 4)], step=0.5) < 1e-12


def test_parameters_are_checked_with_random_values_not_with_their_fillers():
    layer = inner_product()
    check_layer(layer, [(2, 4)])
    assert (layer.parameters[0].data != 0).all()


def test_given_arrays_are_not_changed():
    x = X.copy()
    check_layer(make(TanH), [x])
    check_layer(make(TanH), [x], in_place=True)
    assert np.array_equal(x, X)


def test_bottoms_without_gradient_are_left_out():
    # moving a label by 1e-5 would be refused
    layer = make(SoftmaxWithLoss, 'bottom: "label"')
    assert check_layer(layer, [X, [2, 0]]) < 1e-7


def test_tops_without_gradient_can_be_left_out():
    layer = make(Pooling, 'top: "positions" pooling_param { kernel_size: 2 }')
    assert check_layer(layer, [X[None, None]], objective_tops=[0]) < 1e-9


def test_float32_layer_is_refused():
    context = Context(backend.get("numpy"), np.dtype(np.float32))
    with pytest.raises(ConfigError, match="layer 'one' computes in float32"):
        check_layer(make(TanH, context=context), [X])


@pytest.mark.parametrize(
    ("a", "d", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.0], [1.0, 2.5], 0.2),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([1000.0, 0.0], [1000.0, 1e-3], 1e-3),  # measured against 1000 / 1000, not against 1e-3
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [np.inf, 2.0], np.inf),
        ([], [], 0),
    ],
)
def test_relative_error(a, d, error):
    assert relative_error(np.array(a), np.array(d)) == pytest.approx(error, rel=1e-12)


def test_adjoint_error_tells_a_transpose_from_something_else():
    a = np.random.default_rng(0).normal(size=(3, 4))
    assert adjoint_error(lambda x: a @ x, lambda y: a.T @ y, (4,), (3,)) < 1e-15
    wrong = a.copy()
    wrong[1, 2] += 0.1
    assert adjoint_error(lambda x: a @ x, lambda y: wrong.T @ y, (4,), (3,)) > 1e-4
