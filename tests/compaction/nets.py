"""Networks as text, with weights of order 1 and drawn zeros, for the tests of this room."""

from __future__ import annotations

import numpy as np

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


def build(*layers, backend="numpy", dtype="float64", seed=0, phase="TEST") -> Net:
    """Build a net with all weights and biases between 0.5 and 1.5 in magnitude."""
    net = Net(parse_net("\n".join(layers)), phase, backend, dtype)
    rng = np.random.default_rng(seed)
    net.load(
        {name: [_away_from_zero(rng, b.shape) for b in w] for name, w in net.weights().items()}
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


def _away_from_zero(rng, shape):
    return rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
