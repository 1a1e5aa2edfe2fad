"""Two iterations of SSL on a tiny network, small enough to follow every number by hand.

The network: 4 filters of 5 x 5 over 28 x 28 digits, max-pooling, ReLU, 10 classes. Its first
weights are fixed: filter 2 is weak, filter 3 is dead and frozen.

    python docs/examples/one_iteration.py            # the numbers of docs/iteration.md
    python -m pdb docs/examples/one_iteration.py     # the same, line by line
"""

from __future__ import annotations

import numpy as np

from minissl import Solver
from minissl.formats.prototxt import parse_solver

SOLVER = """
base_lr: 0.001  lr_policy: "fixed"  momentum: 0.9  max_iter: 2
iter_size: 2                       # two batches of 4 digits make one update
clip_gradients: 0.5                # of all gradients together
weight_decay: 0.0005
block_group_decay: 0.5             # lambda_g
net_param {
  name: "tiny"
  layer {
    name: "digits"  type: "Data"  top: "data"  top: "label"
    transform_param { scale: 0.00390625 }
    data_param { source: "mnist-small"  batch_size: 4 }
  }
  layer {
    name: "conv1"  type: "Convolution"  bottom: "data"  top: "conv1"
    connectivity_mode: DISCONNECTED_GRPWISE
    param { block_group_lasso { xdimen: 25  ydimen: 1 } }  # one filter is one group
    convolution_param { num_output: 4  kernel_size: 5 }
  }
  layer {
    name: "pool1"  type: "Pooling"  bottom: "conv1"  top: "pool1"
    pooling_param { pool: MAX  kernel_size: 4  stride: 4 }
  }
  layer { name: "relu1"  type: "ReLU"  bottom: "pool1"  top: "pool1" }
  layer {
    name: "ip1"  type: "InnerProduct"  bottom: "pool1"  top: "ip1"
    inner_product_param { num_output: 10 }
  }
  layer { name: "loss"  type: "SoftmaxWithLoss"  bottom: "ip1"  bottom: "label"  top: "loss" }
}
"""


def first_weights() -> dict[str, list[np.ndarray]]:
    """Return weights made of sines: the same on every machine."""
    filters = 0.1 * np.sin(np.arange(1.0, 101.0)).reshape(4, 1, 5, 5)
    filters[2] *= 0.0042
    filters[3] = 0
    classes = 0.1 * np.cos(np.arange(1440.0)).reshape(10, 144)
    return {"conv1": [filters, np.full(4, 0.1)], "ip1": [classes, np.zeros(10)]}


def filter_norms(solver: Solver) -> np.ndarray:
    """Return ||w_g|| of the four filters."""
    return np.linalg.norm(solver.net.parameters[0].matrix, axis=1).round(6)


def look(solver: Solver) -> None:
    """Make the iteration to look at."""
    solver.step()


def main() -> None:
    """Make one iteration, which fills the momentum, and then the one to look at."""
    solver = Solver(parse_solver(SOLVER), weights=first_weights(), backend="numpy", dtype="float64")
    print("filter norms at first:           ", filter_norms(solver))
    solver.step()
    print("filter norms before iteration 1: ", filter_norms(solver))
    look(solver)
    print("filter norms after iteration 1:  ", filter_norms(solver))
    print("loss of iteration 1:             ", round(solver.loss, 6))


if __name__ == "__main__":
    main()
