"""An experiment of speed-ups is read, or refused in one sentence."""

import re

import pytest

from minissl.errors import ConfigError
from minissl.recipes.experiment_files import find
from minissl.recipes.paper_speeds import FIGURES, LAYERS
from minissl.recipes.published_matrices import PUBLISHED
from minissl.recipes.speed_experiments import NAMES, SpeedExperiment
from tests.recipes.speed_cases import RANDOM, SSL, TEXT


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path):
    text = TEXT + "threads = [1, 2]\nbatch_sizes = [4]\n" + SSL + "optional = true\n" + RANDOM
    mine = find(written(tmp_path, text))
    assert isinstance(mine, SpeedExperiment)
    assert (mine.key, mine.net, mine.layers) == ("mine", "LeNet", ("conv1", "conv2"))
    assert (mine.threads, mine.batch_sizes, mine.about) == ((1, 2), (4,), "What for.")
    ssl, random = mine.rows
    assert ssl.matrices == "lenet/a" and ssl.optional and ssl.sparsity is None
    assert random.sparsity == (40.0, 90.0) and not random.optional and random.matrices is None
    once = find(written(tmp_path, TEXT + RANDOM.replace("[40, 90.0]", "50")))
    assert once.rows[0].sparsity == (50.0, 50.0) and once.threads == once.batch_sizes == (1,)


@pytest.mark.parametrize("name", NAMES)
def test_those_of_the_paper_are_read(name):
    experiment = find(name)
    assert experiment.key == name and experiment.layers == LAYERS
    assert any(row.paper for row in experiment.rows)
    for row in experiment.rows:
        assert row.matrices is None or set(PUBLISHED[row.matrices]) == set(LAYERS)


def test_the_paper_s_means_are_those_of_its_layers():
    for row in (row for rows in FIGURES.values() for row in rows):
        for platform, ratios in row["speed_ups"].items():
            # the paper rounds both, and one bar was read off a chart
            assert sum(ratios) / len(ratios) == pytest.approx(row["means"][platform], abs=0.02)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"conv2"]', '"ip1"]', "LeNet has no convolution 'ip1'; known are LeNet conv1 20 x 25"),
        ('net = "LeNet"', 'net = "VGG"', "'net' is 'VGG'; make it one of AlexNet, LeNet"),
        ("LOWERED_CCNMM", "FAST", "'mode' is 'FAST'; make it one of LOWERED_GEMM"),
        ('matrices = "lenet/a"', "", "either 'matrices' or 'sparsity'"),
        ("sparsity = [40, 90.0]", "sparsity = [40]", "a percentage, or 2 of them in a list"),
        ("sparsity = [40, 90.0]", "sparsity = 101", "a percentage, or 2 of them in a list"),
        ('"random"', '"ssl"', "two rows have the key 'ssl'"),
        ('"single zeros"', '"packed"', "two rows have the name 'packed'"),
        ('"random"', '"Random!"', "small letters, digits and _"),
        ("net =", "threads = [0]\nnet =", "'threads' is [0]; make it a list of different"),
        ("sparsity =", 'paper = "table4/x"\nsparsity =', "make it one of table4/AlexNet 1"),
        ("sparsity =", "optional = 1\nsparsity =", "make it true or false"),
        ("sparsity =", "sparsty = 1\nsparsity =", "did you mean 'sparsity'?"),
    ],
)
def test_mistakes_are_told(tmp_path, old, new, message):
    text = TEXT + SSL + RANDOM
    assert old in text
    with pytest.raises(ConfigError, match=re.escape(message)):
        find(written(tmp_path, text.replace(old, new, 1)))


def test_no_rows(tmp_path):
    with pytest.raises(ConfigError, match="'rows' is missing"):
        find(written(tmp_path, TEXT))
    with pytest.raises(ConfigError, match=r"no \[\[rows\]\]"):
        find(written(tmp_path, TEXT + "rows = []\n"))
