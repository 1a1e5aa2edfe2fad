import json

import numpy as np
import pytest

from minissl.errors import ConfigError, WeightsError
from minissl.formats.safetensors_file import write_tensors
from minissl.report.runs import read_run
from tests.report.runs import a_test, display, make_run


def test_a_run_is_read(tmp_path):
    run = read_run(make_run(tmp_path / "ssl"))
    assert run.name == "ssl"
    assert [line["iteration"] for line in run.displays] == [0, 5]
    assert [line["iteration"] for line in run.tests] == [0, 10]
    assert run.last_iteration == 10
    assert list(run.settings) == ["solver.prototxt", "net.prototxt"]
    assert {name: matrix.shape for name, matrix in run.matrices().items()} == {
        "conv1": (4, 9),
        "ip1": (5, 36),
    }


def test_without_final_weights_the_newest_snapshot_serves(tmp_path):
    folder = make_run(tmp_path / "run", weights=False)
    assert read_run(folder).weights() == {}
    for iteration in (5, 10):
        tensors = {
            "ip1.0": np.full((2, 3), iteration, np.float32),
            "solver/history/ip1.0.0": np.ones((2, 3), np.float32),
        }
        write_tensors(folder / f"net_iter_{iteration}.safetensors", tensors)
    weights = read_run(folder).weights()
    assert list(weights) == ["ip1"] and weights["ip1"][0][0, 0] == 10


def test_damaged_weights_are_named(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "weights.caffemodel").write_bytes(b"\xff\xff\xff")
    with pytest.raises(WeightsError):
        read_run(folder).weights()


def test_half_a_line_at_the_end_is_forgiven_and_nowhere_else(tmp_path):
    folder = make_run(tmp_path / "run")
    log = folder / "log.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"iteration": 6, "lo')
    assert read_run(folder).last_iteration == 10
    log.write_text('{"iteration": 6, "lo\n' + whole)
    with pytest.raises(ConfigError, match=r"log\.jsonl:1: this is no line of a training log"):
        read_run(folder)


@pytest.mark.parametrize(
    "line", ["[]", "3", '{"loss": 1}', '{"iteration": "a", "loss": 1}', '{"iteration": 1}',
             '{"iteration": 1, "loss": "x"}', '{"iteration": 1, "test": 3}']
)  # fmt: skip
def test_lines_of_another_kind_are_refused(tmp_path, line):
    folder = make_run(tmp_path / "run")
    log = folder / "log.jsonl"
    log.write_text(line + "\n" + log.read_text())
    with pytest.raises(ConfigError, match="no line of a training log"):
        read_run(folder)


def test_of_several_test_nets_the_first_is_taken(tmp_path):
    lines = [display(0), {**a_test(0, 0.5), "net": 0}, {**a_test(0, 0.25), "net": 1}]
    run = read_run(make_run(tmp_path / "run", lines))
    assert [line["test"]["accuracy"] for line in run.tests] == [0.5]


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ConfigError, match="name the folder of a training run"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="name the folder of a training run"):
        read_run(tmp_path / "missing")
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not text"):
        read_run(tmp_path)
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"log\.jsonl is empty"):
        read_run(tmp_path)


def test_not_a_number_is_a_loss(tmp_path):
    lines = [display(0, float("nan")), display(1)]
    assert "NaN" in json.dumps(lines[0])
    assert np.isnan(read_run(make_run(tmp_path / "run", lines)).displays[0]["loss"])
