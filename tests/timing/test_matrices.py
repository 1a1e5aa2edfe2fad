from __future__ import annotations

import numpy as np
import pytest

from minissl import Net
from minissl.errors import WeightsError
from minissl.formats.matrix_market import write_matrix
from minissl.timing import load_matrices, recognise_matrices
from minissl.timing.known_layers import recognise


def matrix(*shape, seed=0):
    w = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    w[0] = 0
    return w


def test_layers_are_recognised_and_loaded(tmp_path):
    w = matrix(20, 25)
    write_matrix(tmp_path / "coo_conv1.weight", w)
    write_matrix(tmp_path / "ip2.mtx", matrix(10, 500))
    (tmp_path / "README.md").write_text("not a matrix")
    found = recognise_matrices(tmp_path)
    assert sorted(found.layers) == ["conv1", "ip2"] and found.skipped == []
    net = Net(found.net, "TEST", backend="numpy")
    assert load_matrices(net, tmp_path) == ["conv1", "ip2"]
    assert np.array_equal(net.layer("conv1").parameters[0].matrix, w)


def test_a_band_counts_only_without_its_layer(tmp_path):
    write_matrix(tmp_path / "coo_conv4_1.weight", matrix(192, 1728))
    assert recognise_matrices(tmp_path).layers == {"conv4_1": recognise("conv4_1", (192, 1728))}
    write_matrix(tmp_path / "coo_conv4.weight", matrix(384, 1728))
    assert list(recognise_matrices(tmp_path).layers) == ["conv4"]


def test_unknown_matrices_are_told(tmp_path):
    write_matrix(tmp_path / "conv1.mtx", matrix(20, 25))
    write_matrix(tmp_path / "conv2.mtx", matrix(20, 26))
    found = recognise_matrices(tmp_path)
    assert list(found.layers) == ["conv1"]
    (sentence,) = found.skipped
    assert "conv2.mtx is not timed: a 20 x 26 matrix named 'conv2'" in sentence
    (tmp_path / "conv1.mtx").unlink()
    with pytest.raises(WeightsError, match=r"20 x 26 .* give its net with --model .*LeNet"):
        recognise_matrices(tmp_path)


def test_folders_without_matrices(tmp_path):
    with pytest.raises(WeightsError, match="holds no file LAYER"):
        recognise_matrices(tmp_path)
    with pytest.raises(WeightsError, match="cannot be read"):
        recognise_matrices(tmp_path / "missing")
    (tmp_path / "conv1.mtx").write_text("nonsense")
    with pytest.raises(WeightsError, match="not a Matrix Market file"):
        recognise_matrices(tmp_path)
