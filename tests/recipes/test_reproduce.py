import json
import shutil

import numpy as np
import pytest

from minissl.errors import ConfigError, WeightsError
from minissl.formats.prototxt import read_solver
from minissl.formats.weights import read_weights, write_weights
from minissl.recipes import reproduce
from minissl.recipes.checking import check, read_result
from minissl.recipes.experiment_files import read
from minissl.recipes.reproduce import Reproduction, speed_ups
from minissl.recipes.retiming import time_again
from minissl.recipes.stages import Watcher, digest
from tests.tiny_nets import DIGITS

SOLVER = """
net: "digits.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed"
test_iter: 2 test_interval: 5 display: 5 max_iter: 10 snapshot_prefix: "digits"
"""
PAPER = """
[{where}paper]
name = "{name}"
error = 0.5
data = "some digits"
layers = [
  {{ name = "conv1", filters = 3, channels = 1, flops_percent = 50 }},
  {{ name = "ip1", filters = 3, channels = 1, flops_percent = 50 }},
]
"""
FILE = f"""
title = "Digits"
layers = ["conv1", "ip1"]
[baseline]
name = "Digits 1"
solver = "dense.prototxt"
{PAPER.format(where="baseline.", name="Digits 1")}
[[rows]]
key = "digits2"
name = "Digits 2"
ssl = ["ssl.prototxt", "ssl2.prototxt"]  # ssl2 takes none of what ssl has left
finetune = "ft.prototxt"
{PAPER.format(where="rows.", name="Digits 2")}
"""
#: rows that do without something
OTHERS = """
[[rows]]
key = "scratch"
name = "scratch"
start = "fillers"
ssl = ["ssl.prototxt"]
[[rows]]
key = "random"
name = "random"
prune_like = "digits2"
finetune = "ft.prototxt"
[[rows]]
key = "cut"
name = "cut"
about = "pruned, and nothing else."
prune_like = "scratch"
[[rows]]
key = "dense"
name = "dense"
shuffle = true
finetune = "ft.prototxt"
[[rows]]
key = "further"
name = "further"
start = "scratch"
ssl = ["ssl2.prototxt"]
finetune = "ft.prototxt"
"""


def experiment(folder, more="", fast=False):
    """A dense network, and one whose group lasso kills filters of conv1.

    It does so within 10 iterations, or within the 20 of a fast run; it never kills all of them.
    """
    frozen = DIGITS.replace(
        'top: "conv1"\n', 'top: "conv1" connectivity_mode: DISCONNECTED_GRPWISE\n', 1
    )
    assert frozen != DIGITS
    (folder / "digits.prototxt").write_text(DIGITS)
    (folder / "frozen.prototxt").write_text(frozen)
    (folder / "dense.prototxt").write_text(SOLVER)
    proximal = 'block_group_decay: DECAY group_lasso_method: "proximal"'
    (folder / "ssl.prototxt").write_text(
        SOLVER + proximal.replace("DECAY", "0.1" if fast else "0.2")
    )
    (folder / "ssl2.prototxt").write_text(SOLVER + proximal.replace("DECAY", "0.001"))
    (folder / "ft.prototxt").write_text(SOLVER.replace("digits.proto", "frozen.proto"))
    (folder / "digits.toml").write_text(FILE + more)
    return read(folder / "digits.toml")


def recipe(folder, more="", **options):
    given = {"seeds": (1, 2), "data": "mnist-small", "backend": "numpy", **options}
    return Reproduction(
        experiment(folder, more, given.get("fast", False)), folder / "out", folder / "work", **given
    )


