"""Run folders made by hand, for the tests of pictures and pages."""

from __future__ import annotations

import json

import numpy as np

from minissl.formats.weights import write_weights


def sparsity(percent):
    names = ("element", "row", "column", "filter", "channel", "kernel2d")
    return {**dict.fromkeys(names, percent), "blocks": {}}


def display(iteration, loss=1.0, percent=0.0):
    return {
        "iteration": iteration,
        "loss": loss,
        "regularization": 0.5,
        "lr": 0.01,
        "sparsity": {"conv1": sparsity(percent), "conv2": sparsity(percent / 2)},
    }


def a_test(iteration, accuracy):
    return {"iteration": iteration, "test": {"accuracy": accuracy, "loss": 1 - accuracy}}


LINES = [
    a_test(0, 0.1),
    display(0, 2.3),
    display(5, 1.2, 40.0),
    a_test(10, 0.9),
]


def make_run(folder, lines=LINES, weights=True):
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "solver.prototxt").write_text("base_lr: 0.01 # <b>&\n")
    (folder / "net.prototxt").write_text('name: "Digits"\n')
    if weights:
        rng = np.random.default_rng(0)
        conv1 = rng.normal(size=(4, 1, 3, 3)).astype(np.float32)
        conv1[2] = 0
        ip1 = rng.normal(size=(5, 36)).astype(np.float32)
        ip1[:, 6:12] = 0
        ip1[0, 0] = 0
        blobs = {
            "conv1": [conv1, np.zeros(4, np.float32)],
            "ip1": [ip1, np.zeros(5, np.float32)],
        }
        write_weights(folder / "weights.caffemodel", blobs, "Digits")
    return folder
