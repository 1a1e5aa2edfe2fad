"""compact, convert, data, lint, doctor: what they write and find."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minissl import doctor
from minissl.doctor import Check
from minissl.formats.caffemodel import read_caffemodel
from minissl.formats.matrix_market import read_matrix
from minissl.formats.prototxt import read_net
from minissl.formats.weights import read_weights, write_weights
from minissl.memory import readable

# --- compact ---


def test_compact(run, run_json, net_file, weights_file, tmp_path):
    out = tmp_path / "small"
    arguments = ["compact", "--model", net_file, "--weights", weights_file, "--out", out]
    result = run_json(*arguments)
    assert result["bytes_after"] < result["bytes_before"]
    assert result["max_abs_difference"] < 1e-4 < result["largest_output"]
    conv1 = result["layers"][0]
    assert conv1["name"] == "conv1" and conv1["shape_before"] == [3, 1, 5, 5]
    assert conv1["shape_after"][0] == 2
    small = ["--model", out / "net.prototxt", "--weights", out / "net.caffemodel"]
    before = run_json("test", "--model", net_file, "--weights", weights_file, "--batch-size", 100)
    after = run_json("test", *small, "--batch-size", 100)
    assert after["outputs"]["loss"] == pytest.approx(before["outputs"]["loss"], rel=1e-5)
    assert run_json("time", *small, "--iterations", 1)["total_ms"] > 0
    assert run_json("flops", small[1], small[3])["layers"]
    table = run(*arguments).stdout
    assert "largest output difference" in table and "net.caffemodel" in table


def test_compact_dry_run_writes_nothing(run, run_json, net_file, weights_file, tmp_path):
    arguments = ["compact", "--model", net_file, "--weights", weights_file, "--dry-run"]
    result = run_json(*arguments, "--out", tmp_path / "small")
    assert not (tmp_path / "small").exists() and "max_abs_difference" not in result
    (group, last) = result["groups"]
    assert (group["layers"], group["readers"]) == (["conv1"], ["ip1"])
    assert (group["channels"], group["removed"]) == (3, 1)
    assert last["readers"] == [] and result["removed_layers"] == []
    shown = run(*arguments).stdout
    assert "filters of" in shown and "read by" in shown
    assert "--dry-run" in run(*arguments[:-1], code=2).stderr


def test_compact_replaces_none_of_its_inputs(run, net_file, weights_file, tmp_path):
    out = tmp_path / "own"
    out.mkdir()
    model = shutil.copy(net_file, out / "net.prototxt")
    weights = shutil.copy(weights_file, out / "net.caffemodel")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for own in ((model, weights_file), (net_file, weights)):
        arguments = ["compact", "--model", own[0], "--weights", own[1], "--out", out]
        told = run(*arguments, code=1).stderr
        assert "is what the network is made of" in told and "choose another folder" in told
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        run(*arguments, "--dry-run")
    told = run("compact", "--model", model, "--weights", weights, "--out", tmp_path / "small")
    assert f"the weight file was {readable(len(before['net.caffemodel']))}" in told.stdout


def test_compact_leaves_a_run_to_go_on(run, solver_file, net_file, weights_file, tmp_path):
    folder = tmp_path / "run"
    run("train", "--solver", solver_file, "--run", folder)
    before = (folder / "net.prototxt").read_bytes()
    arguments = ["compact", "--model", net_file, "--weights", weights_file, "--out"]
    told = run(*arguments, folder, code=1).stderr
    assert f"{folder} holds a training run" in told and "choose another folder" in told
    assert (folder / "net.prototxt").read_bytes() == before
    run(*arguments, folder / "small")
    run(*arguments, folder / "small")  # its own files it may replace


def test_compact_into_a_place_that_is_no_folder(run, net_file, weights_file):
    arguments = ["--model", net_file, "--weights", weights_file, "--out", weights_file / "x"]
    result = run("compact", *arguments, code=1)
    assert str(weights_file) in result.stderr and result.stderr.count("\n") == 1


# --- convert ---


@pytest.mark.parametrize(
    "suffix", [".caffemodel", ".caffemodel.gz", ".caffemodel.h5", ".safetensors", ".npz"]
)
def test_convert_there_and_back(run, weights_file, weights, tmp_path, suffix):
    if suffix.endswith(".h5"):
        pytest.importorskip("h5py", reason="h5py is not installed; pip install 'minissl[hdf5]'")
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.caffemodel"
    assert str(there) in run("convert", weights_file, there).stdout
    run("convert", there, back)
    found = read_caffemodel(back)
    assert found.keys() == weights.keys()
    for name, blobs in weights.items():
        assert all(np.array_equal(a, b) for a, b in zip(found[name], blobs, strict=True))


def test_a_described_net_stays_in_a_caffemodel(run, net_file, weights_file, tmp_path):
    first, again = tmp_path / "first.caffemodel", tmp_path / "again.caffemodel.gz"
    run("convert", weights_file, first, "--model", net_file)
    run("convert", first, again)
    for described in (first, again):
        run("convert", described, tmp_path / "net.prototxt")
        net = read_net(tmp_path / "net.prototxt")
        assert [layer.type for layer in net.layer][:2] == ["Data", "Convolution"]


def test_weights_alone_are_no_net(run, weights_file, tmp_path):
    run("convert", weights_file, tmp_path / "w.npz")
    run("convert", tmp_path / "w.npz", tmp_path / "bare.caffemodel")
    error = run("convert", tmp_path / "bare.caffemodel", tmp_path / "net.prototxt", code=1).stderr
    assert "holds weights and no net" in error and not (tmp_path / "net.prototxt").exists()


def test_a_packaged_net_is_found(run, tmp_path):
    run("convert", "lenet.prototxt", tmp_path / "net.prototxt")
    assert read_net(tmp_path / "net.prototxt").layer[0].type == "Data"


@pytest.mark.parametrize("name", ["net.prototxt", "net.caffemodel", "net.npz"])
def test_an_onnx_model_does_not_become_a_file(run, tmp_path, name):
    error = run("convert", tmp_path / "model.onnx", tmp_path / name, code=2).stderr
    assert "becomes a folder" in " ".join(error.split())


def test_convert_to_onnx_and_back(run, net_file, weights_file, weights, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")
    there, back = tmp_path / "net.onnx", tmp_path / "back"
    assert str(there) in run("convert", net_file, weights_file, there).stdout
    assert "net.caffemodel" in run("convert", there, back, "--batch-size", 3).stdout
    assert "dim: 3" in (back / "net.prototxt").read_text()
    found = read_caffemodel(back / "net.caffemodel")
    assert [blob.shape for blobs in found.values() for blob in blobs] == [
        blob.shape for blobs in weights.values() for blob in blobs
    ]
    result = run("convert", there, tmp_path / "x.npz", tmp_path / "y.npz", code=2)
    assert "NET, WEIGHTS and OUT.onnx" in result.stderr
    run("convert", weights_file, tmp_path / "net.onnx", code=2)


@pytest.mark.parametrize(
    ("source", "target", "options", "said"),
    [
        ("w.caffemodel", "x.npz", ["--sparse"], "--sparse is for an ONNX model as OUT; leave"),
        ("w.caffemodel", "x.npz", ["--batch-size", "1"], "--batch-size is for an ONNX model as IN"),
        ("w.caffemodel", "x.npz", ["--names", "n.json"], "--names is for files of PyTorch"),
        ("w.caffemodel", "x.npz", ["--skimcaffe"], "--skimcaffe is for a net (.prototxt) as OUT"),
        ("w.onnx", "folder", ["--model", "n.prototxt"], "(.pt, .pth) or weights; leave it out"),
        ("a.prototxt", "b.prototxt", ["--data", "mnist"], "--data is for an ONNX model as OUT or"),
    ],
)
def test_options_of_other_conversions_are_refused(run, tmp_path, source, target, options, said):
    """So that nobody believes that they have done something."""
    result = run("convert", tmp_path / source, tmp_path / target, *options, code=2)
    assert said in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_convert_an_old_net(run, tmp_path):
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text('layers { name: "r" type: RELU bottom: "x" top: "y" }')
    assert "V1 layers" in run("convert", old, new).stderr
    assert 'type: "ReLU"' in new.read_text()
    assert run("convert", old, new, "--data", "mnist", code=2)


def test_convert_a_caffemodel_to_its_net(run, net_file, weights_file, tmp_path):
    run("convert", weights_file, tmp_path / "w.caffemodel", "--model", net_file)
    run("convert", tmp_path / "w.caffemodel", tmp_path / "net.prototxt")
    found = read_net(tmp_path / "net.prototxt")
    assert [layer.name for layer in found.layer] == [
        layer.name for layer in read_net(net_file).layer
    ]
    assert not found.layer[1].blobs and found.layer[1].convolution_param.num_output == 3


def test_convert_to_matrices(run, weights_file, weights, tmp_path):
    run("convert", weights_file, tmp_path / "matrices")
    names = {path.name for path in (tmp_path / "matrices").iterdir()}
    assert names == {"conv1.mtx", "ip1.mtx"}
    matrix = read_matrix(tmp_path / "matrices/conv1.mtx")
    assert np.array_equal(matrix, weights["conv1"][0].reshape(3, 25))


def test_convert_to_matrices_loses_no_layer(run, weights, tmp_path):
    named = {"a/b": weights["conv1"], "a_b": weights["ip1"]}
    write_weights(tmp_path / "x.npz", named)
    out = tmp_path / "matrices"
    told = run("convert", tmp_path / "x.npz", out, code=1).stderr
    assert f"{out / 'a_b.mtx'} would hold layer 'a/b' and layer 'a_b'" in told
    assert not out.exists()
    write_weights(tmp_path / "x.npz", {"a/b": weights["conv1"], "a\\b_": weights["ip1"]})
    run("convert", tmp_path / "x.npz", out)
    assert {path.name for path in out.iterdir()} == {"a_b.mtx", "a_b_.mtx"}


def test_convert_hdf5_that_lacks_a_shared_blob(run, net_file, weights, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; pip install 'minissl[hdf5]'")
    net_file.write_text(
        net_file.read_text()
        + """layer { name: "again" type: "InnerProduct" bottom: "conv1" top: "again"
          param { name: "w" } inner_product_param { num_output: 10 } }
        layer { name: "more" type: "InnerProduct" bottom: "conv1" top: "more"
          param { name: "w" } inner_product_param { num_output: 10 } }"""
    )
    with h5py.File(tmp_path / "x.caffemodel.h5", "w") as file:
        for index, blob in enumerate(weights["ip1"]):
            file[f"data/again/{index}"] = blob
        file["data/more/1"] = weights["ip1"][1] + 1
    out = tmp_path / "y.caffemodel"
    run("convert", tmp_path / "x.caffemodel.h5", out, "--model", net_file)
    found = read_caffemodel(out)
    assert np.array_equal(found["more"][0], weights["ip1"][0])
    assert np.array_equal(found["more"][1], weights["ip1"][1] + 1)
    result = run("convert", tmp_path / "x.caffemodel.h5", tmp_path / "z.caffemodel", code=1)
    assert "layer 'more' shares a blob" in result.stderr and "--model" in result.stderr


def test_convert_from_matrices(run, net_file, weights_file, weights, tmp_path):
    run("convert", weights_file, tmp_path / "matrices")
    out = tmp_path / "x.caffemodel"
    result = run("convert", tmp_path / "matrices", out, "--model", net_file)
    assert "biases of conv1, ip1" in result.stdout
    found = read_caffemodel(out)
    assert np.array_equal(found["conv1"][0], weights["conv1"][0])
    assert np.array_equal(found["ip1"][0], weights["ip1"][0])
    assert not found["conv1"][1].any() and b"Digits" in out.read_bytes()
    result = run("convert", tmp_path / "matrices", out, code=2)
    assert "--model" in result.stderr
    (tmp_path / "matrices/ip1.mtx").write_text(
        "%%MatrixMarket matrix coordinate real general\n10 75 1\n1 1 nan\n"
    )
    result = run("convert", tmp_path / "matrices", out, "--model", net_file, code=1)
    assert "NaN or infinity" in result.stderr


def test_convert_with_a_net_checks_and_names(run, net_file, weights_file, tmp_path):
    out = tmp_path / "x.caffemodel"
    run("convert", weights_file, out, "--model", net_file)
    assert b"Digits" in out.read_bytes() and b"Convolution" in out.read_bytes()
    net_file.write_text(net_file.read_text().replace("num_output: 10", "num_output: 9"))
    result = run("convert", weights_file, tmp_path / "y.npz", "--model", net_file, code=1)
    assert "has shape (10, 75) where the net has (9, 75)" in result.stderr
    assert not (tmp_path / "y.npz").exists()


def test_convert_onto_its_own_input(run, weights_file):
    """A snapshot would lose the solver's state."""
    before = weights_file.read_bytes()
    told = run("convert", weights_file, weights_file, code=2).stderr
    assert "would be replaced by less than it holds" in told
    assert weights_file.read_bytes() == before


