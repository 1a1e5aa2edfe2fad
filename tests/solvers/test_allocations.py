"""A steady iteration reuses its memory: nothing of the size of a blob is allocated."""

from __future__ import annotations

import tracemalloc

import pytest

from minissl import Solver
from tests.conftest import needs_compiler
from tests.tiny_nets import solver_param

NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.01 crop_size: 24 mirror: true mean_value: 3 }
  data_param { source: "mnist-small" batch_size: 64 } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "a_bn" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "a_scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "a_relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {
  num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "sum_relu" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "pool" type: "Pooling" bottom: "sum" top: "pool"
  pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm"
  lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL } }
layer { name: "mean" type: "Pooling" bottom: "norm" top: "mean"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "mean" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@needs_compiler
@pytest.mark.parametrize("fields", ["", 'type: "Adam" base_lr: 0.001'])
def test_a_steady_iteration_allocates_no_blobs(fields):
    solver = Solver(
        solver_param(f"momentum: 0.9 weight_decay: 0.001 {fields}", NET), backend="numba"
    )
    for _ in range(4):
        solver.step()
    smallest = 4 * solver.net.blobs["mean"].size  # bytes of the smallest blob with channels
    tracemalloc.start()
    try:
        for _ in range(3):
            solver.step()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            solver.step()
            most = tracemalloc.get_traced_memory()[1] - before
            assert most < smallest, f"{most} bytes where a blob has {smallest}"
    finally:
        tracemalloc.stop()
