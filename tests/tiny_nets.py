"""Networks small enough to be trained in milliseconds, also where nothing is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl import Net, Solver
from minissl.backend import to_host
from minissl.formats.prototxt import parse_net, parse_solver

#: 4 images of 2 x 6 x 6 in a batch, 3 classes; conv1 has two groups
TINY = """
name: "Tiny"
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 4 channels: 2 height: 6 width: 6 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" CONV1
  convolution_param { num_output: 4 kernel_size: 3 group: 2
    weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" IP1
  inner_product_param { num_output: 6
    weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "relu2" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" IP2
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""

#: the same idea on digits, with dropout, for what needs a data set
DIGITS = """
name: "Digits"
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.00390625 } data_param { source: "mnist-small" batch_size: 6 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 block_group_lasso { xdimen: 25 ydimen: 1 } } param { lr_mult: 2 }
  convolution_param { num_output: 3 kernel_size: 5 stride: 5 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1"
  dropout_param { dropout_ratio: 0.25 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""

PLAIN_SOLVER = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 100 random_seed: 1'


def net_text(text: str = TINY, batch_size: int = 4, **parts: str) -> str:
    """Fill the places CONV1, IP1 and IP2 of a net, such as ``conv1="param { lr_mult: 0 }"``."""
    for place in ("CONV1", "IP1", "IP2"):
        text = text.replace(place, parts.get(place.lower(), ""))
    return text.replace("batch_size: 4", f"batch_size: {batch_size}")


def make_net(text: str = TINY, batch_size: int = 4, **options: Any) -> Net:
    parts = {key: options.pop(key) for key in ("conv1", "ip1", "ip2") if key in options}
    return Net(parse_net(net_text(text, batch_size, **parts)), **options)


def solver_param(fields: str = "", net: str = "") -> Any:
    """Parse a solver that holds its net; ``fields`` come after those of PLAIN_SOLVER."""
    param = parse_solver(PLAIN_SOLVER)
    extra = parse_solver(fields)
    param.MergeFrom(extra)
    if not extra.HasField("train_net_param"):
        param.net_param.CopyFrom(parse_net(net or net_text()))
    return param


def arrays(count: int = 24, seed: int = 0, dtype: Any = np.float64) -> tuple[Any, Any]:
    """Images of TINY that can be learnt: each class is bright in a corner of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.normal(size=(count, 2, 6, 6))
    for image, label in zip(images, labels, strict=True):
        image[label % 2, 3 * (label // 2) : 3 * (label // 2) + 3] += 2
    return images.astype(dtype), labels.astype(dtype)


def give_arrays(net: Net, count: int = 24, seed: int = 0) -> None:
    net.layer("data").set_arrays(*arrays(count, seed, net.dtype))  # type: ignore[attr-defined]


def make_solver(fields: str = "", net: str = "", count: int = 24, **options: Any) -> Solver:
    """Make a solver whose MemoryData layers have data."""
    solver = Solver(solver_param(fields, net), **options)
    for number, network in enumerate((solver.net, *solver.test_nets)):
        if network.layer("data").type_name == "MemoryData":
            give_arrays(network, count, seed=number)
    return solver


def weights_of(solver: Solver) -> dict[str, np.ndarray]:
    return {p.name: to_host(p.data).copy() for p in solver.net.parameters}


def same_weights(one: Solver, other: Solver) -> bool:
    """Whether all weights are bitwise equal."""
    return all(
        a.name == b.name and np.array_equal(to_host(a.data), to_host(b.data))
        for a, b in zip(one.net.parameters, other.net.parameters, strict=True)
    )
