"""The same network in PyTorch: loss, every gradient, ten updates, and layers with drawn options."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minissl import Net, Solver, models
from minissl.formats.prototxt import parse_net, parse_solver, read_net
from tests.conftest import needs_compiler

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install torch")
F = torch.nn.functional

pytestmark = needs_compiler

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def as_torch(array):
    return torch.tensor(np.array(array))


def close(found, expected, dtype, what=""):
    """Compare arrays relative to the largest element: small ones are sums that cancel."""
    found, expected = np.asarray(found), np.asarray(expected.detach())
    scale = np.abs(expected).max()
    assert scale > 0, what
    error = np.abs(found - expected).max() / scale
    assert error <= TOLERANCE[dtype], f"{what}: relative error {error:.1e}"


# --- LeNet ---


def lenet_solver(dtype, fields="", lasso=""):
    """LeNet on the digits of the package, without test nets."""
    net = read_net(models.path("lenet.prototxt"))
    for layer in net.layer:
        if layer.name == "conv2" and lasso:
            layer.param[0].MergeFromString(block_of(lasso))
    solver = parse_solver(f'base_lr: 0.01 lr_policy: "fixed" max_iter: 10 random_seed: 3 {fields}')
    solver.net_param.CopyFrom(net)
    return Solver(
        solver,
        dtype=dtype,
        backend="numba",
        data={"source": "mnist-small", "batch_size": 16},
        zero_out=False,
    )


def block_of(text):
    """Serialize a ``param { ... }`` block."""
    net = parse_net(f'layer {{ name: "x" type: "ReLU" param {{ {text} }} }}')
    return net.layer[0].param[0].SerializeToString()


class TorchLeNet:
    """LeNet from the same weights, differentiated by PyTorch."""

    def __init__(self, solver):
        self.p = {p.name: as_torch(p.data).requires_grad_(True) for p in solver.net.parameters}

    def loss(self, images, labels):
        p = self.p
        x = F.max_pool2d(F.conv2d(images, p["conv1.0"], p["conv1.1"]), 2)
        x = F.max_pool2d(F.conv2d(x, p["conv2.0"], p["conv2.1"]), 2)
        x = F.relu(F.linear(x.flatten(1), p["ip1.0"], p["ip1.1"]))
        return F.cross_entropy(F.linear(x, p["ip2.0"], p["ip2.1"]), labels)

    def gradients(self, images, labels):
        loss = self.loss(images, labels)
        return loss, dict(
            zip(self.p, torch.autograd.grad(loss, list(self.p.values())), strict=True)
        )


def batch_of(net):
    """The batch that the network has just read."""
    labels = as_torch(net.blobs["label"].data).long()
    return as_torch(net.blobs["data"].data), labels


@DTYPES
def test_lenet_loss_and_gradients(dtype):
    solver = lenet_solver(dtype)
    peer = TorchLeNet(solver)
    solver.forward_backward()
    loss, gradients = peer.gradients(*batch_of(solver.net))
    assert solver.loss == pytest.approx(loss.item(), rel=TOLERANCE[dtype])
    for parameter in solver.net.parameters:
        close(parameter.diff, gradients[parameter.name], dtype, parameter.name)


@DTYPES
def test_ten_updates_of_lenet(dtype):
    """torch.optim.SGD has another momentum (rate outside of it): the same at a constant rate."""
    solver = lenet_solver(dtype, "momentum: 0.9 weight_decay: 0.0005")
    peer = TorchLeNet(solver)
    rate, momentum, decay = (float(np.float32(x)) for x in (0.01, 0.9, 0.0005))
    groups = [
        {"params": [peer.p[p.name]], "lr": rate * p.spec.lr_mult} for p in solver.net.parameters
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=momentum, weight_decay=decay)
    for _ in range(10):
        solver.step()
        optimizer.zero_grad()
        loss = peer.loss(*batch_of(solver.net))
        loss.backward()
        optimizer.step()
        assert solver.loss == pytest.approx(loss.item(), rel=TOLERANCE[dtype])
    for parameter in solver.net.parameters:
        close(parameter.data, peer.p[parameter.name], dtype, parameter.name)


@DTYPES
def test_ten_updates_with_group_lasso(dtype):
    """The penalty written as such in PyTorch, and differentiated by it."""
    solver = lenet_solver(
        dtype,
        "momentum: 0.9 breadth_decay: 0.2 block_group_decay: 0.1",
        "breadth_decay_mult: 1 block_group_lasso { xdimen: 1 ydimen: 50 }"
        " block_group_lasso { xdimen: 25 ydimen: 1 block_decay_mult: 0.5 }",
    )
    peer = TorchLeNet(solver)
    rows, blocks = float(np.float32(0.2)), float(np.float32(0.1))
    momentum = float(np.float32(0.9))
    history = {name: torch.zeros_like(w) for name, w in peer.p.items()}
    for _ in range(10):
        before = solver.regularization()
        solver.step()
        w = peer.p["conv2.0"].reshape(50, 500)
        penalty = rows * w.norm(dim=1).sum() + blocks * w.norm(dim=0).sum()
        penalty = penalty + 0.5 * blocks * w.reshape(50, 20, 25).norm(dim=2).sum()
        assert before == pytest.approx(penalty.item(), rel=TOLERANCE[dtype])
        objective = peer.loss(*batch_of(solver.net)) + penalty
        gradients = torch.autograd.grad(objective, list(peer.p.values()))
        with torch.no_grad():
            for parameter, gradient in zip(solver.net.parameters, gradients, strict=True):
                h = history[parameter.name]
                rate = float(np.float32(0.01)) * parameter.spec.lr_mult
                h.mul_(momentum).add_(rate * gradient)
                peer.p[parameter.name].sub_(h)
    for parameter in solver.net.parameters:
        close(parameter.data, peer.p[parameter.name], dtype, parameter.name)


# --- single layers with drawn options ---


def layer_net(shape, layer):
    """Build one layer on an input; its output is a loss, so that the backward pass is planned."""
    dims = " ".join(f"dim: {n}" for n in shape)
    return Net(
        parse_net(
            f"""force_backward: true
            layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
            layer {{ name: "l" bottom: "x" top: "y" loss_weight: 1 {layer} }}"""
        ),
        phase="TRAIN",
        backend="numba",
        dtype="float64",
    )


def check_layer(net, function, seed):
    """Forward, and backward of a random gradient, against a function of PyTorch tensors."""
    rng = np.random.default_rng(seed)
    layer, x, y = net.layer("l"), net.blobs["x"], net.blobs["y"]
    x.data[...] = rng.normal(size=x.shape)
    for parameter in layer.parameters:
        parameter.data[...] = rng.normal(size=parameter.shape)
    blobs = [x, *layer.parameters]
    tensors = [as_torch(blob.data).requires_grad_(True) for blob in blobs]
    expected = function(*tensors)
    net.forward()
    assert y.shape == tuple(expected.shape)
    close(y.data, expected, "float64", "forward")
    d_y = rng.normal(size=y.shape)
    net.clear_gradients()
    y.diff[...] = d_y
    layer.backward([y], [True], [x])
    gradients = torch.autograd.grad(expected, tensors, as_torch(d_y))
    for found, gradient in zip(blobs, gradients, strict=True):
        close(found.diff, gradient, "float64", found.name)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_convolution(data):
    n, groups = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 3]))
    c, f = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.integers(1, 3))
    h, w = data.draw(st.integers(3, 8)), data.draw(st.integers(3, 8))
    kernel = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    stride = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)))
    pad = (data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2)))
    dilation = data.draw(st.integers(1, 2))
    for size, p, k in zip((h, w), pad, kernel, strict=True):
        assume(size + 2 * p >= dilation * (k - 1) + 1)
    bias = data.draw(st.booleans())
    net = layer_net(
        (n, c, h, w),
        f"""type: "Convolution" convolution_param {{ num_output: {f} group: {groups}
            kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]} stride_w: {stride[1]}
            pad_h: {pad[0]} pad_w: {pad[1]} dilation: {dilation}
            bias_term: {str(bias).lower()} }}""",
    )
    check_layer(
        net,
        lambda x, w, b=None: F.conv2d(x, w, b, stride, pad, dilation, groups),
        data.draw(st.integers(0, 99)),
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_pooling(data):
    """With ceil_mode, where the rules coincide: a stride not larger than the kernel."""
    kind = data.draw(st.sampled_from(["MAX", "AVE"]))
    shape = tuple(
        data.draw(st.integers(low, high)) for low, high in ((1, 2), (1, 3), (4, 9), (4, 9))
    )
    kernel = data.draw(st.integers(1, 4))
    stride = data.draw(st.integers(1, kernel))
    pad = data.draw(st.integers(0, kernel // 2)) if kernel > 1 else 0
    net = layer_net(
        shape,
        f"""type: "Pooling" pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride}
            pad: {pad} }}""",
    )
    pool = F.max_pool2d if kind == "MAX" else F.avg_pool2d
    check_layer(
        net,
        lambda x: pool(x, kernel, stride, pad, ceil_mode=True),
        data.draw(st.integers(0, 99)),
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_normalization_across_channels(data):
    """Its window is as wide, and beyond the first and last channel it counts zeros too."""
    shape = tuple(data.draw(st.integers(1, high)) for high in (2, 9, 4, 4))
    size = data.draw(st.sampled_from([1, 3, 5, 7]))
    alpha, k = data.draw(st.sampled_from([1e-4, 0.5, 4])), data.draw(st.sampled_from([1.0, 2.0]))
    beta = data.draw(st.sampled_from([0.75, 0.5, 1.25]))
    net = layer_net(
        shape,
        f"""type: "LRN" lrn_param {{ local_size: {size} alpha: {alpha} beta: {beta} k: {k} }}""",
    )
    check_layer(
        net,
        lambda x: F.local_response_norm(x, size, float(np.float32(alpha)), beta, k),
        data.draw(st.integers(0, 99)),
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_batch_normalization(data):
    """By the batch, and by statistics that several batches have left behind."""
    n, c = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 4))
    shape = (n, c, *data.draw(st.sampled_from([(), (3,), (4, 4)])))
    eps = data.draw(st.sampled_from([1e-5, 0.1]))
    seed = data.draw(st.integers(0, 99))
    options = f"eps: {eps} moving_average_fraction: 0"
    net = layer_net(shape, f'type: "BatchNorm" batch_norm_param {{ {options} }}')
    eps = float(np.float32(eps))
    layer, x, y = net.layer("l"), net.blobs["x"], net.blobs["y"]
    peer = torch.nn.BatchNorm1d if len(shape) < 4 else torch.nn.BatchNorm2d
    module = peer(c, eps=eps, momentum=1, affine=False, dtype=torch.float64)
    rng = np.random.default_rng(seed)
    x.data[...] = rng.normal(loc=3, scale=2, size=shape)
    images = as_torch(x.data).requires_grad_(True)
    expected = module(images)
    net.forward()
    close(y.data, expected, "float64", "forward")
    y.diff[...] = rng.normal(size=shape)
    layer.backward([y], [True], [x])
    (gradient,) = torch.autograd.grad(expected, [images], as_torch(y.diff))
    assert np.abs(x.diff - gradient.numpy()).max() < 1e-9
    # with fraction 0 the statistics are those of the last batch, as with PyTorch's momentum 1
    close(layer.parameters[0].data, module.running_mean, "float64", "mean")
    close(layer.parameters[1].data, module.running_var, "float64", "variance")
    options += " use_global_stats: true"
    tested = layer_net(shape, f'type: "BatchNorm" batch_norm_param {{ {options} }}')
    for one, other in zip(tested.parameters, net.parameters, strict=True):
        one.data = other.data
    tested.blobs["x"].data[...] = x.data[::-1]
    tested.forward()
    module.eval()
    close(tested.blobs["y"].data, module(as_torch(x.data[::-1])), "float64", "testing")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_scale(data):
    shape = tuple(data.draw(st.integers(1, 4)) for _ in range(4))
    axis = data.draw(st.integers(0, 3))
    count = data.draw(st.integers(1, 4 - axis))
    net = layer_net(
        shape,
        f"""type: "Scale" scale_param {{ axis: {axis} num_axes: {count} bias_term: true }}""",
    )
    back = (..., *[None] * (4 - axis - count))
    check_layer(net, lambda x, w, b: x * w[back] + b[back], data.draw(st.integers(0, 99)))


def test_residual_training_follows_pytorch():
    """Ten updates of a network with a residual block, BatchNorm and Scale, and its test outputs."""
    text = """
    layer { name: "data" type: "MemoryData" top: "data" top: "label"
      memory_data_param { batch_size: 8 channels: 3 height: 6 width: 6 } }
    layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param {
      num_output: 4 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } }
    layer { name: "a_bn" type: "BatchNorm" bottom: "a" top: "a"
      batch_norm_param { moving_average_fraction: 0.9 } }
    layer { name: "a_s" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
    layer { name: "a_relu" type: "ReLU" bottom: "a" top: "a" }
    layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {
      num_output: 4 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } }
    layer { name: "b_bn" type: "BatchNorm" bottom: "b" top: "b_bn"
      batch_norm_param { moving_average_fraction: 0.9 } }
    layer { name: "b_s" type: "Scale" bottom: "b_bn" top: "b_s" scale_param { bias_term: true } }
    layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b_s" top: "sum" }
    layer { name: "sum_relu" type: "ReLU" bottom: "sum" top: "sum" }
    layer { name: "pool" type: "Pooling" bottom: "sum" top: "pool"
      pooling_param { pool: AVE global_pooling: true } }
    layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param {
      num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    """
    param = parse_solver(
        'base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: "fixed" max_iter: 10'
    )
    param.net_param.CopyFrom(parse_net(text))
    solver = Solver(param, backend="numba", dtype="float64", zero_out=False)
    nn = torch.nn
    conv = [nn.Conv2d(c, 4, 3, padding=1, bias=False, dtype=torch.float64) for c in (3, 4)]
    # the numbers of a prototxt are float32
    eps, lr, momentum, decay = (float(np.float32(value)) for value in (1e-5, 0.1, 0.9, 0.01))
    norm = [nn.BatchNorm2d(4, eps, 1 - momentum, dtype=torch.float64) for _ in range(2)]
    last = nn.Linear(4, 3, dtype=torch.float64)

    def run(x):
        a = F.relu(norm[0](conv[0](x)))
        return last(F.relu(a + norm[1](conv[1](a))).mean(dim=(2, 3)))

    p = {q.name: q for q in solver.net.parameters}
    learned = {
        "a.0": conv[0].weight, "a_s.0": norm[0].weight, "a_s.1": norm[0].bias,
        "b.0": conv[1].weight, "b_s.0": norm[1].weight, "b_s.1": norm[1].bias,
        "ip.0": last.weight, "ip.1": last.bias,
    }  # fmt: skip
    for name, tensor in learned.items():
        tensor.data = as_torch(p[name].data)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(8, 3, 6, 6)), rng.integers(0, 3, 8)
    solver.net.layer("data").set_arrays(images, labels)
    sgd = torch.optim.SGD(learned.values(), lr, momentum, weight_decay=decay)
    for _ in range(10):
        found = solver.step()
        loss = F.cross_entropy(run(as_torch(images)), as_torch(labels))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        assert abs(found - loss.item()) < 1e-9
    for name, tensor in learned.items():
        close(p[name].data, tensor, "float64", name)
    for i, name in enumerate(("a_bn", "b_bn")):
        # Caffe's sums begin at 0 and are divided by their factor, PyTorch's means begin at 0 and 1
        begun = 1 - momentum**10
        factor = p[f"{name}.2"].data
        assert np.allclose(factor, begun / (1 - momentum), rtol=1e-12)
        close(p[f"{name}.0"].data / factor * begun, norm[i].running_mean, "float64", "mean")
        variance = norm[i].running_var - momentum**10
        found = p[f"{name}.1"].data / factor * begun
        close(found, variance, "float64", "variance")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_inner_product(data):
    n, c, h, outputs = (data.draw(st.integers(1, 5)) for _ in range(4))
    bias = data.draw(st.booleans())
    net = layer_net(
        (n, c, h),
        f"""type: "InnerProduct" inner_product_param {{ num_output: {outputs}
            bias_term: {str(bias).lower()} }}""",
    )
    check_layer(
        net,
        lambda x, w, b=None: F.linear(x.flatten(1), w, b),
        data.draw(st.integers(0, 99)),
    )
