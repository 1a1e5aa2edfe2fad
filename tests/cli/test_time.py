from __future__ import annotations

import numpy as np
import pytest

from minissl.formats.matrix_market import write_matrix
from tests.conftest import needs_compiler
from tests.tiny_nets import net_text

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
    assert set(result["totals"]) == {*modes, "WINOGRAD", "fastest", "auto"}
    assert result["totals"]["fastest"] <= min(result["totals"][mode] for mode in modes)
    assert result["total_ms"] == result["totals"]["LOWERED_GEMM"]
    ip1 = [layer for layer in result["layers"] if layer["name"] == "ip1"]
    assert [layer["conv_mode"] for layer in ip1] == modes[:3]
    assert all(layer["type"] == "InnerProduct" and layer["total_ms"] > 0 for layer in ip1)
    # a third of the weights is zero: the sparse modes execute less in their time
    gemm, csrmm, *_ = conv1
    assert gemm["real_gflops"] == gemm["effective_gflops"]
    assert csrmm["real_gflops"] == pytest.approx(csrmm["effective_gflops"] * 2 / 3)
    # predictions stand beside the measurements, and the picks are judged by them
    assert all(layer["predicted_ms"] > 0 for layer in conv1)
    picks = {pick["name"]: pick for pick in result["auto"]}
    assert {"conv1", "ip1"} <= set(picks)
    for name, pick in picks.items():
        own = {one["conv_mode"]: one for one in result["layers"] if one["name"] == name}
        assert pick["mode"] == min(own, key=lambda mode: own[mode]["predicted_ms"])
        assert pick["fastest"] == min(own, key=lambda mode: own[mode]["total_ms"])
        ratio = own[pick["mode"]]["total_ms"] / own[pick["fastest"]]["total_ms"]
        assert pick["excess"] == pytest.approx(ratio - 1)
        assert pick["is_good"] == (pick["excess"] <= 0.05)
    table = run(*arguments).stdout
    assert "x product" in table and "LOWERED_CCNMM" in table and "not timed" in table
    assert "predicted" in table and "auto picks a mode within 5 %" in table


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
    (conv1,) = [layer for layer in result["layers"] if layer["name"] == "conv1"]
    picks = {pick["name"]: pick["mode"] for pick in result["auto"]}
    assert conv1["conv_mode"] == picks["conv1"] and conv1["predicted_ms"] > 0
    assert result["totals"] == {} and result["total_ms"] > 0
    assert isinstance(result["calibrated"], bool)
    assert "performance model picked" in run(*arguments).stdout


def test_a_net_that_asks_for_auto_is_timed_so(run, run_json, net_file):
    text = net_file.read_text().replace("num_output: 3", "num_output: 3 conv_mode: AUTO")
    net_file.write_text(text)
    result = run_json("time", "--model", net_file, *FEW)
    (conv1,) = [layer for layer in result["layers"] if layer["name"] == "conv1"]
    assert [pick["name"] for pick in result["auto"]] == ["conv1"]
    assert conv1["conv_mode"] == result["auto"][0]["mode"] != "AUTO"
    rows = run("summary", net_file).stdout
    assert "conv_mode" in rows and "AUTO" in rows


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
    assert "a training iteration: forward " in run(*arguments).stdout
    run(*arguments, "--conv-mode", "all", code=2)


def test_lists_of_batch_sizes_and_threads(run, run_json, net_file, weights_file):
    arguments = ["time", "--model", net_file, "--weights", weights_file, "--iterations", 2]
    one = run_json(*arguments, "--batch-size", 3, "--threads", 1)
    several = run_json(*arguments, "--batch-size", "3,5", "--threads", "1")
    assert set(several) == {"runs"} and [run["batch_size"] for run in several["runs"]] == [3, 5]
    assert all(set(run) == set(one) for run in several["runs"])
    assert [run["weights"] for run in several["runs"]] == [str(weights_file)] * 2
    first = {layer["name"]: layer for layer in several["runs"][0]["layers"]}
    # the same zeros are timed with every batch size
    csrmm = ["--conv-mode", "LOWERED_CSRMM", "--batch-size", "3,5"]
    for sparse in run_json(*arguments, *csrmm)["runs"]:
        conv1 = next(layer for layer in sparse["layers"] if layer["name"] == "conv1")
        assert conv1["real_gflops"] == pytest.approx(conv1["effective_gflops"] * 2 / 3)
    assert first["conv1"]["share_percent"] > 0
    told = run(*arguments, "--batch-size", "3,5").stdout
    assert "batch of 3" in told and "batch of 5" in told and "ms for an image" in told
    for wrong in ("0", "1,1", "2,x", ""):
        run(*arguments, "--batch-size", wrong, code=2)
    run(*arguments, "--threads", "1,1000", code=1)
    run(*arguments, "--threads", "1,2", "--backend", "numpy", code=2)