def test_convert_leaves_out_what_a_net_has_and_the_weights_lack(run, net_file, weights, tmp_path):
    source, target = tmp_path / "some.npz", tmp_path / "some.caffemodel"
    write_weights(source, {"conv1": weights["conv1"]})
    told = run("convert", source, target, "--model", net_file).stderr
    assert f"in {source}: left out" in told
    assert list(read_weights(target)) == ["conv1"]


def test_convert_to_an_unknown_format(run, weights_file, tmp_path):
    result = run("convert", weights_file, tmp_path / "x.h5", code=1)
    assert ".safetensors" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_while_saving(run, weights_file, tmp_path):
    (tmp_path / "x.npz").symlink_to("/dev/full")
    result = run("convert", weights_file, tmp_path / "x.npz", code=1)
    assert "No space left on device" in result.stderr
    assert read_weights(weights_file)


# --- data ---


def test_data_info(run, run_json):
    (small,) = run_json("data", "info", "mnist-small")["data"]
    assert small["train"] == 5000 and small["test"] == 1000 and small["there"]
    assert small["image_shape"] == [1, 28, 28] and len(small["classes"]) == 10
    assert len(run_json("data", "info")["data"]) > 1
    assert "cifar10" in run("data", "info").stdout


def test_one_damaged_data_set_does_not_hide_the_others(run, run_json, tmp_path, monkeypatch):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    from minissl.data.catalogue import find

    for archive in find("mnist").archives:
        for file in archive.files:
            (tmp_path / file.path).parent.mkdir(exist_ok=True)
            (tmp_path / file.path).write_bytes(b"cut")
    told = run("data", "info")
    assert "warning: mnist: " in told.stderr and "mnist-small" in told.stdout
    (mnist,) = run_json("data", "info", "mnist")["data"]
    assert mnist["train"] is None and mnist["damage"]


