"""The run folder: which snapshot is the newest, and what is refused."""

from __future__ import annotations

import json

import pytest

from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_solver, read_net, read_solver
from minissl.solvers import run_folder
from tests.tiny_nets import DIGITS


def test_the_newest_snapshot_has_the_highest_iteration(tmp_path):
    assert run_folder.newest_snapshot(tmp_path) is None
    assert run_folder.newest_snapshot(tmp_path / "absent") is None
    for name in ("a_iter_100", "a_iter_20", "b_iter_9"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "a_iter_500.caffemodel").touch()
    assert run_folder.newest_snapshot(tmp_path) == tmp_path / "a_iter_100.safetensors"


def test_a_new_folder_is_made_and_one_with_a_run_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    run_folder.prepare(folder, resuming=False)
    assert list(folder.iterdir()) == []
    run_folder.prepare(folder, resuming=False)
    run_folder.write_record(folder, {})
    with pytest.raises(ConfigError, match="already holds a run"):
        run_folder.prepare(folder, resuming=False)
    run_folder.prepare(folder, resuming=True)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        run_folder.prepare(tmp_path / "file" / "run", resuming=False)


def test_records_of_earlier_runs_are_kept_in_order(tmp_path):
    for number in range(3):
        earlier = run_folder.earlier_records(tmp_path)
        run_folder.write_record(tmp_path, {"number": number, "earlier": earlier})
    assert [record["number"] for record in run_folder.earlier_records(tmp_path)] == [0, 1, 2]
    (tmp_path / "run.json").write_text("{ not json")
    assert run_folder.earlier_records(tmp_path) == []


def test_configuration_survives_the_move_of_its_folder(tmp_path):
    (tmp_path / "d.prototxt").write_text(DIGITS)
    solver = parse_solver('net: "d.prototxt" test_net: "d.prototxt" test_iter: 1 test_interval: 1')
    whole = run_folder.inline_nets(solver, tmp_path / "s.prototxt", data="mnist")
    assert whole.net_param.layer[0].data_param.source == "mnist"
    assert whole.test_net_param[0].layer[0].data_param.source == "mnist"
    (tmp_path / "a").mkdir()
    run_folder.write_configuration(tmp_path / "a", whole)
    (tmp_path / "a").rename(tmp_path / "b")
    again = run_folder.inline_nets(read_solver(tmp_path / "b/solver.prototxt"), tmp_path / "b/x")
    assert again == whole
    assert read_net(tmp_path / "b/net.prototxt") == whole.net_param


def test_inlining_leaves_the_solver_alone(tmp_path):
    (tmp_path / "d.prototxt").write_text(DIGITS)
    solver = parse_solver('train_net: "d.prototxt" base_lr: 0.5')
    whole = run_folder.inline_nets(solver, tmp_path / "s.prototxt")
    assert whole.train_net_param.name == "Digits" and not whole.HasField("train_net")
    assert solver.train_net == "d.prototxt" and not solver.HasField("train_net_param")
    assert whole.train_net_param.layer[0].data_param.source == "mnist-small"


@pytest.mark.parametrize("program", ["/x/minissl/__main__.py", "cli.py", "/usr/bin/minissl"])
def test_commands_are_written_as_they_are_typed(program):
    line = run_folder.command_line([program, "train", "--run", "a b"])
    assert line == "minissl train --run 'a b'"
    assert json.dumps(line)


def test_a_log_is_cut_where_training_goes_on(tmp_path):
    run_folder.cut_log(tmp_path, 5)  # there is none
    log = tmp_path / run_folder.LOG
    lines = [json.dumps({"iteration": i, "loss": 1.0}) for i in (0, 3, 5, 6)]
    log.write_text("\n".join([*lines, '{"iterati']))
    run_folder.cut_log(tmp_path, 5)
    assert log.read_text().splitlines() == lines[:2]


def test_a_run_without_a_snapshot_cannot_be_gone_on_with(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="or remove it: it stopped before its first snapshot"):
        run_folder.prepare(tmp_path, resuming=False)


def test_weights_of_every_kind_of_snapshot_are_found(tmp_path):
    for name in ("a_iter_2.safetensors", "a_iter_4.solverstate", "a_iter_4.caffemodel",
                 "a_iter_6.solverstate.h5", "a_iter_6.caffemodel.h5"):  # fmt: skip
        (tmp_path / name).touch()
        if "solverstate" not in name:
            assert run_folder.newest_weights(tmp_path).name == name
    assert run_folder.newest_snapshot(tmp_path).name == "a_iter_6.solverstate.h5"
