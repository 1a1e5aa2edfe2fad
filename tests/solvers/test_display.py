"""The log as the published tools read it, and ``log.jsonl`` as scripts read it."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest

from minissl.solvers.display import CaffeLog, JsonLines, Silent, Together
from tests.tiny_nets import make_solver, net_text, weights_of

FIELDS = """base_lr: 0.05 max_iter: 7 display: 2 test_interval: 3 test_iter: 2 average_loss: 3
    weight_decay: 0.01 block_group_decay: 0.1"""
NET = net_text(
    conv1="param { } param { }", ip1="param { block_group_lasso { xdimen: 4 ydimen: 2 } }"
)


class Recorder(Silent):
    """What a solver knows at each display, to compare the log with."""

    def __init__(self):
        self.losses, self.rates, self.regularization, self.smoothed = {}, {}, {}, {}

    def before_update(self, solver, rate):
        self.losses[solver.iteration] = solver.loss
        self.rates[solver.iteration] = rate
        self.smoothed[solver.iteration] = solver.smoothed_loss()
        self.regularization[solver.iteration] = solver.regularization()


@pytest.fixture
def run():
    """Train for seven iterations; return log lines, jsonl records, recorder and solver."""
    lines, file, recorder = [], io.StringIO(), Recorder()
    solver = make_solver(
        FIELDS,
        NET,
        backend="numpy",
        dtype="float64",
        reporter=Together(CaffeLog(lines.append), JsonLines(file), recorder),
    )
    solver.net.layer("ip1").parameters[0].data[:2] = 0
    solver.solve()
    records = [json.loads(line) for line in file.getvalue().splitlines()]
    return lines, records, recorder, solver


# --- Caffe's parse_log, its regular expressions written anew ---

ITERATION = re.compile(r"Iteration (\d+)")
TRAIN_OUTPUT = re.compile(r"Train net output #(\d+): (\S+) = ([.\deE+-]+)")
TEST_OUTPUT = re.compile(r"Test net output #(\d+): (\S+) = ([.\deE+-]+)")
LEARNING_RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")
#: glog's prefix, from which the seconds come
PREFIX = re.compile(r"^I\d{4} (\d\d):(\d\d):(\d\d\.\d{6}) ")


def parse_log(lines):
    """Read a log as Caffe's tool does: two lists of rows, for training and for testing."""
    train, test = [], []
    iteration, rate, first = -1, float("nan"), None
    for line in lines:
        found = ITERATION.search(line)
        if found:
            iteration = int(found[1])
        if iteration == -1:
            continue
        time = PREFIX.match(line)
        if time is None:
            continue  # values of a sparsity line
        seconds = 3600 * int(time[1]) + 60 * int(time[2]) + float(time[3])
        first = seconds if first is None else first
        found = LEARNING_RATE.search(line)
        if found:
            rate = float(found[1])
            train[-1]["LearningRate"] = rate
        for pattern, rows in ((TRAIN_OUTPUT, train), (TEST_OUTPUT, test)):
            found = pattern.search(line)
            if not found:
                continue
            if not rows or rows[-1]["NumIters"] != iteration:
                rows.append({"NumIters": iteration, "Seconds": seconds - first})
            rows[-1][found[2]] = float(found[3])
    return train, test


def test_parse_log_reads_it(run):
    lines, _, recorder, solver = run
    train, test = parse_log(lines)
    assert [row["NumIters"] for row in train] == [0, 2, 4, 6]
    assert [row["NumIters"] for row in test] == [0, 3, 6, 7]
    for row in train:
        i = row["NumIters"]
        assert row["loss"] == pytest.approx(recorder.losses[i], rel=1e-5)
        assert row["LearningRate"] == pytest.approx(recorder.rates[i], rel=1e-5)
        assert row["Seconds"] >= 0
    assert set(test[0]) == {"NumIters", "Seconds", "accuracy", "loss"}
    assert test[-1]["loss"] == pytest.approx(solver.last_test[0]["loss"], rel=1e-5)


def test_every_message_has_a_time_stamp(run):
    lines, *_ = run
    values = [line for line in lines if not PREFIX.match(line)]
    # four value lines for each of the four displays, nothing else
    assert len(values) == 16
    assert all("\n" not in line for line in lines)


def test_loss_lines(run):
    """The smoothed loss; from the second display on with the speed."""
    lines, _, recorder, _ = run
    found = [
        re.search(r"\] Iteration (\d+)( \(\S+ iter/s, \S+s/2 iters\))?, loss = (\S+)$", line)
        for line in lines
    ]
    found = [match for match in found if match]
    assert [int(match[1]) for match in found] == [0, 2, 4, 6]
    assert [match[2] is None for match in found] == [True, False, False, False]
    for match in found:
        assert match[3] == f"{recorder.smoothed[int(match[1])]:g}"


