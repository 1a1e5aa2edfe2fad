"""Solvers that could not train a row are refused before anything is trained."""

from __future__ import annotations

import re

import pytest

from minissl.errors import ConfigError
from minissl.recipes.experiment_files import find, read
from minissl.recipes.experiments import NAMES
from tests.recipes.test_reproduce import SOLVER, experiment

TESTS = "test_iter: 2 test_interval: 5"
NORM = """
layer { name: "norm1" type: "BatchNorm" bottom: "conv1" top: "norm1" }
layer { name: "relu1" type: "ReLU" bottom: "norm1" top: "conv1b" }
"""


@pytest.fixture
def folder(tmp_path):
    """An experiment that can be run, its solvers and its nets."""
    experiment(tmp_path)
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refused(folder, said):
    """See that the experiment is refused with this sentence."""
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        read(folder / "digits.toml")
    told = str(caught.value)
    assert told.startswith(f"{folder / 'digits.toml'}, row '") and "\n" not in told


@pytest.mark.parametrize("name", NAMES)
def test_no_data_are_needed_to_read_an_experiment(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    monkeypatch.setattr("minissl.layers.data_layers.load", None)
    assert find(name).key == name


def test_rescale_needs_batch_norm(folder):
    change(folder / "digits.toml", "finetune =", "rescale = true\nfinetune =")
    refused(folder, "row 'digits2': 'rescale' changes nothing, since BatchNorm follows no layer")
    relu = 'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }\n'
    for name in ("digits", "frozen"):
        change(folder / f"{name}.prototxt", relu, NORM)
        change(
            folder / f"{name}.prototxt",
            'bottom: "conv1" top: "conv1"\n',
            'bottom: "conv1b" top: "conv1b"\n',
        )
        change(
            folder / f"{name}.prototxt", 'bottom: "conv1" top: "ip1"', 'bottom: "conv1b" top: "ip1"'
        )
    assert read(folder / "digits.toml").rows[0].rescale


def test_the_dense_net_has_an_accuracy(folder):
    change(folder / "digits.prototxt", 'top: "accuracy"', 'top: "right"')
    refused(
        folder, "row 'baseline', dense.prototxt: its net has no output 'accuracy' of one number"
    )


def test_what_ssl_leaves_is_tested_for_its_accuracy(folder):
    """Other stages need none: their outputs are no figures of the table."""
    other = folder / "other.prototxt"
    other.write_text((folder / "digits.prototxt").read_text())
    change(other, 'top: "accuracy"', 'top: "right"')
    for name in ("ssl", "ft"):
        net = "frozen" if name == "ft" else "digits"
        change(folder / f"{name}.prototxt", f"{net}.prototxt", "other.prototxt")
    read(folder / "digits.toml")
    change(folder / "ssl2.prototxt", "digits.prototxt", "other.prototxt")
    refused(folder, "row 'digits2', ssl2.prototxt: its net has no output 'accuracy'")
    change(folder / "ssl2.prototxt", TESTS, "")
    read(folder / "digits.toml")


@pytest.mark.parametrize("name", ["dense", "ssl", "ft"])
def test_every_training_leaves_something_to_draw(folder, name):
    solver = folder / f"{name}.prototxt"
    change(solver, "display: 5", "")
    read(folder / "digits.toml")
    change(solver, TESTS, "")
    refused(folder, f"{name}.prototxt: it neither displays nor tests, and nothing of it could be")
    solver.write_text(solver.read_text() + " display: 100")
    read(folder / "digits.toml")
    change(solver, "max_iter: 10", "")  # nothing is trained, so nothing is displayed
    refused(folder, f"{name}.prototxt: it neither displays nor tests")
    solver.write_text(f"{solver.read_text()} {TESTS}")
    read(folder / "digits.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "num_output: 3",
            "num_output: 4",
            "its layer 'conv1' has weights of shape (4, 1, 5, 5) and (4,), and that of the dense "
            "network (3, 1, 5, 5) and (3,); make them alike",
        ),
        (
            "num_output: 10",
            "num_output: 10 bias_term: false",
            "has weights of shape (10, 75), and ",
        ),
        ("stride: 5", "stride: 4", "its layer 'ip1' has weights of shape (10, 108) and (10,), and"),
        (
            'name: "',
            'name: "my_',
            "no layer with weights of the dense network's, which are conv1, ",
        ),
    ],
)
def test_a_row_trains_weights_that_the_dense_network_can_hold(folder, old, new, said):
    change(folder / "frozen.prototxt", old, new)
    refused(folder, "row 'digits2', ft.prototxt: its ")
    refused(folder, said)


def test_a_net_or_a_solver_that_cannot_be_set_up(folder):
    change(folder / "ssl2.prototxt", '"fixed"', '"fix"')
    refused(folder, "row 'digits2', ssl2.prototxt: unknown lr_policy 'fix'; use one of ")
    change(folder / "ssl2.prototxt", '"fix"', '"fixed"')
    change(folder / "frozen.prototxt", "kernel_size: 5", "kernel_size: 55")
    refused(folder, "row 'digits2', ft.prototxt: layer 'conv1'")


def test_a_net_may_be_made_for_another_data_set(folder):
    """It is run with --data then; and no data set has to be here."""
    for name in ("digits", "frozen"):
        change(folder / f"{name}.prototxt", "scale: 0.00390625", "crop_size: 32")
        change(folder / f"{name}.prototxt", "mnist-small", "cifar10")
    assert read(folder / "digits.toml").data == "mnist"
    change(folder / "digits.prototxt", "crop_size: 32", "crop_size: 33")
    refused(folder, "row 'baseline', dense.prototxt: layer 'data'")


def test_data_that_are_elsewhere_are_not_missed(folder):
    """What a net's shapes depend on may be on the machines that train."""
    data = 'type: "Data" top: "data" top: "label"\n  transform_param { scale: 0.00390625 } '
    data += 'data_param { source: "mnist-small" batch_size: 6 }'
    rows = (
        'type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "none" batch_size: 6 }'
    )
    change(folder / "digits.prototxt", data, rows)
    change(folder / "frozen.prototxt", data, rows)
    read(folder / "digits.toml")
    change(folder / "ssl.prototxt", SOLVER.strip(), SOLVER.strip().replace("display: 5", ""))
    change(folder / "ssl.prototxt", TESTS, "")
    refused(folder, "ssl.prototxt: it neither displays nor tests")