def test_data_verify(run, run_json, tmp_path, monkeypatch):
    assert run_json("data", "verify", "mnist-small")["ok"]
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    result = run_json("data", "verify", "mnist", code=1)
    assert not result["ok"] and set(result["files"].values()) == {"missing"}
    assert "minissl data fetch mnist" in run("data", "verify", "mnist", code=1).stdout


def test_data_fetch(run, monkeypatch):
    assert "nothing to fetch" in run("data", "fetch", "mnist-small").stdout
    from minissl.data import fetch as fetching

    def pretend(name, tell, progress):
        tell(f"downloading {name}")
        progress.total = 10
        progress.update(10)
        progress.reset()
        progress.update(10)
        progress.close()
        return [Path("there")] if name == "mnist" else []

    monkeypatch.setattr(fetching, "fetch", pretend)
    result = run("data", "fetch", "mnist")
    assert result.stdout == "there\n" and result.stderr == "downloading mnist\n"
    assert "is there already" in run("data", "fetch", "cifar10").stdout


# --- lint ---


def test_lint_of_good_files(run, run_json, net_file, solver_file):
    for file in (net_file, solver_file, "lenet_solver.prototxt", "lenet.prototxt"):
        assert run_json("lint", file) == {"ok": True, "findings": []}
    assert run("lint", net_file).stdout.endswith("fine\n")


