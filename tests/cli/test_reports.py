"""summary, flops, sparsity: what they count, in tables and in JSON."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minissl.formats.weights import write_weights


def test_summary(run, run_json, net_file, weights_file):
    result = run_json("summary", net_file, "--weights", weights_file)
    layers = {layer["name"]: layer for layer in result["layers"]}
    assert layers["conv1"]["weights"] == [3, 1, 5, 5] and layers["conv1"]["parameters"] == 78
    assert layers["conv1"]["tops"] == {"conv1": [6, 3, 5, 5]}
    assert layers["conv1"]["flop"] == 2 * 75 * 25
    assert layers["conv1"]["nonzero"] == 50  # the biases are 0, and one filter of three
    assert result["total"]["parameters"] == 78 + 760
    assert result["phase"] == "TEST" and result["total"]["bytes_to_run"] > 0
    assert layers["relu1"]["fused_into"] == "conv1" and layers["conv1"]["fused_into"] is None
    assert "fused into" in run("summary", net_file).stdout
    assert "fused into" not in run("summary", net_file, "--no-fuse").stdout
    table = run("summary", net_file, "--phase", "TRAIN", "--batch-size", 9).stdout
    assert "3x1x5x5" in table and "9x3x5x5" in table and "phase TRAIN" in table
    assert "gradients, momentum and scratch memory included" in table
    sentence = run("summary", net_file).stdout.splitlines()[-1]
    assert sentence.endswith(", scratch memory included") and "gradients" not in sentence


def test_summary_of_memory(run, run_json, net_file):
    memory = run_json("summary", net_file, "--phase", "TRAIN", "--batch-size", 64)["memory"]
    parts = ("forward", "backward", "parameters", "history", "scratch")
    assert memory["total"] == sum(memory[part] for part in parts)
    assert 0 < memory["backward"] <= memory["backward_apart"]
    assert memory["history"] == 4 * (78 + 760) and memory["parameters"] == 2 * memory["history"]
    assert run_json("summary", net_file)["memory"]["backward"] == 0
    table = run("summary", net_file, "--phase", "TRAIN", "--memory").stdout
    assert "gradients of blobs" in table and "shared no memory" in table
    assert "gradients of blobs" not in run("summary", net_file).stdout


def test_flops_of_a_net_without_fillers_are_dense(run_json, net_file):
    with_fillers = run_json("flops", net_file)["total"]
    net_file.write_text(re.sub(r"weight_filler \{[^}]*\}", "", net_file.read_text()))
    found = run_json("flops", net_file)["total"]
    assert found == with_fillers and found["zeros"] == found["dense"] > 0


def test_flops(run, run_json, net_file, weights_file):
    result = run_json("flops", net_file, weights_file)
    conv1, ip1 = result["layers"]
    assert {"name", "dense", "zeros", "propagated", "executed"} <= set(conv1)
    assert conv1["dense"] == conv1["executed"] == 2 * 75 * 25
    assert conv1["zeros"] == conv1["propagated"] == 2 * 50 * 25
    assert ip1["dense"] == 2 * 750 and ip1["zeros"] == 2 * 740
    assert ip1["propagated"] == 2 * 490  # the channel of the dead filter has 25 of 75 columns
    assert result["total"]["dense"] == conv1["dense"] + ip1["dense"]
    assert "66.67%" in run("flops", net_file, weights_file).stdout
    dense = run_json("flops", net_file)
    assert dense["total"]["zeros"] == dense["total"]["dense"]


def test_sparsity_of_a_file_alone(run, run_json, weights_file):
    layers = run_json("sparsity", weights_file)["layers"]
    conv1, ip1 = layers
    assert set(conv1) >= {
        "name", "blob", "shape", "group", "element", "row", "column", "filter", "channel",
        "kernel2d", "blocks",
    }  # fmt: skip
    assert conv1["shape"] == [3, 1, 5, 5] and conv1["blob"] == 0 and conv1["group"] == 0
    assert conv1["row"] == conv1["filter"] == pytest.approx(100 / 3)
    assert conv1["column"] == 0 and conv1["blocks"] == {}
    assert ip1["column"] == pytest.approx(100 / 75)
    assert "33.3" in run("sparsity", weights_file).stdout


def test_sparsity_with_its_net_knows_blocks(run, run_json, net_file, weights_file):
    conv1, ip1 = run_json("sparsity", weights_file, "--model", net_file)["layers"]
    assert conv1["blocks"] == {"25x1": pytest.approx(100 / 3)} and ip1["blocks"] == {}
    assert "25x1: 33.3" in run("sparsity", weights_file, "--model", net_file).stdout


def test_sparsity_of_transposed_weights(run_json, net_file, tmp_path, weights):
    """Blocks are those of the weights as stored, (K, F), which is what group lasso divides."""
    text = net_file.read_text()
    block = "param { block_group_lasso { xdimen: 10 ydimen: 3 } }"
    changed = text.replace(
        "  inner_product_param {", f"  {block} inner_product_param {{ transpose: true"
    )
    assert changed.count("transpose") == 1
    net_file.write_text(changed)
    stored = np.ones((75, 10), np.float32)
    stored[:3] = 0  # one of 25 blocks, three of 75 inputs
    weights["ip1"][0] = stored
    write_weights(tmp_path / "w.npz", weights)
    ip1 = run_json("sparsity", tmp_path / "w.npz", "--model", net_file)["layers"][1]
    assert ip1["blocks"] == {"10x3": 4.0} and ip1["column"] == 4.0 and ip1["row"] == 0
    assert ip1["shape"] == [10, 75]


def test_sparsity_by_conv_group(run, run_json, net_file, tmp_path, weights):
    text = net_file.read_text().replace("num_output: 3", "num_output: 3 group: 3")
    text = text.replace('source: "mnist-small"', 'source: "cifar10"')
    net_file.write_text(text)
    weights["conv1"] = [np.ones((3, 1, 5, 5), np.float32), np.zeros(3, np.float32)]
    weights["conv1"][0][2] = 0
    weights["ip1"][0] = np.ones((10, 108), np.float32)
    write_weights(tmp_path / "w.npz", weights)
    layers = run_json("sparsity", tmp_path / "w.npz", "--model", net_file)["layers"]
    assert [(row["group"], row["row"]) for row in layers[:3]] == [(0, 0), (1, 0), (2, 100)]
    assert "group" in run("sparsity", tmp_path / "w.npz", "--model", net_file).stdout


def test_a_file_without_weight_matrices(run, tmp_path):
    write_weights(tmp_path / "b.npz", {"bn": [np.ones(3, np.float32)]})
    assert "no weight matrices" in run("sparsity", tmp_path / "b.npz", code=1).stderr


def test_data_without_model_is_refused(run, weights_file):
    run("sparsity", weights_file, "--data", "mnist", code=2)
