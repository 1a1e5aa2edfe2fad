"""minissl lambda: the marks on the scale of a decay, and the search for one."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_train import on_terminal


def test_the_marks_are_shown(run, run_json, solver_file, weights_file):
    arguments = ["lambda", "--solver", solver_file, "--weights", weights_file, "--batches", 2]
    result = run_json(*arguments)
    (mark,), (tiling,) = result["decays"], result["tilings"]
    assert result["batches"] == 2 and mark["decay"] == "block_group_decay"
    assert (tiling["layer"], tiling["tile"], tiling["length"]) == ("conv1", "25x1", 25)
    shown = run(*arguments).stdout
    assert "mean of 2 batches" in shown and "block_group_decay" in shown and "25x1" in shown
    assert f"{mark['equal_to_loss']:.3g}" in shown


def test_the_solver_can_be_changed(run_json, solver_file):
    arguments = ["lambda", "--solver", solver_file, "--batches", 1]
    assert run_json(*arguments)["decays"][0]["equal_to_l2"] is None
    changed = run_json(*arguments, "--set", "weight_decay=0.01")["decays"][0]
    assert changed["equal_to_l2"] > 0


def test_bad_input_is_told_in_one_sentence(run, solver_file, tmp_path, net_file):
    run("lambda", "--solver", tmp_path / "none.prototxt", code=1)
    run("lambda", "--solver", solver_file, "--batches", 0, code=2)
    text = net_file.read_text().replace("block_group_lasso { xdimen: 25 ydimen: 1 }", "")
    net_file.write_text(text)
    told = run("lambda", "--solver", solver_file, code=1).stderr
    assert "asks for no group lasso" in told


# --- the search ---

#: conv1's three filters are nearly all FLOP of the net: 100, 67 and 33 % can be left
FIELDS = ("block_group_decay=0.5", "base_lr=0.1", "momentum=0", "group_lasso_method=proximal")
FIELDS = (*FIELDS, "max_iter=30", "lr_policy=step", "stepsize=20", "gamma=0.1")


@pytest.fixture
def search(solver_file, tmp_path):
    settings = [word for field in FIELDS for word in ("--set", field)]
    return [
        "lambda", "--solver", solver_file, "--data", "mnist-small/validation", "--iterations", 15,
        "--work", tmp_path / "work", "--backend", "numpy", *settings,
    ]  # fmt: skip


def test_a_search_prints_a_row_for_each_trial(run, search):
    shown = run(*search, "--target-flops", 0.667)
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0][:3] == ["block_group_decay", "FLOP", "%"]
    trials = [row for row in rows if row and re.fullmatch(r"[0-9.e-]+", row[0])]
    assert float(trials[0][0]) == 0.5 and len(trials) > 1
    (near,) = [row for row in trials if "near;" in row]
    assert "2/3" in near and near[1] == "66.7" and near == trials[-1]
    assert f"--set block_group_decay={near[0]}" in shown.stdout
    assert "15 of the solver's 30 iterations" in shown.stdout


def test_a_search_as_json(run_json, search):
    result = run_json(*search, "--target-flops", 0.667)
    assert result["reached"] and result["target"] == {"flops": 0.667}
    assert result["chosen"] == result["trials"][-1]
    fields = {
        "decays", "factor", "iterations", "seconds", "kept", "folder", "flops_percent",
        "grouped_flops_percent", "error", "groups", "layers", "lost", "verdict",
    }  # fmt: skip
    for record in result["trials"]:
        assert set(record) == fields
    assert result["chosen"]["groups"][0]["left"] == 2
    again = run_json(*search, "--target-flops", 0.667)
    assert [one["kept"] for one in again["trials"]] == [True] * len(result["trials"])
    error = run_json(*search, "--target-error", 0.95, "--trials", 3)
    assert error["chosen"]["error"] <= 0.95 and error["target"] == {"error": 0.95}


def test_a_target_that_is_not_reached_is_a_failure(run, run_json, search):
    told = run(*search, "--target-flops", 0.1, "--trials", 2, code=1)
    assert "nearest is block_group_decay" in told.stderr
    assert "FLOP %" in told.stdout  # the trials are shown all the same
    result = run_json(*search, "--target-flops", 0.1, "--trials", 2, code=1)
    assert not result["reached"] and result["chosen"] is None and result["nearest"]


def test_warnings_come_before_the_trials(run, search):
    search[search.index("mnist-small/validation")] = "mnist-small"
    shown = run(*search, "--target-flops", 0.667)
    assert "warning: the trials are tested on the test images of mnist-small" in shown.stderr
    quiet = run("-q", *search, "--target-flops", 0.667)
    assert quiet.stderr == "" and "66.7" in quiet.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-flops", 0.1, "--target-error", 0.1], "not both"),
        (["--target-flops", 5], "0<x<1"),
        (["--target-flops", 0], "0<x<1"),
        (["--target-error", 1], "0<=x<1"),
        (["--trials", 3], "--trials belongs to a search"),
        (["--iterations", 3], "--iterations belongs to a search"),
        (["--tolerance", 0.2], "--tolerance belongs to a search"),
        (["--work", "x"], "--work belongs to a search"),
    ],
)
def test_options_that_contradict_each_other(run, solver_file, arguments, said):
    assert said in run("lambda", "--solver", solver_file, *arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--iterations", 31], "a trial is to take 31"),
        (["--weights", "none.caffemodel"], "none.caffemodel"),
        (["--set", "test_iter=0"], "test_iter is 0; use 1 or more"),
    ],
)
def test_a_search_that_cannot_begin(run, search, arguments, said):
    assert said in run(*search, "--target-error", 0.1, *arguments, code=1).stderr


def test_the_search_takes_its_bar_away_again(search):
    code, shown = on_terminal(100, [*search, "--target-flops", 0.667])
    assert code == 0 and "Traceback" not in shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n")
    assert re.search(r"block_group_decay 0\.5 +━", text)  # a bar while the first trial trains
    assert "near; conv1 2/3" in text
    assert not any("━" in line for line in text.splitlines()[-2:])
