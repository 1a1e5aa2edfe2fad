"""A steady iteration reuses its memory: nothing of the size of a blob is allocated."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from minissl import Solver
from minissl.conv_modes import frozen
from minissl.conv_modes.narrow import NarrowConvolution
from tests.conftest import needs_compiler, needs_vectors
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


def most_of_an_iteration(solver):
    """Return the most bytes that a steady iteration holds beside what it had, of three."""
    for _ in range(4):
        solver.step()
    most = []
    tracemalloc.start()
    try:
        for _ in range(3):
            solver.step()
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            solver.step()
            most.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return max(most)


def smallest_blob(solver):
    """Return the bytes of the smallest blob that has channels."""
    return 4 * solver.net.blobs["mean"].size


@needs_compiler
@pytest.mark.parametrize("fields", ["", 'type: "Adam" base_lr: 0.001'])
def test_a_steady_iteration_allocates_no_blobs(fields):
    solver = Solver(
        solver_param(f"momentum: 0.9 weight_decay: 0.001 {fields}", NET), backend="numba"
    )
    assert most_of_an_iteration(solver) < smallest_blob(solver)


@needs_compiler
@needs_vectors
def test_nor_does_one_that_trains_living_channels_only(monkeypatch):
    monkeypatch.setattr(frozen, "WORTH", np.inf)
    net = NET.replace('top: "b"', 'top: "b" connectivity_mode: DISCONNECTED_GRPWISE')
    solver = Solver(solver_param("momentum: 0.9", net), backend="numba")
    w = solver.net.layer("b").parameters[0].data.copy()  # (8, 8, 3, 3)
    w[:3], w[:, 4:] = 0, 0
    solver.net.load({"b": [w, np.ones(8, w.dtype)]})
    assert most_of_an_iteration(solver) < smallest_blob(solver)
    assert isinstance(solver.net.layer("b").unfrozen(), NarrowConvolution)
