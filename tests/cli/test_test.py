"""minissl test: means over the whole test set, and what is wrong with its input."""

from __future__ import annotations

import gzip
import shutil
import struct

import numpy as np
import pytest

from minissl.backend import has_gpu
from minissl.data.datasets import SMALL_FOLDER
from minissl.formats.weights import write_weights


def test_the_whole_test_set_once(run_json, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--batch-size"]
    small = run_json(*arguments, 50)
    whole = run_json(*arguments, 1000)
    assert small["images"] == whole["images"] == 1000 and small["seconds"] > 0
    assert set(small["outputs"]) == {"accuracy", "loss"}
    assert small["outputs"]["accuracy"] == pytest.approx(whole["outputs"]["accuracy"], abs=1e-6)
    assert small["outputs"]["loss"] == pytest.approx(whole["outputs"]["loss"], rel=1e-5)


def test_iterations_and_backends(run, run_json, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--iterations", 3]
    plain = run_json(*arguments, "--backend", "numpy", "--dtype", "float64")
    fast = run_json(*arguments, "--backend", "numba", "--dtype", "float64", "--threads", 1)
    assert plain["images"] == fast["images"] == 18
    assert plain["outputs"]["loss"] == pytest.approx(fast["outputs"]["loss"], rel=1e-12)
    assert "18 images in" in run(*arguments).stdout


def test_fusion_changes_no_digit(run_json, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--iterations", 3]
    fused, plain = run_json(*arguments), run_json(*arguments, "--no-fuse")
    assert fused["outputs"] == plain["outputs"]


def test_a_batch_that_does_not_divide_is_told(run, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file]
    assert "first 2 count twice" in run(*arguments).stderr
    assert run("--quiet", *arguments).stderr == ""


def test_a_net_without_data(run, net_file, weights_file):
    source = 'layer { name: "data" type: "Input" top: "data" top: "label" input_param { '
    with_source(net_file, source + "shape { dim: 6 dim: 1 dim: 28 dim: 28 } shape { dim: 6 } } } ")
    result = run("test", "--model", net_file, "--weights", weights_file, code=1)
    assert "reads no data set" in result.stderr


def test_a_batch_larger_than_the_data_is_told(run, net_file, weights_file):
    told = run("test", "--model", net_file, "--weights", weights_file, "--batch-size", 2000).stderr
    assert "a batch of 2000 is more than the 1,000 images" in told and "twice" not in told


def with_source(net_file, source):
    text = net_file.read_text()
    data = text[text.index("layer {") : text.index('layer { name: "conv1"')]
    net_file.write_text(text.replace(data, source))


def test_a_layer_that_makes_its_data(run, run_json, net_file, weights_file):
    shapes = "shape { dim: 6 dim: 1 dim: 28 dim: 28 } shape { dim: 6 }"
    with_source(
        net_file,
        'layer { name: "data" type: "DummyData" top: "data" top: "label" '
        f"dummy_data_param {{ {shapes} }} }} ",
    )
    arguments = ["test", "--model", net_file, "--weights", weights_file]
    assert run_json(*arguments, "--iterations", 2)["images"] == 12
    error = run(*arguments, code=1).stderr
    assert "'data' (DummyData) does not say how many records" in error and "--iterations" in error


def test_listed_images_are_all_tested(run_json, net_file, weights_file, tmp_path):
    Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for number in range(4):
        Image.new("L", (28, 28), 10 * number).save(tmp_path / f"{number}.png")
    lines = "".join(f"{number}.png {number}\n" for number in range(4))
    (tmp_path / "list.txt").write_text(lines)
    with_source(
        net_file,
        'layer { name: "data" type: "ImageData" top: "data" top: "label" image_data_param { '
        f'source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" '
        "is_color: false batch_size: 2 } } ",
    )
    arguments = ["test", "--model", net_file, "--weights", weights_file]
    assert run_json(*arguments)["images"] == 4


def test_threads_of_the_plain_backend_are_refused(run, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file]
    result = run(*arguments, "--backend", "numpy", "--threads", 2, code=2)
    assert "--threads" in result.stderr and "numpy" in result.stderr


@pytest.mark.skipif(has_gpu(), reason="the backend is not missing")
def test_a_missing_backend(run, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file]
    assert "backend 'cupy' needs" in run(*arguments, "--backend", "cupy", code=1).stderr


def test_the_validation_part_can_be_tested(run, run_json, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--iterations", 4]
    validation = run_json(*arguments, "--data", "mnist-small/validation")
    assert validation["outputs"] != run_json(*arguments, "--data", "mnist-small")["outputs"]
    assert "no data set" not in run("lint", net_file, "--data", "mnist-small/validation").stdout
    assert "is not a data set" in run("data", "verify", "mnist/validation", code=2).stderr


# --- bad input: each is one sentence and exit code 1 ---


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"Convolution"',
            '"Convolutoin"',
            "unknown type 'Convolutoin'; did you mean 'Convolution'",
        ),
        ("kernel_size: 5", "kernel_size: 29", "larger than the padded input"),
        ('bottom: "conv1" top: "ip1"', 'bottom: "conv9" top: "ip1"', "no earlier layer makes"),
        ("ReLU", 'ReLU" conv_mode: LOWERED_GEMM name: "x', "convolution_param"),
        ("num_output: 3", "group: 2 num_output: 3", "group 2 must divide"),
        ("kernel_size: 5", "kernle_size: 5", "kernel_size"),
        ("mnist-small", "my_lmdb", "add --data mnist"),
        ("num_output: 10", "num_output: 1000000000", "memory"),
        ("batch_size: 6", "batch_size: 2000000000", "memory"),
        ('name: "Digits"', "}", "digits.prototxt:2:1"),
    ],
)
def test_bad_nets(run, net_file, weights_file, old, new, said):
    net_file.write_text(net_file.read_text().replace(old, new))
    result = run("test", "--model", net_file, "--weights", weights_file, code=1)
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_weights_of_another_shape(run, net_file, tmp_path, weights):
    weights["ip1"][0] = weights["ip1"][0][:, :-1]
    write_weights(tmp_path / "w.npz", weights)
    result = run("test", "--model", net_file, "--weights", tmp_path / "w.npz", code=1)
    assert "layer 'ip1' has shape (10, 74) where the net has (10, 75)" in result.stderr


def test_nan_in_weights(run, net_file, tmp_path, weights):
    weights["ip1"][0][3, 4] = np.nan
    write_weights(tmp_path / "w.npz", weights)
    result = run("test", "--model", net_file, "--weights", tmp_path / "w.npz", code=1)
    assert "layer 'ip1' holds NaN" in result.stderr


def test_damaged_weights(run, net_file, weights_file):
    weights_file.write_bytes(weights_file.read_bytes()[:-7])
    result = run("test", "--model", net_file, "--weights", weights_file, code=1)
    assert "not a caffemodel, or it is truncated" in result.stderr


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder of data with the small digits in the place of MNIST, to be damaged."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for path in SMALL_FOLDER.glob("*ubyte*"):
        target = folder / path.name.removesuffix(".gz")
        if path.suffix == ".gz":
            target.write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, target)
    monkeypatch.setenv("MINISSL_DATA", str(folder.parent))
    return folder


def test_data_from_a_chosen_folder(run_json, mnist, net_file, weights_file):
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--data", "mnist"]
    assert run_json(*arguments, "--batch-size", 100)["images"] == 1000


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _wrong_magic(path):
    path.write_bytes(struct.pack(">i", 0x0BAD) + path.read_bytes()[4:])


def _label_out_of_range(path):
    content = bytearray(path.read_bytes())
    content[8 + 17] = 10
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("t10k-images-idx3-ubyte", _truncate, "bytes"),
        ("t10k-images-idx3-ubyte", _wrong_magic, "begins with 00 00 0b ad"),
        ("t10k-labels-idx1-ubyte", _label_out_of_range, "record 17 has label 10"),
        ("t10k-labels-idx1-ubyte", lambda path: path.unlink(), "minissl data fetch mnist"),
    ],
)
def test_damaged_data(run, mnist, net_file, weights_file, file, damage, said):
    damage(mnist / file)
    arguments = ["test", "--model", net_file, "--weights", weights_file, "--data", "mnist"]
    result = run(*arguments, code=1)
    assert said in result.stderr and result.stderr.count("\n") == 1
