import json
import shutil

import pytest

from minissl.errors import ConfigError
from minissl.net import Net
from minissl.recipes import checking, figure_checking
from minissl.recipes.checking import check
from minissl.recipes.measuring import dense_flop, sizes_of
from tests.recipes.test_reproduce import OTHERS, recipe, row_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The result folder of rows of all kinds; not to be changed."""
    folder = tmp_path_factory.mktemp("digits")
    recipe(folder, OTHERS, seeds=(1, 2), fast=True).run("minissl reproduce digits.toml")
    return folder / "out"


@pytest.fixture(scope="module")
def dense(folder):
    net = Net(folder / "baseline" / "baseline_net.prototxt", "TEST", backend="numpy")
    return {"dense_flop": dense_flop(net), "dense_sizes": sizes_of(net)}


@pytest.fixture
def result(folder):
    return json.loads((folder / "result.json").read_text())


def of_row(result, dense, folder, key="digits2"):
    return figure_checking.of_row(row_of(result, key), result, dense, folder / key)


def kept(row):
    return next(run for run in row["runs"] if run["seed"] == row["seed"])


def other(row):
    return next(run for run in row["runs"] if run["seed"] != row["seed"])


def both(row, **figures):
    """Change the row and the run that it is of."""
    row.update(figures)
    kept(row).update(figures)


def test_rows_of_all_kinds_are_as_recorded(folder):
    checked = check(folder, "numpy")
    assert len(checked) == 7
    for one in checked:
        assert one["ok"] and one["wrong"] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row["speed_ups"]["1"].update(all=1e6), "speed_ups 1 all is"),
        (lambda row: row["speed_ups"]["64"]["layers"].pop("conv1"), "speed_ups 64 layers conv1 is"),
        (lambda row: row["times"]["64"]["dense"].update(fastest_ms=1e6), "speed_ups 64 fastest is"),
        (lambda row: row["spread"].update(error=[0.0, 1.0]), "spread error 1 is"),
        (lambda row: row["spread"]["bytes"].pop(), "spread bytes is"),
        (lambda row: row.update(bytes_dense=1), "bytes_dense 1 is"),
        (lambda row: row.update(seed=other(row)["seed"]), "is the median, not"),
        (lambda row: row.update(seed=7), "is the median, not 7"),
        (lambda row: row.update(error=0.5), "error is"),
        (lambda row: row.update(seconds=1.0), "seconds is"),
        (lambda row: kept(row)["layers"][0].update(filters=0), "layers 1 filters is 0"),
        (lambda row: both(row, error_after_ssl=0.01), "error_after_ssl is"),
        (lambda row: row["runs"].pop(), "the list of seeds is"),
        (lambda row: other(row).update(flops_percent=1.0), "flops_percent is"),
        (lambda row: other(row)["layers"][0].update(flops_percent=1.0), "flops_percent is"),
        (lambda row: other(row)["layers"][0].update(filters=0), "of conv1 is at most"),
        (lambda row: other(row)["layers"][1].update(columns=76), "columns of ip1 is at most 75"),
        (lambda row: other(row)["layers"][1].update(name="ip7"), "ip7 is no layer of the dense"),
    ],
)
def test_a_figure_that_does_not_follow_is_found(folder, result, dense, change, said):
    change(row_of(result))
    wrong = of_row(result, dense, folder)
    assert any(said in sentence for sentence in wrong), wrong


@pytest.mark.parametrize(
    ("layer", "figures", "said"),
    [
        (0, {"filters": 0}, "conv1 had 0 filters before compaction, which is not between"),
        (0, {"filters": 3}, "conv1 had 3 filters"),  # the log says which are frozen at zero
        (0, {"channels": 0}, "conv1 had 0 channels"),
        (0, {"columns": 26}, "conv1 had 26 columns"),
        (1, {"channels": 76}, "ip1 had 76 channels"),
        (1, {"flops_percent": 99.0}, "before compaction, flops_percent of ip1 is 100.0"),
        (1, {"name": "ip2"}, "others than those of the dense net"),
    ],
)
def test_a_network_before_compaction_is_bounded(folder, result, dense, layer, figures, said):
    row = row_of(result)
    row["layers_before_compaction"][layer].update(figures)
    wrong = of_row(result, dense, folder)
    assert any(said in sentence for sentence in wrong), wrong


def test_what_is_not_frozen_may_come_back(folder, result, dense, tmp_path):
    layer = row_of(result)["layers_before_compaction"][0]
    percent = 3 * layer["flops_percent"] / layer["filters"]
    layer.update(filters=3, flops_percent=percent)
    assert len(of_row(result, dense, folder)) == 1
    copy = shutil.copytree(folder, tmp_path / "out")
    net = copy / "digits2" / "finetune_net.prototxt"
    net.write_text(net.read_text().replace("connectivity_mode: DISCONNECTED_GRPWISE", ""))
    assert of_row(result, dense, copy) == []


def test_the_dense_net_is_counted_again(result, dense):
    assert figure_checking.of_result(result, dense) == []
    result["dense_flop"]["conv1"] += 1
    result["dense_sizes"]["ip1"]["columns"] += 1
    first, second = figure_checking.of_result(result, dense)
    assert "dense_flop conv1 is 3750, recorded is 3751" in first
    assert "dense_sizes ip1 columns is 75, recorded is 76" in second
    del result["dense_sizes"], result["dense_flop"]["conv1"]  # older results lack the sizes
    (only,) = figure_checking.of_result(result, dense)
    assert only == "dense_flop conv1 is 3750, recorded is None"


def test_a_log_that_is_not_kept_or_damaged(folder, result, dense, tmp_path):
    both(row_of(result), error_after_ssl=0.01)
    assert of_row(result, dense, tmp_path) == []
    copy = shutil.copytree(folder, tmp_path / "out")
    (copy / "digits2" / "ssl2_log.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"ssl2_log\.jsonl is damaged"):
        of_row(result, dense, copy)


@pytest.mark.parametrize("value", [0.5, -1e-9])
def test_compaction_allows_no_larger_difference(folder, result, monkeypatch, value):
    row_of(result, "dense")["max_abs_difference"] = value
    monkeypatch.setattr(checking, "read_result", lambda _: result)
    wrong = {one["name"]: one["wrong"] for one in check(folder, "numpy") if not one["ok"]}
    (sentence,) = wrong.pop("dense")
    assert not wrong and "max_abs_difference is at most" in sentence