def test_lint_warns_of_a_forgotten_decay(run, run_json, solver_file):
    solver_file.write_text(solver_file.read_text().replace("block_group_decay: 0.001", ""))
    result = run_json("lint", solver_file)
    (finding,) = result["findings"]
    assert result["ok"] and finding["severity"] == "warning"
    assert set(finding) == {"severity", "where", "message", "advice"}
    assert "0 errors, 1 warnings" in run("lint", solver_file).stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("xdimen: 25", "xdimen: 7", "does not divide the matrix of 3 rows and 25 columns"),
        ("kernel_size: 5", "kernel_size: 55", "larger than the padded input"),
        ("stride: 5", "stride: 5 conv_mode: LOWERED_CSRMM", "forward only"),
    ],
)
def test_lint_finds_errors(run, run_json, net_file, old, new, said):
    net_file.write_text(net_file.read_text().replace(old, new))
    result = run_json("lint", net_file, code=1)
    assert not result["ok"] and said in json.dumps(result["findings"])
    assert said in run("lint", net_file, code=1).stdout


def test_lint_of_a_net_that_names_a_database(run_json, net_file):
    net_file.write_text(net_file.read_text().replace("mnist-small", "some_lmdb"))
    (finding,) = run_json("lint", net_file)["findings"]
    assert "shapes are not checked" in finding["message"] and "--data" in finding["advice"]
    assert run_json("lint", net_file, "--data", "mnist")["findings"] == []


