import json
import os
import signal

import pytest

from minissl.recipes.demo import Demo
from minissl.recipes.stages import Stopped, Watcher
from minissl.solvers.display import Silent
from tests.conftest import needs_compiler
from tests.report.test_page import assert_self_contained

pytestmark = needs_compiler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A demo that only shows that everything works."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    Demo(out, fast=True).run()
    return out


def test_json_has_the_promised_fields(folder, run_json):
    result = run_json("demo", "--fast", "--out", folder)
    names = [row["name"] for row in result["rows"]]
    assert names == ["dense", "after SSL", "fine-tuned", "compacted"]
    for row in result["rows"]:
        assert 0 <= row["error"] <= 1
        assert [layer["name"] for layer in row["layers"]] == ["conv1", "conv2", "ip1", "ip2"]
        for layer in row["layers"]:
            fields = {"name", "filters", "channels", "columns", "flops_percent"}
            assert set(layer) == fields and 0 <= layer["flops_percent"] <= 100
    assert result["rows"][0]["paper"]["name"] == "LeNet 1"
    assert [row["name"] for row in result["paper"]] == ["LeNet 1", "LeNet 2", "LeNet 3"]
    assert set(result["times"]) == {"1", "64"}
    assert result["times"]["64"]["compacted"]["layers"]["conv2"] > 0
    assert result["rows"][2]["error"] == result["rows"][3]["error"]


def test_a_second_start_repeats_nothing(folder, run):
    before = (folder / "ssl" / "weights.caffemodel").stat().st_mtime_ns
    told = run("demo", "--fast", "--out", folder).stderr
    assert told.count("complete already") == 5
    assert (folder / "ssl" / "weights.caffemodel").stat().st_mtime_ns == before


def test_it_prints_the_table_and_where_things_are(folder, run):
    shown = run("demo", "--fast", "--out", folder).stdout
    for text in ("dense", "after SSL", "compacted", "paper's LeNet 2", "25-7.6", "full MNIST"):
        assert text in shown
    assert str(folder / "report.html") in shown
    names = {path.stem for path in (folder / "pictures").iterdir()}
    assert names == {
        "filters", "zero-maps", "loss", "sparsity", "test-error", "time-batch-1", "time-batch-64",
    }  # fmt: skip


def test_the_report_is_one_page(folder, run):
    run("report", folder)
    reader = assert_self_contained((folder / "report.html").read_text())
    assert [tag for tag, _ in reader.tags].count("img") == 7
    assert "random_seed: 1" in reader.text and "block_group_lasso" in reader.text
    assert "numba" in reader.text and "paper's LeNet 3" in reader.text


def test_the_small_network_can_be_tested_by_itself(folder, run_json):
    model, weights = folder / "compact" / "net.prototxt", folder / "compact" / "net.caffemodel"
    result = run_json("test", "--model", model, "--weights", weights, "--iterations", 10)
    rows = json.loads((folder / "result.json").read_text())["rows"]
    assert 1 - result["outputs"]["accuracy"] == pytest.approx(rows[-1]["error"])


def test_ctrl_c_saves_and_the_next_start_goes_on(tmp_path, run, monkeypatch):
    class Stopper(Watcher):
        def reporter(self, stage):
            class Reporter(Silent):
                def after_update(self, solver):
                    if solver.iteration == 4:
                        os.kill(os.getpid(), signal.SIGINT)

            return Reporter()

    original = Demo.run
    monkeypatch.setattr(Demo, "run", lambda self, watcher: original(self, Stopper()))
    told = run("demo", "--fast", "--out", tmp_path / "demo", code=130).stderr
    assert "run the same command to go on" in told
    assert (tmp_path / "demo" / "baseline" / "lenet_iter_4.safetensors").exists()
    with pytest.raises(Stopped):
        Demo(tmp_path / "demo", fast=True).run(Stopper())  # baseline goes on, ssl is stopped
    assert (tmp_path / "demo" / "baseline" / "weights.caffemodel").exists()


def test_bad_input_is_told_in_one_sentence(tmp_path, run):
    (tmp_path / "file").touch()
    assert "Cannot make the folder" in run("demo", "--out", tmp_path / "file", code=1).stderr
    (tmp_path / "mine" / "baseline").mkdir(parents=True)
    (tmp_path / "mine" / "baseline" / "precious").touch()
    told = run("demo", "--out", tmp_path / "mine", code=1).stderr
    assert "choose another folder" in told
    assert (tmp_path / "mine" / "baseline" / "precious").exists()
    run("demo", "--seed", -1, code=2)
    (tmp_path / "bad").mkdir()
    run("demo", "--out", tmp_path / "bad", "--threads", 999, code=1)


def test_help_has_an_example(run):
    assert "minissl demo --out runs/seed2 --seed 2" in run("demo", "--help").stdout


def test_the_folder_of_a_training_run_is_refused(run, tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    told = run("demo", "--fast", "--out", tmp_path, code=1).stderr
    assert "holds a training run; choose another with --out" in told
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
