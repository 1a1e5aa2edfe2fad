"""Test vectors of compaction: a network with dead filters, and the smaller one of equal outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf import text_format

from minissl.compaction import compact
from minissl.formats import proto
from minissl.net import Net
from minissl.vectors import values
from minissl.vectors.case import Case, name_of

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 5 kernel_size: 2 } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
  inner_product_param { num_output: 4 } }
"""


def cases() -> Iterator[Case]:
    """Yield all vectors of this family."""
    param = text_format.Parse(NET, proto.NetParameter())
    net = Net(param, "TEST", "numpy", "float64")
    weights = {
        layer.name: [
            values.uniform(f"compaction {parameter.name}", parameter.shape)
            for parameter in layer.parameters
        ]
        for layer in net.layers
        if layer.parameters
    }
    weights["conv1"][0][[1, 4]] = 0  # two dead filters, whose biases are not 0
    weights["conv2"][0][:, 2] = 0  # a channel that nobody reads
    weights["conv2"][0][3] = 0
    weights["conv2"][0][:, 0, 0, 1] = 0  # a dead column of a living channel
    net.load(weights)
    data = values.uniform("compaction data", net.blobs["data"].shape)
    y = net.forward({"data": data})["ip"].copy()
    smaller = compact(net)
    inputs = {"data": data}
    for name, blobs in weights.items():
        inputs.update({f"{name}.{i}": blob for i, blob in enumerate(blobs)})
    outputs = {"ip": y}
    for name, blobs in smaller.weights.items():
        outputs.update({f"{name}.{i}_after": np.asarray(blob) for i, blob in enumerate(blobs)})
    yield Case(
        "compaction/chain/dead filters, channels and columns",
        "dead filters leave with the channels that read them, and their constants (bias, through "
        "ReLU and pooling) go into the next bias; filters that nothing reads leave; the outputs "
        "stay the same",
        name_of(compact),
        {"net": NET.strip(), "net_after": text_format.MessageToString(smaller.net_param)},
        inputs,
        outputs,
    )
