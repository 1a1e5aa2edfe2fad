"""An experiment of speed-ups on LeNet's convolutions, and a result without measuring."""

from __future__ import annotations

import numpy as np

from minissl.formats.matrix_market import write_matrix
from minissl.recipes.paper_speeds import TABLE_4
from minissl.recipes.speed_timing import compare, means

TEXT = """
measure = "speed"
title = "LeNet, faster"
net = "LeNet"
layers = ["conv1", "conv2"]
about = "What for."
"""
SSL = """
[[rows]]
key = "ssl"
name = "packed"
mode = "LOWERED_CCNMM"
matrices = "lenet/a"
about = "Its zeros stand in rows and columns."
"""
RANDOM = """
[[rows]]
key = "random"
name = "single zeros"
mode = "LOWERED_CSRMM"
sparsity = [40, 90.0]
"""


def write_set(folder):
    """Write matrices of which row 0 and columns 0 to 4 are zero."""
    folder.mkdir(parents=True)
    for name, shape in (("conv1", (20, 25)), ("conv2", (50, 500))):
        w = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        w[0] = w[:, :5] = 0
        write_matrix(folder / f"coo_{name}.weight", w)


def times(lowering, product, total, blas=None):
    parts = {"lowering": lowering, "product": product, "total": total}
    found = {f"{part}_ms": ms for part, ms in parts.items()}
    spread = {part: [0.9 * ms, 1.1 * ms] for part, ms in parts.items() if ms is not None}
    return {**found, "quartiles_ms": spread, "blas_product_ms": blas}


def layer(name, dense, sparse):
    return {"name": name, "dense": dense, "sparse": sparse, **compare(dense, sparse)}


def run(batch_size, threads, *layers):
    return {
        "batch_size": batch_size,
        "threads": threads,
        "layers": list(layers),
        **means(layers),
        "peak_gflops": 90.0,
    }


def table4():
    """Return a result of two layers and two numbers of threads, with made-up times."""
    dense = times(1.0, 4.0, 5.5)
    runs = [
        run(
            1,
            threads,
            layer("conv1", dense, times(1.0, 4.0 / threads, 5.5)),
            layer("conv2", dense, times(0.5, 0.5 * threads, 1.1)),
        )
        for threads in (1, 2)
    ]
    rows = [
        {
            "key": key,
            "name": f"ours, {key}",
            "about": about,
            "mode": mode,
            "matrices": f"alexnet/{key}",
            "sparsity": None,
            "sha256": {},
            "as_published": published,
            "error": None,
            "layers": [
                {"name": "conv1", "element": 60.0, "row": 9.0, "column": 0.0, "ideal": 1.1},
                {"name": "conv2", "element": 90.0, "row": 12.0, "column": 63.0, "ideal": 3.0},
            ],
            "runs": runs,
            "paper": paper,
        }
        for key, mode, paper, about, published in (
            ("l1", "LOWERED_CSRMM", TABLE_4[0], "Special.", True),
            ("ssl", "LOWERED_CCNMM", TABLE_4[1], "", False),
        )
    ]
    return {
        "experiment": "table4",
        "measure": "speed",
        "title": "AlexNet, faster",
        "about": "",
        "fast": False,
        "net": "AlexNet",
        "layers": ["conv1", "conv2"],
        "batch_sizes": [1],
        "threads": [1, 2],
        "seed": 1,
        "left_out": ["8 threads: this machine has 2"],
        "rows": rows,
        "blas_overrides": [],
        "seconds": 3.0,
        "command": "minissl reproduce table4",
        "date": "2026-01-01",
        "backend": "numba",
        "machine": "2 cores",
        "versions": {"numpy": "2"},
    }
