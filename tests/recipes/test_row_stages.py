"""Rows that are not SSL from the dense weights with fine-tuning after it."""

import json

import numpy as np
import pytest

from minissl.formats.weights import read_weights
from minissl.net import Net
from minissl.recipes.checking import check
from minissl.recipes.experiment_files import find
from minissl.recipes.pruning import prune_like
from minissl.recipes.row_stages import RowStages
from minissl.recipes.stages import digest
from minissl.recipes.training import WEIGHTS, Training
from tests.recipes.test_reproduce import OTHERS, experiment, recipe, row_of
from tests.tiny_nets import TINY, make_net

FURTHER = """
[[rows]]
key = "last"
name = "last"
prune_like = "further"
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a complete reproduction with all kinds of rows; not to be changed."""
    folder = tmp_path_factory.mktemp("others")
    return folder, recipe(folder, OTHERS, seeds=(2,), fast=True).run(
        "minissl reproduce digits.toml"
    )


def settings(folder, stage):
    return json.loads((folder / "work" / "seed2" / stage / "stage.json").read_text())["settings"]


def blobs(folder, stage):
    return read_weights(folder / "work" / "seed2" / stage / WEIGHTS)


def test_every_row_has_its_stages(finished):
    folder, result = finished
    assert {row["key"]: row["trainings"] for row in result["rows"]} == {
        "baseline": ["baseline"],
        "digits2": ["ssl", "ssl2", "finetune"],
        "scratch": ["ssl"],
        "random": ["finetune"],
        "cut": [],
        "dense": ["finetune"],
        "further": ["ssl", "finetune"],
    }
    assert {path.name for path in (folder / "work" / "seed2").iterdir()} == {
        *("baseline", "baseline-measure"),
        *(f"digits2-{stage}" for stage in ("ssl", "ssl2", "finetune")),
        *("scratch-ssl", "random-prune", "random-finetune", "cut-prune", "dense-finetune"),
        *("further-ssl", "further-finetune"),
        *(
            f"{key}-{stage}"
            for key in ("digits2", "scratch", "random", "cut", "dense", "further")
            for stage in ("compact", "measure", "time")
        ),
    }
    assert all(row["ok"] for row in check(folder / "out", "numpy"))


def test_what_the_first_training_starts_from(finished):
    folder, _ = finished
    dense = digest(folder / "work" / "seed2" / "baseline" / WEIGHTS)
    assert settings(folder, "digits2-ssl")["initial weights"] == dense
    assert settings(folder, "dense-finetune")["initial weights"] == dense
    assert settings(folder, "scratch-ssl")["initial weights"] == ""
    pruned = digest(folder / "work" / "seed2" / "random-prune" / WEIGHTS)
    assert settings(folder, "random-finetune")["initial weights"] == pruned
    scratch = digest(folder / "work" / "seed2" / "scratch-ssl" / WEIGHTS)
    assert settings(folder, "further-ssl")["initial weights"] == scratch


def test_only_the_row_that_says_so_reads_in_another_order(finished):
    folder, result = finished
    assert settings(folder, "dense-finetune")["order"] == "shuffled"
    for stage in ("baseline", "digits2-ssl", "digits2-finetune", "random-finetune"):
        assert "order" not in settings(folder, stage)
    assert [row["key"] for row in result["rows"] if row["shuffled"]] == ["dense"]


def test_weights_are_taken_whichever_backend_made_them_and_figures_are_not(finished):
    for stage in ("baseline", "further-ssl", "further-finetune", "cut-prune"):
        assert "backend" not in settings(finished[0], stage)
    for stage in ("baseline-measure", "further-measure", "further-compact", "further-time"):
        assert settings(finished[0], stage)["backend"] == "numpy"


def test_rows_that_a_row_reads_come_in_an_order_in_which_they_can_be_made(tmp_path):
    mine = experiment(tmp_path, OTHERS + FURTHER)
    assert mine.before("baseline") == []
    assert mine.before("digits2") == mine.before("scratch") == ["baseline"]
    assert mine.before("further") == mine.before("cut") == ["baseline", "scratch"]
    assert mine.before("last") == ["baseline", "scratch", "further"]


def test_only_rows_with_ssl_tell_of_it(finished):
    _, result = finished
    with_ssl = {"digits2", "scratch", "further"}
    for row in result["rows"]:
        (run,) = row["runs"]
        assert ("error_after_ssl" in run) == (row["key"] in with_ssl)
        assert ("revived" in run) == (row["key"] in with_ssl)
    both = [
        json.loads((finished[0] / "work" / "seed2" / f"digits2-{stage}" / "stage.json").read_text())
        for stage in ("ssl", "ssl2")
    ]
    counts = [stage["figures"]["revived"] for stage in both]
    total = {name: sum(one[name] for one in counts) for name in counts[0]}
    assert row_of(result)["revived"] == total


def test_random_pruning_has_the_structure_of_the_row_and_other_filters(finished):
    folder, result = finished
    row = row_of(result)
    lost = row["layers_before_compaction"][0]["filters"]
    assert lost < 3  # else there is nothing to imitate
    for key, like in (("random", "digits2"), ("cut", "scratch")):
        found, wanted = (row_of(result, one)["layers_before_compaction"] for one in (key, like))
        assert found == wanted
        assert row_of(result, key)["bytes"] == row_of(result, like)["bytes"]
    dense, pruned = blobs(folder, "baseline"), blobs(folder, "random-prune")
    for layer, values in dense.items():
        for before, after in zip(values, pruned[layer], strict=True):
            assert ((after == before) | (after == 0)).all()
    filters = pruned["conv1"][0].any(axis=(1, 2, 3))
    assert filters.sum() == lost and not pruned["conv1"][1][~filters].any()


def test_seeds_choose_other_filters(finished):
    folder, _ = finished
    dense, like = (Net(folder / "digits.prototxt", "TEST", backend="numpy") for _ in range(2))
    values = {name: [blob.copy() for blob in ones] for name, ones in like.weights().items()}
    values["conv1"][0][1:] = 0
    like.load(values)
    chosen = set()
    for seed in range(20):
        net = Net(folder / "digits.prototxt", "TEST", backend="numpy")
        net.load(dense.weights())
        prune_like(net, like, seed)
        (one,) = np.flatnonzero(net.weights()["conv1"][0].any(axis=(1, 2, 3)))
        chosen.add(int(one))
    assert chosen == {0, 1, 2}


def test_a_transposed_matrix_is_pruned_as_it_is_seen():
    text = TINY.replace("num_output: 3", "num_output: 3 transpose: true")
    like, net = make_net(text, backend="numpy"), make_net(text, backend="numpy")
    values = {name: [blob.copy() for blob in ones] for name, ones in like.weights().items()}
    values["ip2"][0][2:] = 0  # (K, F): 2 of 6 columns live
    like.load(values)
    prune_like(net, like, 5)
    w = net.weights()["ip2"][0]
    assert w.shape == (6, 3) and w.any(axis=1).sum() == 2 and w.any(axis=0).all()


def test_stages_of_lenet_3_are_the_same_in_both_tables():
    """So that variants goes on from the work of table1."""
    told = []
    for name in ("table1", "variants"):
        stages = RowStages(find(name), 1, "mnist", "numpy", False).of("lenet3")
        trainings = [one for one in stages if isinstance(one, Training)]
        told.append([(one.name, one.solver, one.start, one.changes) for one in trainings])
        told[-1] += [(one.name, one.reads, one.options) for one in stages[len(trainings) :]]
    assert told[0] == told[1] and len(told[0]) == 4
