"""Caffe's rarer layers and the adaptive solvers, where PyTorch defines the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minissl import Net, Solver
from minissl.formats.prototxt import parse_net, parse_solver
from tests.conftest import needs_compiler
from tests.peers.test_pytorch import as_torch, close, layer_net
from tests.peers.test_pytorch import check_layer as check

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install torch")
F = torch.nn.functional

pytestmark = needs_compiler

SHAPE = (3, 4, 2, 5)


def mvn(x, axes, eps):
    """Mean and variance by PyTorch's own functions; eps belongs to the deviation here."""
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
    return (x - mean) / (variance.sqrt() + eps)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        ('type: "AbsVal"', torch.abs),
        ('type: "BNLL"', F.softplus),
        ('type: "ELU" elu_param { alpha: 0.5 }', lambda x: F.elu(x, 0.5)),
        ('type: "Exp" exp_param { base: 2 scale: 0.5 }', lambda x: torch.exp2(0.5 * x)),
        ('type: "Log" log_param { shift: 9 }', lambda x: torch.log(x + 9)),
        ('type: "Power" power_param { power: 3 scale: 2 shift: -1 }', lambda x: (2 * x - 1) ** 3),
        ('type: "PReLU"', F.prelu),
        ('type: "PReLU" prelu_param { channel_shared: true }', lambda x, a: F.prelu(x, a[None])),
        ('type: "Tile" tile_param { axis: 2 tiles: 3 }', lambda x: x.tile(1, 1, 3, 1)),
        ('type: "MVN" mvn_param { eps: 0.25 }', lambda x: mvn(x, (2, 3), 0.25)),
        (
            'type: "MVN" mvn_param { across_channels: true eps: 1e-3 }',
            lambda x: mvn(x, (1, 2, 3), float(np.float32(1e-3))),
        ),
        ('type: "Reduction" reduction_param { axis: 1 }', lambda x: x.sum((1, 2, 3))),
        (
            'type: "Reduction" reduction_param { axis: 2 operation: MEAN }',
            lambda x: x.mean((2, 3)),
        ),
        (
            'type: "Reduction" reduction_param { axis: -1 operation: SUMSQ coeff: 0.5 }',
            lambda x: 0.5 * (x * x).sum(3),
        ),
        ('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', lambda x: x.flatten(1)),
    ],
)
def test_layers_of_one_bottom(layer, function):
    check(layer_net(SHAPE, layer), function, seed=4)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_deconvolution(data):
    n, groups = data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 2, 3]))
    c, f = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 3))
    h, w = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    kernel = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)))
    pad = (data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2)))
    dilation = data.draw(st.integers(1, 2))
    for size, k, s, p in zip((h, w), kernel, stride, pad, strict=True):
        assume(s * (size - 1) + dilation * (k - 1) + 1 > 2 * p)
    options = {"stride": stride, "padding": pad, "groups": groups, "dilation": dilation}
    ones = torch.ones(n, c, h, w), torch.ones(c, f // groups, *kernel)
    assume(F.conv_transpose2d(*ones, **options).any())  # not all of it lies in the padding
    bias = data.draw(st.booleans())
    net = layer_net(
        (n, c, h, w),
        f"""type: "Deconvolution" convolution_param {{ num_output: {f} group: {groups}
            kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]}
            pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation}
            bias_term: {str(bias).lower()} }}""",
    )
    check(
        net,
        lambda x, w, b=None: F.conv_transpose2d(x, w, b, **options),
        data.draw(st.integers(0, 99)),
    )


def loss_net(layer, *shapes):
    """A loss of several inputs, named a, b, c."""
    names = "abc"[: len(shapes)]
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for name, shape in zip(names, shapes, strict=True)
    )
    bottoms = " ".join(f'bottom: "{name}"' for name in names)
    return Net(
        parse_net(
            f'force_backward: true {inputs} layer {{ name: "l" {bottoms} top: "l" {layer} }}'
        ),
        phase="TRAIN",
        backend="numba",
        dtype="float64",
    )


RNG = np.random.default_rng(2)
SCORES, OTHERS = RNG.normal(size=(2, 6, 4))
YES_NO = (RNG.random((6, 4)) < 0.5).astype(float)
CLASSES = np.array([0, 3, 1, 2, 2, 0.0])
ALIKE = np.array([1, 0, 1, 0, 0, 0.0])
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)


def hinge(x, t, power):
    """By the definition: PyTorch's own multi-class hinge compares classes with one another."""
    sign = 1 - 2 * F.one_hot(t.long(), 4)
    return (1 + sign * x).clamp(min=0).pow(power).sum() / len(x)


def contrastive(a, b, alike):
    d = (a - b).norm(dim=1)
    return (alike * d**2 + (1 - alike) * (3 - d).clamp(min=0) ** 2).sum() / (2 * len(a))


