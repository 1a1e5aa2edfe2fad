from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from minissl.errors import ConfigError
from minissl.formats.matrix_market import write_matrix
from minissl.recipes.published_matrices import (
    PUBLISHED,
    VARIABLE,
    as_published,
    folder_of,
    random_matrix,
    read_set,
)
from minissl.recipes.speed import layers_of
from tests.recipes.speed_cases import write_set

LAYERS = layers_of("LeNet", ["conv1", "conv2"])


def test_the_folder_is_given_or_in_the_environment(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert folder_of() is None and folder_of(Path("a")) == Path("a")
    monkeypatch.setenv(VARIABLE, "b")
    assert folder_of() == Path("b") and folder_of(Path("a")) == Path("a")


def test_a_set_is_read_with_its_digests(tmp_path):
    write_set(tmp_path / "lenet" / "a")
    matrices, digests = read_set("lenet/a", LAYERS, tmp_path)
    assert matrices["conv2"].shape == (50, 500) and not matrices["conv2"][0].any()
    assert set(digests) == {"conv1", "conv2"} and len(digests["conv1"]) == 64
    assert digests["conv1"] != digests["conv2"]


def test_missing_matrices_are_told_with_their_source(tmp_path):
    with pytest.raises(ConfigError, match=r"not part of minissl; copy .*wenwei202/caffe"):
        read_set("lenet/a", LAYERS, None)
    write_set(tmp_path / "lenet" / "a")
    (tmp_path / "lenet" / "a" / "coo_conv2.weight").unlink()
    with pytest.raises(ConfigError, match=r"holds no matrix of conv2; copy"):
        read_set("lenet/a", LAYERS, tmp_path)
    write_matrix(tmp_path / "lenet" / "a" / "conv2.mtx", np.ones((5, 5), np.float32))
    with pytest.raises(ConfigError, match=r"5 x 5 matrix, but LeNet's conv2 has 50 x 500"):
        read_set("lenet/a", LAYERS, tmp_path)


def test_what_was_published_is_known():
    name, digests = next(iter(PUBLISHED.items()))
    assert as_published(name, digests) is True
    assert as_published(name, {**digests, "conv3": "0" * 64}) is False
    assert as_published("lenet/a", {"conv1": "0"}) is None


@pytest.mark.parametrize("percent", [0.0, 37.5, 100.0])
def test_so_many_zeros_at_random(percent):
    w = random_matrix(LAYERS[1], percent, seed=3)
    assert w.shape == (50, 500) and w.dtype == np.float32
    assert np.count_nonzero(w == 0) == round(25000 * percent / 100)
    assert np.array_equal(w, random_matrix(LAYERS[1], percent, seed=3))
    if percent == 37.5:
        assert not np.array_equal(w, random_matrix(LAYERS[1], percent, seed=4))
        zeros = (w == 0).mean(axis=1)  # spread over all rows
        assert zeros.min() > 0.25 and zeros.max() < 0.5


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no published matrices")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files(name):
    layers = layers_of("AlexNet", list(PUBLISHED[name]))
    assert as_published(name, read_set(name, layers, folder_of())[1])