class Listener(Watcher):
    def __init__(self):
        self.told = []

    def skipped(self, stage):
        self.told.append(("skipped", stage.name))

    def started(self, stage):
        self.told.append(("started", stage.name))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a complete reproduction, and its result; not to be changed."""
    folder = tmp_path_factory.mktemp("digits")
    return folder, recipe(folder).run("minissl reproduce digits")


@pytest.fixture
def copied(finished, tmp_path):
    """A result folder that may be damaged."""
    return shutil.copytree(finished[0] / "out", tmp_path / "out")


def row_of(result, key="digits2"):
    return next(row for row in result["rows"] if row["key"] == key)


def test_rows_hold_what_a_table_tells(finished):
    result = finished[1]
    assert [row["name"] for row in result["rows"]] == ["Digits 1", "Digits 2"]
    dense, small = result["rows"]
    assert dense["paper"]["error"] == 0.5 and dense["layers"][0]["filters"] == 3
    assert small["layers"][0]["filters"] < 3  # the lasso has killed some
    assert small["layers"][0]["flops_percent"] < 70 and small["flops_percent"] < 100
    assert small["bytes"] < small["bytes_dense"] == dense["bytes"]
    assert small["max_abs_difference"] < 1e-4
    assert set(small["times"]) == set(small["speed_ups"]) == {"1", "64"}
    assert small["speed_ups"]["1"]["layers"]["conv1"] > 0
    before = small["layers_before_compaction"]
    assert [layer["name"] for layer in before] == ["conv1", "ip1"]
    assert before[0]["filters"] == small["layers"][0]["filters"]
    assert before[1]["flops_percent"] == 100 > small["layers"][1]["flops_percent"]
    assert json.loads((finished[0] / "out" / "result.json").read_text()) == result


def test_stages_of_ssl_follow_each_other(finished):
    folder, result = finished
    row = row_of(result)
    assert row["trainings"] == ["ssl", "ssl2", "finetune"]
    work = folder / "work" / f"seed{row['seed']}"
    marker = json.loads((work / "digits2-ssl2" / "stage.json").read_text())
    start = digest(work / "digits2-ssl" / "weights.caffemodel")
    assert marker["settings"]["initial weights"] == start
    lines = (work / "digits2-ssl2" / "log.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert row["error_after_ssl"] == pytest.approx(1 - last["test"]["accuracy"])


def test_the_run_in_the_middle_is_kept_of_two_the_worse(finished):
    for row in finished[1]["rows"]:
        assert [run["seed"] for run in row["runs"]] == [1, 2]
        errors = [run["error"] for run in row["runs"]]
        assert row["error"] == max(errors)
        assert row["spread"]["error"] == [min(errors), max(errors)]
        (kept,) = [run for run in row["runs"] if run["seed"] == row["seed"]]
        assert kept["error"] == row["error"] and kept["layers"] == row["layers"]
    folder, result = finished
    seed = row_of(result)["seed"]
    work = folder / "work" / f"seed{seed}" / "digits2-compact" / "net.caffemodel"
    assert work.read_bytes() == (folder / "out" / "digits2" / "net.caffemodel").read_bytes()


def test_what_is_kept_can_be_run_again(finished):
    out = finished[0] / "out"
    assert {path.name for path in (out / "baseline").iterdir()} == {
        "baseline_net.prototxt",
        "baseline_solver.prototxt",
        "baseline_log.jsonl",
        "weights.caffemodel",
    }
    assert {path.name for path in (out / "digits2").iterdir()} == {
        *(
            f"{stage}_{file}"
            for stage in ("ssl", "ssl2", "finetune")
            for file in ("net.prototxt", "solver.prototxt", "log.jsonl")
        ),
        "net.prototxt",
        "net.caffemodel",
    }
    solver = read_solver(out / "digits2" / "ssl_solver.prototxt")
    assert solver.net == "ssl_net.prototxt" and solver.block_group_decay == pytest.approx(0.2)
    assert solver.random_seed == row_of(finished[1])["seed"]


def test_a_second_start_repeats_nothing(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "again")
    (folder / "out").rename(folder / "elsewhere")
    listener = Listener()
    # the solvers are those of the first folder: their place does not matter
    again = Reproduction(
        experiment(finished[0]), folder / "out", folder / "work", (1, 2), "mnist-small", "numpy"
    )
    result = again.run("x", listener)
    assert {what for what, _ in listener.told} == {"skipped"}
    assert [row["runs"] for row in result["rows"]] == [row["runs"] for row in finished[1]["rows"]]


def test_seeds_trained_elsewhere_come_in_as_folders(finished, tmp_path):
    """Nothing in a work folder says where it was; the seeds of other machines are complete."""
    for seed in (1, 2):
        shutil.copytree(finished[0] / "work" / f"seed{seed}", tmp_path / "work" / f"seed{seed}")
    listener = Listener()
    result = recipe(tmp_path).run("", listener)
    assert {what for what, _ in listener.told} == {"skipped"}
    assert result["rows"] == finished[1]["rows"]


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "out" / "baseline").mkdir(parents=True)
    (tmp_path / "out" / "baseline" / "precious").touch()
    with pytest.raises(ConfigError, match="no results of an experiment; choose another"):
        recipe(tmp_path).run("x")
    assert (tmp_path / "out" / "baseline" / "precious").exists()


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_that_are_none(tmp_path, seeds):
    with pytest.raises(ConfigError, match="at least one seed"):
        recipe(tmp_path, seeds=seeds).run("x")


def test_speed_ups_are_ratios():
    times = {
        "1": {
            "dense": {"total_ms": 6.0, "layers": {"a": 4.0, "b": 2.0}, "products": {"a": 3.0}},
            "compacted": {"total_ms": 2.0, "layers": {"a": 1.0}, "products": {"a": 0.5}},
        }
    }
    ratios = {"all": 3.0, "layers": {"a": 4.0}, "products": {"a": 6.0}}
    assert speed_ups(times) == {"1": ratios}
    times["1"]["dense"]["fastest_ms"], times["1"]["compacted"]["fastest_ms"] = 3.0, 2.0
    assert speed_ups(times) == {"1": {**ratios, "fastest": 1.5}}


def test_kept_networks_are_timed_again(finished, tmp_path):
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    (tmp_path / "out" / "baseline" / "weights.caffemodel").unlink(missing_ok=True)
    told = []
    result = time_again(tmp_path / "out", "numpy", told.append)
    before, small = finished[1]["rows"][1], result["rows"][1]
    assert told == ["Digits 2: time ..."] and result["timed"]["backend"] == "numpy"
    assert small["times"] != before["times"] and small["speed_ups"] == speed_ups(small["times"])
    assert small["times"]["64"]["dense"]["fastest_ms"] > 0
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    for key in ("times", "speed_ups"):  # and nothing else has changed
        small[key] = before[key]
    del result["timed"]
    assert result == json.loads(json.dumps(finished[1]))
    with pytest.raises(ConfigError, match="is missing"):
        time_again(tmp_path, "numpy")


# --- checking a result ---


def test_a_result_says_what_its_weights_do(finished):
    for checked, row in zip(check(finished[0] / "out", "numpy"), finished[1]["rows"], strict=True):
        assert checked["ok"] and checked["wrong"] == []
        assert checked["error"] == pytest.approx(row["error"]) and checked["name"] == row["name"]


def test_a_large_dense_network_is_neither_kept_nor_tested(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "SMALL", 1000)
    folder = shutil.copytree(finished[0], tmp_path / "again")
    recipe(folder).run("x")
    assert not (folder / "out" / "baseline" / "weights.caffemodel").exists()
    first, second = check(folder / "out", "numpy")
    assert first["name"] == "Digits 1" and first["ok"] and "error" not in first
    assert "its runs only" in first["compared"] and second["error"] > 0
    path = folder / "out" / "result.json"
    result = json.loads(path.read_text())
    result["rows"][0]["spread"]["bytes"] = [1, 2]
    result["dense_flop"]["conv1"] = 1
    path.write_text(json.dumps(result))
    wrong = " ".join(check(folder / "out", "numpy")[0]["wrong"])
    assert "spread bytes 1 is" in wrong and "dense_flop conv1 is" in wrong


def test_another_data_set_is_tested_and_not_compared(finished):
    checked = check(finished[0] / "out", "numpy", "mnist-small/validation")[1]
    assert checked["ok"] and checked["data"] == "mnist-small/validation"
    assert checked["error"] != checked["recorded_error"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.update(error=row["error"] - 0.001), "the error is"),
        (lambda row: row.update(error=row["error"] - 0.001), "in the run of seed"),
        (lambda row: row.update(seed=3 - row["seed"]), "is the median, not"),
        (lambda row: row["speed_ups"]["1"].update(all=99.0), "speed_ups 1 all is"),
        (lambda row: row.update(max_abs_difference=0.5), "max_abs_difference is at most"),
        (lambda row: row.update(bytes_dense=1), "bytes_dense 1 is"),
        (lambda row: row["layers"][0].update(filters=1000), "conv1: filters is"),
        (lambda row: row["layers"][1].update(flops_percent=1.0), "ip1: flops_percent is"),
        (lambda row: row.update(flops_percent=1.0), "FLOP are"),
        (lambda row: row.update(bytes=1), "recorded are 1"),
        (lambda row: row["layers"].pop(), "others than recorded"),
    ],
)
def test_a_changed_figure_is_found(copied, change, said):
    path = copied / "result.json"
    result = json.loads(path.read_text())
    change(row_of(result))
    path.write_text(json.dumps(result))
    checked = check(copied, "numpy")[1]
    assert not checked["ok"] and any(said in sentence for sentence in checked["wrong"])


def test_changed_weights_are_found(copied):
    path = copied / "digits2" / "net.caffemodel"
    weights = read_weights(path)
    weights["ip1"][0] = np.roll(weights["ip1"][0], 1, axis=0)
    write_weights(path, weights, "Digits", {"conv1": "Convolution", "ip1": "InnerProduct"})
    checked = check(copied, "numpy")[1]
    assert any("the error is" in sentence for sentence in checked["wrong"])


def test_damaged_results(copied, tmp_path):
    with pytest.raises(ConfigError, match="is missing; run the experiment first"):
        check(tmp_path / "nowhere")
    without = json.loads((copied / "result.json").read_text())
    del row_of(without)["runs"][1]["bytes"]
    for text in (json.dumps(without), "", "[]", "{}", '{"experiment": "x", "rows": []}', "\0"):
        (copied / "result.json").write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            read_result(copied)


def test_missing_weights(copied):
    (copied / "digits2" / "net.caffemodel").unlink()
    with pytest.raises(WeightsError, match=r"net\.caffemodel"):
        check(copied, "numpy")