def test_lint_checks_shapes_by_a_database(run, run_json, net_file, tmp_path):
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    run("data", "lmdb", "mnist-small", tmp_path / "some_lmdb", "--split", "test")
    text = net_file.read_text().replace("mnist-small", str(tmp_path / "some_lmdb"))
    net_file.write_text(text)
    assert run_json("lint", net_file)["findings"] == []
    net_file.write_text(text.replace("kernel_size: 5", "kernel_size: 50"))
    (finding,) = run_json("lint", net_file, code=1)["findings"]
    assert "It cannot be built" in finding["message"]


def test_lint_knows_whether_weights_are_given(run_json, net_file, solver_file):
    text = net_file.read_text().replace(
        'name: "ip1"', 'name: "ip1" connectivity_mode: DISCONNECTED_GRPWISE'
    )
    net_file.write_text(text)
    assert run_json("lint", solver_file, "--weights")["findings"] == []
    (finding,) = run_json("lint", solver_file, "--no-weights")["findings"]
    assert "starts from none" in finding["message"]


def test_lint_of_text_that_is_no_prototxt(run, net_file):
    net_file.write_text("layer { name: ")
    assert "digits.prototxt:1" in run("lint", net_file, code=1).stderr
    net_file.write_text("base_rl: 1")
    assert "base_lr" in run("lint", net_file, code=1).stderr


# --- doctor ---


def test_doctor(run, run_json):
    result = run_json("doctor")
    assert result["ok"] is True
    assert all(set(check) >= {"name", "ok", "detail"} for check in result["checks"])
    assert "Everything that is needed is there." in run("doctor").stdout


def test_doctor_calibrates(run, run_json, monkeypatch, tmp_path):
    from minissl import machine
    from minissl.conv_modes import ConvShape, calibration

    sample = calibration.Sample(ConvShape(2, (8, 8), 4, (3, 3)), (0, 0, 0.5), 1, False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "samples", lambda: iter([sample]))
    machine.current.cache_clear()
    try:
        before = {one["name"]: one for one in run_json("doctor")["checks"]}
        assert not before["calibration"]["ok"] and not before["calibration"]["needed"]
        assert "--calibrate" in before["calibration"]["detail"]
        result = run("doctor", "--calibrate", "--threads", 1)
        assert "kept in" in result.stderr and "calibration 1t" in result.stdout
        assert "GEMM" in result.stdout and "LOWERED_CSRMM" in result.stdout
        assert machine.current().calibrated
        # a cache that cannot be written is told in one sentence
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert "cannot be written" in run("doctor", "--calibrate", code=1).stderr
    finally:
        machine.current.cache_clear()


def test_doctor_fails_when_something_needed_is_broken(run, run_json, monkeypatch):
    checks = [Check("numba", False, "missing"), Check("data", False, "none", needed=False)]
    monkeypatch.setattr(doctor, "examine", lambda: checks)
    assert run_json("doctor", code=1)["ok"] is False
    table = run("doctor", code=1).stdout
    assert "BROKEN" in table and "advice" in table


def test_data_as_caffes_tools_write_it(run, run_json, tmp_path):
    pytest.importorskip("lmdb", reason="lmdb is not installed")
    from minissl.data.databases import DatumDataset
    from minissl.data.datasets import load
    from minissl.data.mean import read_mean

    database = tmp_path / "mnist_test_lmdb"
    stdout = run("data", "lmdb", "mnist-small", database, "--split", "test", "--pad", "2").stdout
    assert stdout == f"{database}: 1,000 records\n"
    assert DatumDataset(database).image_shape == (1, 32, 32)
    mean = tmp_path / "mean.binaryproto"
    result = run_json("data", "mean", database, mean)
    images = load("mnist-small", "test").images
    assert result["shape"] == [1, 32, 32]
    assert result["channels"] == pytest.approx([images.mean() * 28**2 / 32**2], rel=1e-6)
    assert "mean_value channel [0]: " in run("data", "mean", "mnist-small", mean).stdout
    assert read_mean(mean).shape == (1, 28, 28)
    assert "is there already" in run("data", "lmdb", "mnist-small", database, code=1).stderr
    run("data", "lmdb", "mnist-small", tmp_path / "x", "--gray", code=2)
    assert (
        "is neither a data set (mnist"
        in run("data", "lmdb", "mnits", tmp_path / "x", code=1).stderr
    )
