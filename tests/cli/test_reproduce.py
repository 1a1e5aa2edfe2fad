import json

import pytest

from minissl.recipes.reproduce import Reproduction
from minissl.recipes.stages import Stopped
from tests.conftest import needs_compiler


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
    assert checked["ok"] and [row["name"] for row in checked["rows"]] == ["MLP 2", "MLP 3"]
    assert run(*arguments).stdout.count("as recorded") == 2
    result = json.loads((folder / "out" / "result.json").read_text())
    result["rows"][2]["layers"][0]["filters"] += 1
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (folder / "out").iterdir():
        if path.name != "result.json":
            (copy / path.name).symlink_to(path)
    (copy / "result.json").write_text(json.dumps(result))
    told = run("reproduce", "mlp", "--check", "--out", copy, code=1).stdout
    assert "MLP 3: " in told and "WRONG" in told and "ip1: filters is 500, recorded is 501" in told


@needs_compiler
def test_results_are_kept_with_an_index(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("reproduce", "mlp", "--fast", "--seeds", "1", "--data", "mnist-small")
    assert "(mlp/README.md)" in (tmp_path / "reference_results" / "README.md").read_text()
    assert (tmp_path / "runs" / "mlp" / "seed1" / "baseline" / "weights.caffemodel").is_file()
    run("reproduce", "mlp", "--check")


def test_bad_input_is_told_in_one_sentence(run, tmp_path):
    run("reproduce", "table3", code=2)
    for seeds in ("1,1", "a", "", "-1", "1,,2", str(2**31)):
        run("reproduce", "mlp", "--seeds", seeds, "--out", tmp_path, code=2)
    told = run("reproduce", "mlp", "--check", "--out", tmp_path, code=1).stderr
    assert "is missing; run the experiment first" in told


def test_a_signal_leaves_everything_saved(run, tmp_path, monkeypatch):
    def stopped(self, command, watcher):
        raise Stopped(143)

    monkeypatch.setattr(Reproduction, "run", stopped)
    told = run("reproduce", "mlp", "--out", tmp_path / "o", "--work", tmp_path / "w", code=143)
    assert f"everything is saved in {tmp_path / 'w'}; run the same command" in told.stderr
