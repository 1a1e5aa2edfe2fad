"""What users get wrong: each answered by one sentence that helps, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minissl import Net, Solver
from minissl.data.idx import write_idx
from minissl.errors import (
    ConfigError,
    DataError,
    MinisslError,
    NonFiniteError,
    ShapeError,
    WeightsError,
)
from minissl.formats.prototxt import parse_net
from tests.tiny_nets import (
    DIGITS,
    PLAIN_SOLVER,
    arrays,
    make_net,
    make_solver,
    net_text,
    same_weights,
    solver_param,
    weights_of,
)

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = [".caffemodel", ".safetensors", ".npz"]


def sentence(error, *words):
    """Check that an error is one line that holds these words."""
    message = str(error.value)
    assert "\n" not in message and len(message) > 20
    for word in words:
        assert str(word) in message, message
    return message


# --- weights ---


@pytest.fixture(params=SUFFIXES)
def weight_file(request, tmp_path):
    path = tmp_path / f"net{request.param}"
    make_net(backend="numpy").save(path)
    return path


def check_untouched(net, before):
    for parameter, values in zip(net.parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.data, values)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_weights(weight_file, kept):
    content = weight_file.read_bytes()
    weight_file.write_bytes(content[: int(kept * len(content))])
    net = make_net(backend="numpy", seed=7)
    before = [parameter.data.copy() for parameter in net.parameters]
    with pytest.raises(WeightsError) as error:
        net.load(weight_file)
    sentence(error, weight_file)
    check_untouched(net, before)


def test_weights_of_another_shape(weight_file):
    net = Net(parse_net(net_text().replace("num_output: 6", "num_output: 7")), backend="numpy")
    with pytest.raises(WeightsError) as error:
        net.load(weight_file)
    sentence(error, weight_file, "ip1", "(6, 16)", "(7, 16)")


def test_nothing_is_loaded_when_one_layer_does_not_fit(weight_file):
    """ip2 comes last; what is before it must not have been taken."""
    net = Net(parse_net(net_text().replace("num_output: 3", "num_output: 5")), backend="numpy",
              seed=7)  # fmt: skip
    before = [parameter.data.copy() for parameter in net.parameters]
    with pytest.raises(WeightsError) as error:
        net.load(weight_file)
    sentence(error, "ip2")
    check_untouched(net, before)


def test_nan_in_weights(tmp_path):
    path = tmp_path / "nan.safetensors"
    net = make_net(backend="numpy")
    net.layer("ip2").parameters[0].data[1, 2] = np.nan
    net.save(path)
    other = make_net(backend="numpy", seed=7)
    before = [parameter.data.copy() for parameter in other.parameters]
    with pytest.raises(NonFiniteError) as error:
        other.load(path)
    sentence(error, path, "ip2", "NaN")
    check_untouched(other, before)


def test_missing_weights(tmp_path):
    with pytest.raises(WeightsError) as error:
        make_solver(backend="numpy", weights=tmp_path / "none.caffemodel")
    sentence(error, tmp_path / "none.caffemodel")


def test_weights_of_an_unknown_format(tmp_path):
    with pytest.raises(WeightsError) as error:
        make_net(backend="numpy").load(tmp_path / "net.pth")
    sentence(error, "net.pth", ".caffemodel")


# --- nets and solvers ---


def test_unknown_layer_type():
    with pytest.raises(ConfigError) as error:
        make_net(net_text().replace('"InnerProduct"', '"InnerProdcut"'), backend="numpy")
    sentence(error, "ip1", "InnerProdcut", "did you mean 'InnerProduct'")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kernel_size: 3", "kernel_size: 9", ["conv1"]),
        ("group: 2", "group: 3", ["conv1"]),
        ("batch_size: 4", "batch_size: 0", ["data", "batch_size"]),
        ('bottom: "pool1"', 'bottom: "pool7"', ["ip1", "pool7"]),
        ('bottom: "ip2" bottom: "label" top: "loss"', 'bottom: "ip2" top: "loss"', ["loss"]),
    ],
)
def test_shapes_that_do_not_fit(old, new, words):
    text = net_text()
    assert old in text
    with pytest.raises(ConfigError) as error:
        make_net(text.replace(old, new), backend="numpy")
    sentence(error, *words)


def test_missing_net_file(tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text(f'net: "nowhere.prototxt" {PLAIN_SOLVER}')
    with pytest.raises(ConfigError) as error:
        Solver(path)
    sentence(error, "nowhere.prototxt")


def test_missing_solver_file(tmp_path):
    with pytest.raises(ConfigError) as error:
        Solver(tmp_path / "nowhere.prototxt")
    sentence(error, tmp_path / "nowhere.prototxt")


def test_text_that_is_no_prototxt(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('name: "x"\nlayer { nmae: "conv1" }\n')
    with pytest.raises(ConfigError) as error:
        Net(path)
    sentence(error, path, "nmae", "2")


def test_net_for_another_phase():
    text = 'layer { name: "a" type: "Input" top: "x" include { phase: TEST } }'
    with pytest.raises(ConfigError) as error:
        Net(parse_net(text), phase="TRAIN")
    sentence(error, "TRAIN")


# --- data ---


def test_label_out_of_range():
    net = make_net(backend="numpy", phase="TRAIN")
    images, labels = arrays(4)
    labels[2] = 3
    net.layer("data").set_arrays(images, labels)
    with pytest.raises(DataError) as error:
        net.forward()
    sentence(error, "loss", "label 3", "0 to 2")


def test_label_out_of_range_in_training_changes_nothing():
    solver = make_solver(backend="numpy")
    images, labels = arrays(8)
    labels[5] = -1
    solver.net.layer("data").set_arrays(images, labels)
    solver.step()
    before = weights_of(solver)
    with pytest.raises(DataError):
        solver.step()
    for name, values in weights_of(solver).items():
        np.testing.assert_array_equal(values, before[name])
    assert solver.iteration == 1


def mnist_folder(tmp_path, images, labels):
    folder = tmp_path / "mnist"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte", images)
    write_idx(folder / "train-labels-idx1-ubyte", labels)
    return folder


def digits_net():
    return Net(parse_net(DIGITS), "TRAIN", backend="numpy", data={"source": "mnist"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "train-images-idx3-ubyte").unlink(), ["missing", "minissl data fetch"]),
        (lambda f: cut(f / "train-images-idx3-ubyte"), ["train-images-idx3-ubyte"]),
        (lambda f: cut(f / "train-labels-idx1-ubyte"), ["train-labels-idx1-ubyte"]),
        (
            lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"<html>" * 200),
            ["train-images-idx3-ubyte"],
        ),
        (
            lambda f: write_idx(f / "train-labels-idx1-ubyte", np.full(12, 10, np.uint8)),
            ["label 10", "0 to 9"],
        ),
        (
            lambda f: write_idx(f / "train-labels-idx1-ubyte", np.zeros(11, np.uint8)),
            ["12 images", "(11,)"],
        ),
    ],
    ids=["missing", "images cut", "labels cut", "wrong magic", "label", "count"],
)
def test_damaged_data(tmp_path, monkeypatch, damage, words):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    folder = mnist_folder(tmp_path, np.zeros((12, 28, 28), np.uint8), np.zeros(12, np.uint8))
    digits_net().forward()
    damage(folder)
    with pytest.raises(DataError) as error:
        digits_net().forward()
    sentence(error, *words)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def test_arrays_of_another_shape():
    net = make_net(backend="numpy")
    with pytest.raises(ShapeError) as error:
        net.layer("data").set_arrays(np.zeros((4, 3, 6, 6)))
    sentence(error, "data", "(4, 3, 6, 6)", "(2, 6, 6)")


def test_no_arrays():
    with pytest.raises(DataError) as error:
        make_net(backend="numpy").forward()
    sentence(error, "set_arrays")


# --- folders and disks ---


def test_run_folder_that_is_a_file(tmp_path):
    path = tmp_path / "run"
    path.write_text("mine")
    solver = make_solver(backend="numpy", run=path)
    solver.step()
    before = weights_of(solver)
    with pytest.raises(MinisslError) as error:
        solver.snapshot()
    sentence(error, path)
    assert path.read_text() == "mine"
    for name, values in weights_of(solver).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere; run as a user"
)
def test_run_folder_that_is_not_writable(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(MinisslError) as error:
            make_solver(backend="numpy", run=tmp_path).snapshot()
        sentence(error, tmp_path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_disk_full_while_saving_weights(tmp_path, suffix):
    """The limit on file size fails in the middle of a write, as a full disk does."""
    path = tmp_path / f"net{suffix}"
    net = make_net(backend="numpy")
    net.save(path)
    script = f"""
