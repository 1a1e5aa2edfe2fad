import json
import shutil
import sys
from pathlib import Path

import pytest

from minissl import models
from minissl.recipes.experiments import NAMES
from minissl.recipes.paper_speeds import TABLE_4
from minissl.recipes.reproduce import Reproduction
from minissl.recipes.speed_experiments import NAMES as MEASURED
from minissl.recipes.stages import Stopped
from tests.conftest import needs_compiler
from tests.recipes.speed_cases import RANDOM, SSL, TEXT, write_set
from tests.recipes.test_reproduce import experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fast run of the MLP's experiment; not to be changed."""
    from click.testing import CliRunner

    from minissl.cli import main

    folder = tmp_path_factory.mktemp("mlp")
    arguments = ["reproduce", "mlp", "--fast", "--seeds", "3", "--data", "mnist-small"]
    arguments += ["--out", str(folder / "out"), "--work", str(folder / "work"), "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (folder / "stdout.json").write_text(done.stdout)
    return folder


@needs_compiler
def test_the_result_is_printed_and_written(folder):
    printed = json.loads((folder / "stdout.json").read_text())
    assert printed == json.loads((folder / "out" / "result.json").read_text())
    assert [row["name"] for row in printed["rows"]] == ["MLP 1", "MLP 2", "MLP 3"]
    assert printed["fast"] and printed["seeds"] == [3]
    assert printed["rows"][1]["paper"]["layers"][0]["columns"] == 469
    assert (folder / "out" / "pictures" / "inputs.svg").is_file()
    assert "mean nothing" in (folder / "out" / "README.md").read_text()


@needs_compiler
def test_a_result_can_be_checked(folder, run, run_json, tmp_path):
    arguments = ["reproduce", "mlp", "--check", "--out", folder / "out"]
    checked = run_json(*arguments)
    assert checked["ok"]
    assert [row["name"] for row in checked["rows"]] == ["MLP 1", "MLP 2", "MLP 3"]
    told = run(*arguments).stdout
    assert told.count("as recorded") == 3
    assert "MLP 1: its runs only, for its weights are not kept: as recorded" in told
    result = json.loads((folder / "out" / "result.json").read_text())
    result["rows"][2]["layers"][0]["filters"] += 1
    result["rows"][1]["speed_ups"]["64"]["all"] *= 2
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (folder / "out").iterdir():
        if path.name != "result.json":
            (copy / path.name).symlink_to(path)
    (copy / "result.json").write_text(json.dumps(result))
    told = run("reproduce", "mlp", "--check", "--out", copy, code=1).stdout
    assert "MLP 3: " in told and "WRONG" in told and "ip1: filters is 500, recorded is 501" in told
    assert "speed_ups 64 all is" in told and told.count("WRONG") == 2


@needs_compiler
def test_a_check_says_what_it_compares(folder, run):
    told = run("reproduce", "table1", "--check", "--out", folder / "out", code=1).stderr
    assert "holds a result of mlp, not of table1" in told
    told = run(
        "reproduce", "mlp", "--check", "--out", folder / "out", "--data", "mnist-small"
    ).stdout
    assert told.count("the rest as recorded") == 2


@needs_compiler
def test_trials_stay_away_from_results(run, tmp_path, monkeypatch):
    """Neither results nor trainings of a whole run are written over."""
    monkeypatch.chdir(tmp_path)
    run("reproduce", "mlp", "--fast", "--seeds", "1", "--data", "mnist-small")
    assert not (tmp_path / "reference_results").exists()
    work = tmp_path / "runs" / "mlp-fast-mnist-small-work"
    assert (work / "seed1" / "baseline" / "weights.caffemodel").is_file()
    results = work.parent / "mlp-fast-mnist-small-results"
    run("reproduce", "mlp", "--check", "--out", results)
    results.rename(tmp_path / "mlp")
    (tmp_path / "reference_results").mkdir()
    (tmp_path / "mlp").rename(tmp_path / "reference_results" / "mlp")
    run("reproduce", "mlp", "--check")


def test_whole_runs_are_kept_with_an_index(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = json.loads((folder / "out" / "result.json").read_text())
    monkeypatch.setattr("minissl.recipes.reproduce.Reproduction.run", lambda *_: result)

    def write(result, work, out):
        assert work == Path("runs/mlp")
        shutil.copytree(folder / "out", out)

    monkeypatch.setattr("minissl.report.reproduce.write", write)
    run("reproduce", "mlp")
    assert "(mlp/README.md)" in (tmp_path / "reference_results" / "README.md").read_text()


@pytest.mark.parametrize("name", [*NAMES, *MEASURED])
def test_an_experiment_s_file_is_shown(run, name):
    shown = run("reproduce", name, "--show").stdout
    assert shown == models.path(f"{name}.toml").read_text()


@pytest.mark.parametrize("option", ["--check", "--time", "--json"])
def test_to_show_a_file_excludes_the_rest(run, option):
    told = run("reproduce", "table1", option, "--show", code=2)
    assert "leave out --check, --time and --json" in told.stderr and told.stdout == ""


def test_an_experiment_of_one_s_own(run, tmp_path, monkeypatch):
    experiment(tmp_path, fast=True)
    monkeypatch.chdir(tmp_path)
    options = ["--seeds", "1", "--data", "mnist-small", "--backend", "numpy"]
    told = run("reproduce", "digits.toml", "--fast", *options)
    assert "runs/digits-fast-mnist-small-results/result.json" in told.stdout
    assert "seed 1, Digits 2: finetune ..." in told.stderr
    results = tmp_path / "runs" / "digits-fast-mnist-small-results"
    work = tmp_path / "runs" / "digits-fast-mnist-small-work"
    assert (work / "seed1" / "digits2-ssl").is_dir()
    assert not (tmp_path / "reference_results").exists()
    assert (results / "experiment.toml").read_text() == (tmp_path / "digits.toml").read_text()
    results.rename(results.with_name("digits-results"))
    assert "as recorded" in run("reproduce", "digits.toml", "--check", "--backend", "numpy").stdout
    results = results.with_name("digits-results")
    # what its README says
    monkeypatch.chdir(results)
    arguments = ["experiment.toml", "--check", "--out", ".", "--backend", "numpy"]
    assert "as recorded" in run("reproduce", *arguments).stdout
    assert "`minissl reproduce experiment.toml --check --out .`" in Path("README.md").read_text()
    arguments[1] = "--time"
    run("reproduce", *arguments)
    told = Path("README.md").read_text()
    assert "by `minissl reproduce experiment.toml --time --out .`" in told
    assert "reproduce digits --" not in told


def test_a_changed_experiment_repeats_what_has_changed(run, tmp_path, monkeypatch):
    experiment(tmp_path, fast=True)
    monkeypatch.chdir(tmp_path)
    options = ["--fast", "--seeds", "1", "--data", "mnist-small", "--backend", "numpy"]
    run("reproduce", "digits.toml", *options)
    file = tmp_path / "digits.toml"
    file.write_text(file.read_text().replace('finetune = "ft.', 'finetune = "ssl2.'))
    told = run("reproduce", "digits.toml", *options).stderr
    assert "Digits 2: ssl: complete already" in told
    assert "Digits 2: finetune: starts anew, since this has changed: solver and net" in told


def test_side_by_side(run, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    experiment(tmp_path, fast=True)
    monkeypatch.chdir(tmp_path)
    options = ["--fast", "--seeds", "1,2", "--data", "mnist-small", "--backend", "numpy"]
    told = run("reproduce", "digits.toml", *options, "--parallel", "2", "--json")
    result = json.loads(told.stdout)
    assert [len(row["runs"]) for row in result["rows"]] == [2, 2]
    for seed in (1, 2):
        assert f"seed {seed}, Digits 2: finetune ..." in told.stderr
        assert f"seed {seed}, Digits 2: measure: " in told.stderr


def test_side_by_side_needs_dask(run, tmp_path, monkeypatch):
    experiment(tmp_path, fast=True)
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.chdir(tmp_path)
    for option in ("--parallel", "2"), ("--scheduler", "tcp://1"):
        told = run("reproduce", "digits.toml", *option, "--backend", "numpy", code=1).stderr
        assert "pip install 'minissl[parallel]'" in told


def test_bad_input_is_told_in_one_sentence(run, tmp_path):
    told = run("reproduce", "table9", code=2).stderr
    assert (
        "'table9' is no experiment; use table1, table2, table3, mlp, depth, channels, variants, "
        "table4, " in told
    )
    assert (
        "exclude" in run("reproduce", "mlp", "--parallel", "2", "--scheduler", "x", code=2).stderr
    )
    run("reproduce", "mlp", "--parallel", "0", code=2)
    told = run("reproduce", tmp_path / "nowhere.toml", code=1).stderr
    assert "There is no experiment file" in told
    (tmp_path / "bad.toml").write_text('title = "x"\nlayers = [\n')
    assert "is not TOML: " in run("reproduce", tmp_path / "bad.toml", code=1).stderr
    for seeds in ("1,1", "a", "", "-1", "1,,2", str(2**31)):
        run("reproduce", "mlp", "--seeds", seeds, "--out", tmp_path, code=2)
    told = run("reproduce", "mlp", "--check", "--out", tmp_path, code=1).stderr
    assert "is missing; run the experiment first" in told
    assert "exclude" in run("reproduce", "mlp", "--check", "--time", code=2).stderr
    told = run("reproduce", "mlp", "--time", "--out", tmp_path, code=1).stderr
    assert "is missing; run the experiment first" in told


def test_a_signal_leaves_everything_saved(run, tmp_path, monkeypatch):
    def stopped(self, command, watcher, workers):
        raise Stopped(143)

    monkeypatch.setattr(Reproduction, "run", stopped)
    told = run("reproduce", "mlp", "--out", tmp_path / "o", "--work", tmp_path / "w", code=143)
    assert f"everything is saved in {tmp_path / 'w'}; run the same command" in told.stderr


@needs_compiler
def test_speed_ups_are_measured_and_checked(run, run_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINISSL_MATRICES", raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    write_set(tmp_path / "published" / "lenet" / "a")
    paper = 'paper = "table4/AlexNet 1"\n'
    (tmp_path / "mine.toml").write_text(TEXT + SSL + paper + RANDOM)
    arguments = ["reproduce", "mine.toml", "--fast", "--matrices", "published"]
    told = run(*arguments)
    assert "runs/mine-fast-results/result.json" in told.stdout and "x layer" in told.stdout
    assert "OPENBLAS_CORETYPE=Haswell is set" in told.stderr
    assert "packed: batch 1, 1 thread" in told.stderr
    folder = tmp_path / "runs" / "mine-fast-results"
    assert (folder / "pictures" / "by-layer.svg").is_file()
    assert "OPENBLAS_CORETYPE=Haswell was set" in (folder / "README.md").read_text()
    result = run_json(*arguments)
    assert result == json.loads((folder / "result.json").read_text())
    assert result["rows"][0]["paper"] == json.loads(json.dumps(TABLE_4[0]))
    arguments = ["reproduce", "mine.toml", "--check", "--out", folder]
    assert "ratios only" in run(*arguments).stdout
    monkeypatch.setenv("MINISSL_MATRICES", "published")
    assert "digests of the matrices: as recorded" in run(*arguments).stdout
    result["rows"][1]["runs"][0]["mean_speed_up"] *= 2
    (folder / "result.json").write_text(json.dumps(result))
    told = run(*arguments, code=1).stdout
    assert "single zeros: ratios and zeros: WRONG" in told and "mean_speed_up is" in told
    assert run_json(*arguments, code=1)["ok"] is False


def test_matrices_must_be_named(run, tmp_path, monkeypatch):
    monkeypatch.delenv("MINISSL_MATRICES", raising=False)
    monkeypatch.chdir(tmp_path)
    told = run("reproduce", "table4", code=1).stderr
    assert "--matrices or MINISSL_MATRICES" in told and "wenwei202/caffe" in told
    told = run("reproduce", "fig8", "--matrices", tmp_path, code=1).stderr
    assert "holds no matrix of conv1, conv2, conv3, conv4, conv5" in told
    assert not (tmp_path / "reference_results").exists()


def test_options_of_the_other_kind_are_refused(run, tmp_path):
    for option in ("--seeds=1", "--data=mnist", "--parallel=2", "--work=w", "--no-collapse-check"):
        assert "is for an experiment that trains" in run("reproduce", "fig1", option, code=2).stderr
    told = run("reproduce", "mlp", "--matrices", tmp_path, code=2).stderr
    assert "is for an experiment that measures speed-ups; leave it out for mlp" in told
    told = run("reproduce", "mlp", "--check", "--seeds=1", code=2).stderr
    assert "--seeds is for a run that trains or measures; leave it out for --check" in told
    told = run("reproduce", "mlp", "--time", "--data=mnist", code=2).stderr
    assert "--data is for a run that trains; leave it out for --time" in told
