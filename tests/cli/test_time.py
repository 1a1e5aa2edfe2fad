from __future__ import annotations

import pytest

from minissl.formats.matrix_market import write_matrix

FIXED = {
    "name", "type", "conv_mode", "lowering_ms", "product_ms", "total_ms",
    "effective_gflops", "real_gflops",
}  # fmt: skip
FEW = ["--iterations", 2, "--threads", 1]


def test_json_has_the_fixed_fields(run_json, net_file):
    result = run_json("time", "--model", net_file, *FEW, "--batch-size", 4)
    assert result["threads"] == 1 and result["batch_size"] == 4 and result["backend"] == "numba"
    assert all(set(layer) >= FIXED for layer in result["layers"])
    timed = sum(layer["total_ms"] for layer in result["layers"])
    assert result["total_ms"] == pytest.approx(timed) and timed > 0
    assert result["weights"] == "random"


def test_all_modes(run, run_json, net_file, weights_file):
    arguments = ["time", "--model", net_file, "--weights", weights_file, *FEW, "--conv-mode", "all"]
    result = run_json(*arguments)
    conv1 = [layer for layer in result["layers"] if layer["name"] == "conv1"]
    modes = ["LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV"]
    assert [layer["conv_mode"] for layer in conv1] == modes
    assert set(result["totals"]) == {*modes, "fastest"}
    assert result["totals"]["fastest"] <= min(result["totals"][mode] for mode in modes)
    assert result["total_ms"] == result["totals"]["LOWERED_GEMM"]
    ip1 = [layer for layer in result["layers"] if layer["name"] == "ip1"]
    assert [layer["conv_mode"] for layer in ip1] == modes[:3]
    assert all(layer["type"] == "InnerProduct" and layer["total_ms"] > 0 for layer in ip1)
    # a third of the weights is zero: the sparse modes execute less in their time
    gemm, csrmm, *_ = conv1
    assert gemm["real_gflops"] == gemm["effective_gflops"]
    assert csrmm["real_gflops"] == pytest.approx(csrmm["effective_gflops"] * 2 / 3)
    table = run(*arguments).stdout
    assert "x product" in table and "LOWERED_CCNMM" in table and "not timed" in table


def test_fused_layers_are_part_of_one_time(run, run_json, net_file):
    arguments = ["time", "--model", net_file, *FEW]
    fused = {layer["name"]: layer for layer in run_json(*arguments)["layers"]}
    assert fused["conv1"]["fused"] == ["relu1", "drop1"]
    assert fused["relu1"]["fused_into"] == fused["drop1"]["fused_into"] == "conv1"
    assert fused["relu1"]["total_ms"] == 0 < fused["conv1"]["total_ms"]
    assert "ReLU (in conv1)" in run(*arguments).stdout

    plain = run_json(*arguments, "--no-fuse")
    assert plain["fuse"] is False and all(not layer["fused"] for layer in plain["layers"])
    (relu1,) = (layer for layer in plain["layers"] if layer["name"] == "relu1")
    assert relu1["total_ms"] > 0 and "(in conv1)" not in run(*arguments, "--no-fuse").stdout


def test_auto_keeps_the_fastest(run, run_json, net_file):
    arguments = ["time", "--model", net_file, *FEW, "--conv-mode", "auto"]
    result = run_json(*arguments)
    assert sum(layer["name"] == "conv1" for layer in result["layers"]) == 1
    assert result["total_ms"] == pytest.approx(result["totals"]["fastest"])
    assert "every mode was measured" in run(*arguments).stdout


def test_one_mode(run_json, net_file):
    result = run_json("time", "--model", net_file, *FEW, "--conv-mode", "LOWERED_CSRMM")
    (conv1,) = (layer for layer in result["layers"] if layer["name"] == "conv1")
    assert conv1["conv_mode"] == "LOWERED_CSRMM"


def test_the_mode_of_the_net_is_followed(run_json, net_file):
    text = net_file.read_text().replace("num_output: 3", "num_output: 3 conv_mode: LOWERED_CCNMM")
    net_file.write_text(text)
    result = run_json("time", "--model", net_file, *FEW)
    (conv1,) = (layer for layer in result["layers"] if layer["name"] == "conv1")
    assert conv1["conv_mode"] == "LOWERED_CCNMM"


def test_matrices(run, run_json, net_file, weights, tmp_path):
    write_matrix(tmp_path / "m.mtx", weights["conv1"][0])
    (tmp_path / "m").mkdir()
    (tmp_path / "m.mtx").rename(tmp_path / "m" / "conv1.mtx")
    result = run_json("time", "--model", net_file, *FEW, "--matrices", tmp_path / "m")
    assert "conv1; random elsewhere" in result["weights"]
    assert "no matrix" in run("time", "--model", net_file, "--matrices", tmp_path, code=1).stderr


def test_backward(run, run_json, net_file):
    arguments = ["time", "--model", net_file, "--iterations", 2, "--backend", "numpy", "--backward"]
    result = run_json(*arguments)
    assert result["phase"] == "TRAIN" and result["backend"] == "numpy"
    (ip1,) = (layer for layer in result["layers"] if layer["name"] == "ip1")
    assert ip1["backward_ms"] > 0 and ip1["lowering_ms"] is None
    assert "backward" in run(*arguments).stdout
    run(*arguments, "--conv-mode", "all", code=2)


def test_every_mode_is_offered():
    from minissl import conv_modes
    from minissl.cli.time import MODES
    from minissl.conv_modes.inner_product import PRODUCTS

    assert set(MODES) == set(conv_modes.MODES) >= set(PRODUCTS)


def test_weights_and_matrices_exclude_each_other(run, net_file, weights_file, tmp_path):
    arguments = ["--weights", weights_file, "--matrices", tmp_path]
    result = run("time", "--model", net_file, *arguments, code=2)
    assert "--weights" in result.stderr and "--matrices" in result.stderr


def test_random_weights_are_said(run, net_file):
    assert "random dense weights" in run("time", "--model", net_file, *FEW).stdout