def test_output_lines_name_loss_weights(run):
    lines, _, recorder, _ = run
    loss = f"{recorder.losses[0]:g}"
    assert any(
        line.endswith(f"]     Train net output #0: loss = {loss} (* 1 = {loss} loss)")
        for line in lines
    )
    assert any(re.search(r"\]     Test net output #0: accuracy = [\d.]+$", line) for line in lines)


def test_regularization_line(run):
    """R of the weights before the update, and R plus the smoothed loss."""
    lines, _, recorder, _ = run
    found = [line.partition("] ")[2] for line in lines if "Total regularization" in line]
    expected = [
        f"    Total regularization terms: {recorder.regularization[i]:g} "
        f"loss+regular. : {recorder.regularization[i] + recorder.smoothed[i]:g}"
        for i in (0, 2, 4, 6)
    ]
    assert found == expected


def test_four_sparsity_lines(run):
    """Headers as the published program pads them; one value for each blob, ended by a tab."""
    lines, *_ = run
    start = next(i for i, line in enumerate(lines) if "Element Sparsity" in line)
    headers = [lines[i].partition("] ")[2] for i in range(start, start + 8, 2)]
    assert headers == [
        "    Element Sparsity %: ",
        "     Column Sparsity %: ",
        "        Row Sparsity %: ",
        "      Block Sparsity %: ",
    ]
    element, column, row, block = (lines[i].split("\t") for i in range(start + 1, start + 8, 2))
    third = f"{100 / 3:g}"
    # conv1, its bias, ip1 with 2 of 6 rows zero, its bias, ip2, its bias (zero at first)
    assert row == ["0", "0", third, "0", "0", "100", ""]
    assert element == ["0", "0", third, "0", "0", "100", ""]
    assert column == ["0", "0", "0", "0", "0", "100", ""]
    assert block == ["", "", f"(4,2):{third};", "", "", "", ""]


def test_order_within_an_iteration(run):
    lines, *_ = run
    words = ["Testing net", "Test net output", ", loss =", "Train net output", ", lr =",
             "Element", "Column", "Row", "Block", "Total regularization"]  # fmt: skip
    places = [next(i for i, line in enumerate(lines) if word in line) for word in words]
    assert places == sorted(places)


def test_end_of_the_log(run):
    lines, _, _, solver = run
    assert lines[-1].endswith("] Optimization Done.")
    solver.param.max_iter = 100
    lines.clear()
    solver.stop_requested = True
    solver.solve()
    assert lines[-1].endswith("] Optimization stopped early.")


def test_snapshot_line(tmp_path):
    lines = []
    make_solver(
        "max_iter: 1", backend="numpy", reporter=CaffeLog(lines.append), run=tmp_path
    ).solve()
    assert any(str(tmp_path / "Tiny_iter_1.safetensors") in line for line in lines)


# --- log.jsonl ---


def test_display_records(run):
    _, records, recorder, _ = run
    displays = [record for record in records if "loss" in record]
    assert [record["iteration"] for record in displays] == [0, 2, 4, 6]
    for record in displays:
        i = record["iteration"]
        assert record["loss"] == recorder.losses[i]
        assert record["regularization"] == recorder.regularization[i]
        assert record["lr"] == recorder.rates[i]
    sparsity = displays[0]["sparsity"]
    assert set(sparsity) == {"conv1", "ip1", "ip2"}
    assert sparsity["ip1"]["row"] == pytest.approx(100 / 3)
    assert sparsity["ip1"]["blocks"] == {"4x2": pytest.approx(100 / 3)}
    assert set(sparsity["ip1"]) >= {"element", "row", "column", "blocks", "filter", "channel"}


def test_test_records(run):
    _, records, _, solver = run
    tests = [record for record in records if "test" in record]
    assert [record["iteration"] for record in tests] == [0, 3, 6, 7]
    assert all(set(record["test"]) == {"accuracy", "loss"} for record in tests)
    assert tests[-1]["test"] == solver.last_test[0]
    assert all("net" not in record for record in tests)


def test_several_test_nets_are_numbered():
    file = io.StringIO()
    make_solver(
        "max_iter: 1 test_interval: 1 test_iter: 1 test_iter: 2",
        backend="numpy",
        reporter=JsonLines(file),
    ).solve()
    records = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [record["net"] for record in records] == [0, 1, 0, 1]


def test_every_line_is_flushed():
    """Whoever follows the file sees a record as soon as it is there."""

    class File(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed = self.getvalue().count("\n")

    file = File()
    make_solver("display: 1", backend="numpy", reporter=JsonLines(file)).solve(3)
    assert file.flushed == 3


def test_reporting_changes_nothing(run):
    *_, solver = run
    quiet = make_solver(FIELDS, NET, backend="numpy", dtype="float64")
    quiet.net.layer("ip1").parameters[0].data[:2] = 0
    quiet.solve()
    for name, values in weights_of(quiet).items():
        np.testing.assert_array_equal(values, weights_of(solver)[name])