@pytest.mark.parametrize(
    ("layer", "inputs", "function"),
    [
        (
            'type: "EuclideanLoss"',
            (SCORES, OTHERS),
            lambda a, b: F.mse_loss(a, b, reduction="sum") / 12,
        ),
        (
            'type: "SigmoidCrossEntropyLoss"',
            (SCORES, YES_NO),
            lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="sum") / 6,
        ),
        ('type: "HingeLoss"', (SCORES, CLASSES), lambda x, t: hinge(x, t, 1)),
        (
            'type: "HingeLoss" hinge_loss_param { norm: L2 }',
            (SCORES, CLASSES),
            lambda x, t: hinge(x, t, 2),
        ),
        (
            'type: "MultinomialLogisticLoss"',
            (PROBABILITIES, CLASSES),
            lambda p, t: F.nll_loss(p.log(), t.long()),
        ),
        (
            'type: "ContrastiveLoss" contrastive_loss_param { margin: 3 }',
            (SCORES, OTHERS, ALIKE),
            contrastive,
        ),
    ],
)
def test_losses(layer, inputs, function):
    net = loss_net(layer, *(x.shape for x in inputs))
    net.forward(dict(zip("abc", inputs, strict=False)))
    net.backward()
    tensors = [as_torch(x) for x in inputs]
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i not in net.layer("l").no_gradient)
    loss = function(*tensors)
    assert net.loss() == pytest.approx(loss.item(), rel=1e-10)
    loss.backward()
    for name, tensor in zip("abc", tensors, strict=False):
        if tensor.requires_grad:
            close(net.blobs[name].diff, tensor.grad, "float64", name)


def test_embed():
    net = layer_net((2, 3), 'type: "Embed" embed_param { input_dim: 5 num_output: 4 }')
    layer, x, y = net.layer("l"), net.blobs["x"], net.blobs["y"]
    words = np.array([[1, 4, 1], [0, 3, 1]])
    x.data[...] = words
    rng = np.random.default_rng(0)
    for parameter in layer.parameters:
        parameter.data[...] = rng.normal(size=parameter.shape)
    w, b = (as_torch(parameter.data).requires_grad_(True) for parameter in layer.parameters)
    expected = F.embedding(torch.tensor(words), w) + b
    net.forward()
    close(y.data, expected, "float64", "forward")
    y.diff[...] = rng.normal(size=y.shape)
    net.clear_gradients()
    layer.backward([y], [False], [x])
    gradients = torch.autograd.grad(expected, [w, b], as_torch(y.diff))
    for parameter, gradient in zip(layer.parameters, gradients, strict=True):
        close(parameter.diff, gradient, "float64", parameter.name)


# --- solvers ---

RATE, DELTA = float(np.float32(0.05)), float(np.float32(1e-3))


@pytest.mark.parametrize(
    ("fields", "optimizer"),
    [
        (
            f'type: "AdaGrad" delta: {DELTA}',
            lambda p: torch.optim.Adagrad(p, lr=RATE, eps=DELTA),
        ),
        (
            f'type: "RMSProp" rms_decay: 0.75 delta: {DELTA}',
            lambda p: torch.optim.RMSprop(p, lr=RATE, alpha=0.75, eps=DELTA),
        ),
        (
            f'type: "AdaDelta" momentum: 0.75 delta: {DELTA}',
            lambda p: torch.optim.Adadelta(p, lr=RATE, rho=0.75, eps=DELTA),
        ),
    ],
)
def test_ten_updates(fields, optimizer):
    """A product of data that is the same in each iteration, and a squared error."""
    net = """
        layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
            shape { dim: 6 dim: 4 } shape { dim: 6 dim: 3 }
            data_filler { value: 1 } data_filler { value: -0.5 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
            num_output: 3 weight_filler { type: "gaussian" } bias_filler { value: 0.3 } } }
        layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }"""
    param = parse_solver(f'base_lr: 0.05 lr_policy: "fixed" max_iter: 10 {fields}')
    param.net_param.CopyFrom(parse_net(net))
    solver = Solver(param, backend="numba", dtype="float64", zero_out=False)
    parameters = [as_torch(p.data).requires_grad_(True) for p in solver.net.parameters]
    peer = optimizer(parameters)
    w, b = parameters
    x, t = torch.ones(6, 4, dtype=torch.float64), torch.full((6, 3), -0.5, dtype=torch.float64)
    for _ in range(10):
        solver.step()
        peer.zero_grad()
        loss = F.mse_loss(F.linear(x, w, b), t, reduction="sum") / 12
        loss.backward()
        peer.step()
        assert solver.loss == pytest.approx(loss.item(), rel=1e-9)
    for parameter, tensor in zip(solver.net.parameters, parameters, strict=True):
        close(parameter.data, tensor, "float64", parameter.name)