def test_what_is_told_of_a_layer(run_json, net_file):
    result = run_json("time", "--model", net_file, *FEW)
    assert result["peak_gflops"] > 0
    timed = [one for one in result["layers"] if one["timed"] and not one["fused_into"]]
    assert sum(layer["share_percent"] for layer in timed) == pytest.approx(100)
    for layer in timed:
        low, high = layer["quartiles_ms"]["total"]
        assert low <= layer["total_ms"] <= high
        expected = layer["real_gflops"] and 100 * layer["real_gflops"] / result["peak_gflops"]
        assert layer["percent_of_peak"] == pytest.approx(expected)
    conv1 = next(layer for layer in timed if layer["name"] == "conv1")
    stages = conv1["lowering_ms"] + conv1["product_ms"]
    assert conv1["rest_ms"] == pytest.approx(max(0, conv1["total_ms"] - stages))
    assert "groups" not in conv1


@needs_compiler
def test_conv_groups_stand_below_their_layer(run, run_json, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(net_text())
    arguments = ["time", "--model", path, *FEW, "--conv-mode", "all"]
    layers = run_json(*arguments)["layers"]
    conv1 = [layer for layer in layers if layer["name"] == "conv1"]
    assert all(len(layer["groups"]) == 2 and layer["groups_sum"] for layer in conv1)
    lines = [line.strip() for line in run(*arguments).stdout.splitlines()]
    at = next(i for i, line in enumerate(lines) if line.startswith("conv1 "))
    assert [line.split("  ")[0] for line in lines[at + 1 : at + 4]] == [
        "conv1_1",
        "conv1_2",
        "sum of groups",
    ]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture(run, run_json, net_file, tmp_path, kind):
    path = tmp_path / f"times.{kind}"
    told = run("time", "--model", net_file, *FEW, "--conv-mode", "all", "--plot", path).stdout
    assert f"picture: {path}" in told and path.stat().st_size > 1000
    run_json("time", "--model", net_file, *FEW, "--batch-size", "2,3", "--plot", path)
    run("time", "--model", net_file, "--plot", tmp_path / "times.gif", code=2)
    nowhere = tmp_path / "absent" / f"times.{kind}"
    told = run("time", "--model", net_file, "--plot", nowhere, code=2)
    assert f"the folder {nowhere.parent} does not exist" in told.stderr and not told.stdout


def test_matrices_without_a_model(run, run_json, weights, tmp_path):
    folder = tmp_path / "lenet"
    folder.mkdir()
    w = np.random.default_rng(0).normal(size=(20, 25)).astype(np.float32)
    w[:5] = 0
    write_matrix(folder / "coo_conv1.weight", w)
    result = run_json("time", "--matrices", folder, *FEW, "--conv-mode", "LOWERED_CCNMM")
    (conv1,) = result["layers"]
    assert conv1["name"] == "conv1" and result["batch_size"] == 1
    assert conv1["real_gflops"] == pytest.approx(conv1["effective_gflops"] * 0.75)
    assert result["weights"] == f"{folder} (conv1)"
    write_matrix(folder / "conv2.mtx", w[:, :7])
    told = run("time", "--matrices", folder, *FEW, "--batch-size", 2)
    assert "a 20 x 7 matrix named 'conv2' belongs to no known layer" in told.stderr
    (folder / "coo_conv1.weight").unlink()
    assert "give its net with --model" in run("time", "--matrices", folder, code=1).stderr
    assert "cannot be read" in run("time", "--matrices", tmp_path / "none", code=1).stderr
    assert "--model" in run("time", code=2).stderr


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
