"""Networks as text, with weights of order 1 and drawn zeros, for the tests of this room."""

from __future__ import annotations

import numpy as np

from minissl.compaction import compact, prove
from minissl.formats.prototxt import parse_net
from minissl.net import Net


def data(channels=2, height=6, width=5, batch=2) -> str:
    dims = " ".join(f"dim: {n}" for n in (batch, channels, height, width))
    return (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
    )


def conv(name, bottom, filters, fields="kernel_size: 3") -> str:
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: {filters} {fields} }} }}"
    )


def ip(name, bottom, filters, fields="") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: {filters} {fields} }} }}"
    )


def layer(type_name, name, bottom, top, fields="") -> str:
    return (
        f'layer {{ name: "{name}" type: "{type_name}" bottom: "{bottom}" top: "{top}" {fields} }}'
    )


def joined(type_name, name, bottoms, fields="") -> str:
    """Return a layer with several bottoms: Eltwise, Concat."""
    read = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "{name}" type: "{type_name}" {read} top: "{name}" {fields} }}'


def norm(name, bottom) -> str:
    """Return BatchNorm and Scale in place, named ``{name}_bn`` and ``{name}_scale``."""
    return layer("BatchNorm", f"{name}_bn", bottom, bottom) + layer(
        "Scale", f"{name}_scale", bottom, bottom, "scale_param { bias_term: true }"
    )


def residual(name, bottom, filters, stride=1, shortcut=False, kernels=(3, 3)) -> str:
    """Return relu(x + norm(conv2(relu(norm(conv1(x)))))), x through a 1x1 convolution or not."""
    pads = [kernel // 2 for kernel in kernels]
    a, b = f"{name}_conv1", f"{name}_conv2"
    fields = "kernel_size: {} pad: {} stride: {} bias_term: false"
    text = [
        conv(a, bottom, filters, fields.format(kernels[0], pads[0], stride)),
        norm(a, a),
        layer("ReLU", f"{a}_relu", a, a),
        conv(b, a, filters, fields.format(kernels[1], pads[1], 1)),
        norm(b, b),
    ]
    x = bottom
    if shortcut:
        x = f"{name}_shortcut"
        text.append(conv(x, bottom, filters, fields.format(1, 0, stride)))
    text += [joined("Eltwise", name, [x, b]), layer("ReLU", f"{name}_relu", name, name)]
    return "".join(text)


def resnet(n=1, widths=(4, 6), size=8, classes=3, images=2) -> list[str]:
    """Return a small ResNet of n blocks for each width, as those for CIFAR."""
    text = [
        data(channels=3, height=size, width=size, batch=images),
        conv("conv1", "data", widths[0], "kernel_size: 3 pad: 1 bias_term: false"),
        norm("conv1", "conv1"),
        layer("ReLU", "conv1_relu", "conv1", "conv1"),
    ]
    last, width = "conv1", widths[0]
    for stage, filters in enumerate(widths):
        for number in range(n):
            name = f"res{stage + 1}{'abcdefgh'[number]}"
            changes = filters != width
            text.append(residual(name, last, filters, 2 if changes else 1, changes))
            last, width = name, filters
    pooling = "pooling_param { pool: AVE global_pooling: true }"
    text += [layer("Pooling", "pool", last, "pool", pooling), ip("ip1", "pool", classes)]
    return text


def build(*layers, backend="numpy", dtype="float64", seed=0, phase="TEST") -> Net:
    """Build a net with all weights and biases between 0.5 and 1.5 in magnitude."""
    net = Net(parse_net("\n".join(layers)), phase, backend, dtype)
    rng = np.random.default_rng(seed)
    net.load(
        {
            name: [_drawn(rng, net.layer(name), i, b.shape) for i, b in enumerate(blobs)]
            for name, blobs in net.weights().items()
        }
    )
    return net


def change(net: Net, **edits) -> Net:
    """Set weights to zero: ``conv1=lambda w: ...`` edits the weights of conv1 in place."""
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}
    for name, edit in edits.items():
        edit(weights[name][0])
    net.load(weights)
    return net


def rebuild(net: Net, compacted, backend="numpy", phase="TEST") -> Net:
    """Build what compaction made."""
    smaller = Net(
        compacted.net_param, phase, backend, net.dtype.name, data=net.layers[0].context.data
    )
    smaller.load(compacted.weights)
    return smaller


def zeros_at(*index):
    """Return an edit that sets ``w[index]`` to 0; several indices along the first axis."""

    def edit(w):
        w[list(index)] = 0

    return edit


def _drawn(rng, layer, blob, shape):
    """Away from zero; statistics as sums over batches, with variances that are positive."""
    if layer.type_name == "BatchNorm":
        return np.array([2.0]) if blob == 2 else rng.uniform(0.5, 4.0, shape)
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)


def check(net, fold_norms=False, backends=("numpy",)):
    """Compact, and expect equal outputs, no growth and nothing left to do."""
    compacted = compact(net, fold_norms)
    for backend in backends:
        smaller = rebuild(net, compacted, backend)
        assert smaller.outputs == net.outputs
        proof = prove(net, smaller)
        assert proof.max_abs_difference <= 1e-12 * max(1, proof.largest_output)
    assert compacted.report.bytes_after <= compacted.report.bytes_before
    again = compact(rebuild(net, compacted), fold_norms)
    assert again.net_param == compacted.net_param
    for name, blobs in compacted.weights.items():
        for one, other in zip(blobs, again.weights[name], strict=True):
            np.testing.assert_array_equal(one, other)
    return compacted


def names(compacted):
    return [x.name for x in compacted.net_param.layer]


def affine(net, name):
    """Return a and c of y = a * x + c, what the norms behind a convolution do."""
    mean, variance, factor = net.weights()[f"{name}_bn"]
    gamma, beta = net.weights()[f"{name}_scale"]
    a = gamma / np.sqrt(variance / factor + net.layer(f"{name}_bn").eps)
    return a, beta - a * mean / factor


def everything(w):
    w[...] = 0