import resource, signal
from minissl.errors import MinisslError
from tests.tiny_nets import make_net
net = make_net(backend="numpy", seed=7)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    net.save({str(path)!r})
except MinisslError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("\n") == 1 and str(path) in found.stdout
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    other = make_net(backend="numpy", seed=9)
    other.load(path)
    for mine, theirs in zip(net.parameters, other.parameters, strict=True):
        np.testing.assert_array_equal(mine.data, theirs.data)


def test_training_goes_on_after_a_failed_snapshot(tmp_path):
    """The error leaves the solver as it was: give it another folder and save again."""
    solver = make_solver(backend="numpy", run=tmp_path / "gone")
    undisturbed = make_solver(backend="numpy")
    for _ in range(2):
        solver.step()
        undisturbed.step()
    with pytest.raises(MinisslError):
        solver.snapshot()
    solver.run = tmp_path
    assert solver.snapshot().is_file()
    assert solver.step() == undisturbed.step()
    assert same_weights(solver, undisturbed)


def test_both_nets_and_snapshot_are_refused_early(tmp_path):
    with pytest.raises(ConfigError) as error:
        Solver(solver_param('net: "a.prototxt"'), run=tmp_path)
    sentence(error, "net, net_param")
    assert not list(tmp_path.iterdir())
