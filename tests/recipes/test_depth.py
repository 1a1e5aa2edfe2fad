"""A residual network loses whole layers, and the layers leave."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest

from minissl.formats.prototxt import read_net
from minissl.formats.weights import read_weights
from minissl.models.resnet import resnet
from minissl.recipes.checking import check
from minissl.recipes.experiment_files import read
from minissl.recipes.measuring import time_side_by_side
from minissl.recipes.reproduce import Reproduction
from minissl.recipes.stages import digest
from minissl.recipes.training import WEIGHTS
from minissl.report import depth, reproduce

SOLVER = """
net: "NET.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed"
test_iter: 1 test_interval: 10 display: 5 max_iter: 10 snapshot_prefix: "deep"
"""
BLOCKS = [f"stage{stage}_block1_conv{n}" for stage in (1, 2, 3) for n in (1, 2)]
FILE = f"""
title = "Depth"
shown = "depth"
layers = {["conv1", *BLOCKS, "fc"]}
[baseline]
name = "ResNet-8"
solver = "dense.prototxt"
paper = "depth/ResNet-20"
[[rows]]
key = "short"
name = "shorter"
ssl = ["ssl.prototxt"]
rescale = true
finetune = "ft.prototxt"
"""


def digits(text):
    """The network for digits, 28x28 in one channel, in place of CIFAR-10."""
    text = text.replace('mean_file: "cifar10" pad: 4 crop_size: 32 mirror: true', "scale: 0.004")
    return text.replace('mean_file: "cifar10"', "scale: 0.004").replace(
        '"cifar10"', '"mnist-small"'
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a complete run, and its result."""
    folder = tmp_path_factory.mktemp("deep")
    small = {"depth": 8, "batch_size": 8, "widths": (2, 2, 4)}
    texts = {
        "deep": resnet(**small),
        "lasso": resnet(**small, learn_depth=True),
        "frozen": resnet(**small, connectivity_mode="DISCONNECTED_GRPWISE"),
    }
    for name, text in texts.items():
        (folder / f"{name}.prototxt").write_text(digits(text))
    lasso = 'block_group_decay: 3 group_lasso_method: "proximal"'
    (folder / "dense.prototxt").write_text(SOLVER.replace("NET", "deep"))
    (folder / "ssl.prototxt").write_text(SOLVER.replace("NET", "lasso") + lasso)
    (folder / "ft.prototxt").write_text(SOLVER.replace("NET", "frozen"))
    (folder / "deep.toml").write_text(FILE)
    recipe = Reproduction(
        read(folder / "deep.toml"), folder / "out", folder / "work", (1,), "mnist-small", "numpy"
    )
    once = mock.patch(  # how fast it is does not matter here
        "minissl.recipes.row_stages.time_side_by_side",
        lambda networks, batch_size, *_: time_side_by_side(networks, batch_size, 1, 1),
    )
    with once:
        return folder, recipe.run("minissl reproduce deep.toml")


def test_some_layers_are_lost_and_leave(finished):
    folder, result = finished
    dense, short = result["rows"]
    before = {**short, "layers": short["layers_before_compaction"]}
    trained = depth.layers_left(before, result)
    assert depth.layers_left(dense, result) == result["layers"]
    assert "conv1" in trained and "fc" in trained
    assert len(trained) < len(result["layers"])
    # with the layers that died leave all that belong to their branches
    left = depth.layers_left(short, result)
    assert left == trained
    names = {one.name for one in read_net(folder / "out" / "short" / "net.prototxt").layer}
    assert set(left) <= names and not names & (set(BLOCKS) - set(left))
    assert not any(name.startswith(dead) for name in names for dead in set(BLOCKS) - set(left))
    assert short["bytes"] < short["bytes_dense"] and short["flops_percent"] < 100
    assert short["max_abs_difference"] < 1e-4


def test_the_table_tells_it(finished):
    result = finished[1]
    headings, rows = reproduce.headings(result), reproduce.rows(result)
    assert headings[2:4] == ["layers", "convolutions at 28x28 - 14x14 - 7x7"]
    assert rows[0][:4] == ["paper's ResNet-20", "8.82", "20", "7 - 6 - 6"]
    assert rows[1][2:4] == ["8", "3 - 2 - 2"]
    short = result["rows"][1]
    assert [row[2] for row in rows[2:]] == [
        str(len(depth.layers_left({**short, "layers": layers}, result)))
        for layers in (short["layers_before_compaction"], short["layers"])
    ]
    text = reproduce.readme(result)
    assert "| shorter |" in text and "FLOP %" in text
    assert len(reproduce.seed_rows(result)[0]) == len(reproduce.seed_headings(result))


def test_fine_tuning_starts_from_layers_as_long_as_the_dense_ones(finished):
    seed = finished[0] / "work" / "seed1"
    weights = {
        stage: read_weights(seed / stage / WEIGHTS)
        for stage in ("baseline", "short-ssl", "short-rescale")
    }
    convolutions = [name for name, blobs in weights["baseline"].items() if blobs[0].ndim == 4]
    length = {
        stage: np.array([np.linalg.norm(blobs[name][0]) for name in convolutions])
        for stage, blobs in weights.items()
    }
    left = length["short-ssl"] > 0
    assert left.any() and not left.all()
    assert length["short-ssl"][left] != pytest.approx(length["baseline"][left], rel=1e-3)
    assert length["short-rescale"][left] == pytest.approx(length["baseline"][left], rel=1e-5)
    assert (length["short-rescale"][~left] == 0).all()
    started = json.loads((seed / "short-finetune" / "stage.json").read_text())["settings"]
    assert started["initial weights"] == digest(seed / "short-rescale" / WEIGHTS)


def test_it_can_be_checked_and_drawn(finished, tmp_path):
    folder, result = finished
    assert [row["wrong"] for row in check(folder / "out", "numpy")] == [[], []]
    paths = reproduce.write(result, folder / "work", tmp_path)
    drawn = {path.stem for path in paths if path.suffix == ".png"}
    assert drawn == {"error-and-layers", "layers-left", "short-error"}


def test_the_same_result_tells_of_channels_inside_the_blocks(finished):
    second = [name for name in BLOCKS if name.endswith("conv2")]
    result = {**finished[1], "shown": "width", "layers": second}
    rows = reproduce.rows(result)
    assert rows[0][2:] == ["", "", ""]  # the paper's, of which no channels are known
    assert rows[1][2:] == ["2 - 2 - 4", "100.0", "1.00 times"]
    left = depth.layers_left(finished[1]["rows"][1], result)
    assert rows[3][2] == " - ".join(
        str(width if name in left else 0) for name, width in zip(second, (2, 2, 4), strict=True)
    )
    assert len(reproduce.seed_rows(result)[0]) == len(reproduce.seed_headings(result))
