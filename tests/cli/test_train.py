"""minissl train: the run folder, resuming, the options, what is shown, and how runs end."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minissl
from minissl.formats.prototxt import read_net, read_solver
from minissl.formats.safetensors_file import read_tensors
from minissl.formats.weights import read_weights, write_weights
from tests.tiny_nets import DIGITS

ROOT = Path(minissl.__file__).parents[1]


@pytest.fixture
def train(run, solver_file, tmp_path, monkeypatch):
    """Run ``minissl train`` on the tiny network in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, code=0):
        return run("train", "--solver", solver_file, "--backend", "numpy", *arguments, code=code)

    return call


def same_tensors(one, other):
    one, other = read_tensors(one)[0], read_tensors(other)[0]
    assert one.keys() == other.keys() and one
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_the_run_folder_holds_everything(train):
    train("--run", "r")
    folder = Path("r")
    assert {path.name for path in folder.iterdir()} == {
        "solver.prototxt", "net.prototxt", "run.json", "train.log", "log.jsonl",
        "digits_iter_2.safetensors", "digits_iter_4.safetensors", "digits_iter_4.caffemodel",
    }  # fmt: skip
    record = json.loads((folder / "run.json").read_text())
    assert record["backend"] == "numpy" and record["seed"] == 1 and record["threads"] == 1
    assert record["result"]["iterations"] == 4 and "numpy" in record["versions"]
    assert "cores" in record["machine"]
    final = read_weights(folder / "digits_iter_4.caffemodel")
    tensors = read_tensors(folder / "digits_iter_4.safetensors")[0]
    assert np.array_equal(final["conv1"][0], tensors["conv1.0"])


def test_the_log_has_caffes_lines_and_goes_to_standard_output(train):
    output = train("--run", "r").stdout
    log = Path("r/train.log").read_text()
    assert log in output
    assert re.search(r"Iteration 2.*, loss = \d", log) and "Iteration 2, lr = 0.01" in log
    assert "Element Sparsity %" in log and "Test net output #0: accuracy =" in log
    assert "Optimization Done." in log


def test_log_jsonl(train):
    train("--run", "r")
    records = [json.loads(line) for line in Path("r/log.jsonl").read_text().splitlines()]
    displays = [record for record in records if "loss" in record]
    assert [record["iteration"] for record in displays] == [0, 2]
    assert set(displays[0]) >= {"iteration", "loss", "regularization", "lr", "sparsity"}
    assert displays[0]["sparsity"]["conv1"]["blocks"] == {"25x1": 0.0}
    tests = [record for record in records if "test" in record]
    assert [record["iteration"] for record in tests] == [0, 2, 4]


def test_json(train):
    result = train("--run", "r", "--json")
    values = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1 and "Iteration 0" in result.stderr
    assert values["iterations"] == 4 and values["seconds"] > 0
    assert set(values["outputs"]) == {"accuracy", "loss"}
    assert Path(values["snapshot"]) == Path("r/digits_iter_4.safetensors")
    assert Path(values["weights"]).is_file()


def test_quiet_says_nothing(run, solver_file, tmp_path):
    result = run(
        "-q", "train", "--solver", solver_file, "--run", tmp_path / "r", "--backend", "numpy"
    )
    assert result.output == ""
    assert (tmp_path / "r/train.log").stat().st_size > 0


def test_the_effective_configuration_repeats_the_run(train, run):
    train(
        "--run", "a", "--max-iter", 3, "--set", "momentum=0.5", "--seed", 7, "--data", "mnist-small"
    )
    solver = read_solver("a/solver.prototxt")
    assert (solver.max_iter, solver.momentum, solver.random_seed) == (3, 0.5, 7)
    assert read_net("a/net.prototxt").layer[0].data_param.source == "mnist-small"
    run("train", "--solver", "a/solver.prototxt", "--run", "b", "--backend", "numpy")
    same_tensors("a/digits_iter_3.safetensors", "b/digits_iter_3.safetensors")


def test_seed_and_shuffle_change_the_run(train):
    for name, options in {"a": [], "b": ["--seed", 2], "c": ["--shuffle"]}.items():
        train("--run", name, *options)
    weights = [read_weights(f"{name}/digits_iter_4.caffemodel")["conv1"][0] for name in "abc"]
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_resuming_is_bitwise_equal_to_not_stopping(train):
    train("--run", "whole")
    train("--run", "parts", "--max-iter", 2)
    train("--run", "parts", "--resume", "last")
    same_tensors("whole/digits_iter_4.safetensors", "parts/digits_iter_4.safetensors")
    record = json.loads(Path("parts/run.json").read_text())
    assert record["resumed"].endswith("digits_iter_2.safetensors") and len(record["earlier"]) == 1


def test_what_is_run_again_is_logged_once(train):
    train("--run", "r")
    train("--run", "r", "--resume", "r/digits_iter_2.safetensors")
    lines = [json.loads(line) for line in Path("r/log.jsonl").read_text().splitlines()]
    shown = [line["iteration"] for line in lines if "loss" in line]
    assert shown == sorted(set(shown)) == [0, 2]


def test_a_snapshot_alone_is_continued_in_its_own_folder(train):
    train("--run", "r", "--max-iter", 2)
    train("--snapshot", "r/digits_iter_2.safetensors")
    assert Path("r/digits_iter_4.safetensors").is_file()


def test_starting_from_weights(train, weights_file, weights):
    train("--run", "r", "--weights", weights_file, "--set", "base_lr=0", "--no-zero-out")
    found = read_weights("r/digits_iter_4.caffemodel")
    assert np.array_equal(found["ip1"][0], weights["ip1"][0])


def test_layers_before_batch_norm_get_the_length_of_other_weights(train, net_file):
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "conv1" top: "conv1" }'
    relu = 'layer { name: "relu1"'
    net_file.write_text(DIGITS.replace(relu, f"{norm} {relu}"))
    train("--run", "long")
    like = "long/digits_iter_4.caffemodel"
    short = read_weights(like)
    short["conv1"][0][...] *= 0.01
    write_weights("short.npz", short)
    still = ("--set", "base_lr=0", "--no-zero-out", "--weights", "short.npz")
    train("--run", "r", *still, "--rescale-like", like)
    found = read_weights("r/digits_iter_4.caffemodel")
    assert found["conv1"][0] == pytest.approx(read_weights(like)["conv1"][0], rel=1e-4)
    assert np.array_equal(found["ip1"][0], short["ip1"][0])
    assert json.loads(Path("r/run.json").read_text())["rescaled_like"] == like


def test_a_net_without_batch_norm_has_nothing_to_rescale(train, weights_file, weights):
    told = train("--run", "r", "--weights", weights_file, "--rescale-like", weights_file)
    assert "--rescale-like changes nothing" in told.stderr


def test_original_zeroes_small_biases_too(train, tmp_path, weights):
    weights["ip1"][1][:] = 5e-5
    write_weights(tmp_path / "w.npz", weights)
    for name, options in {"new": [], "old": ["--original"]}.items():
        train("--run", name, "--weights", "w.npz", "--set", "base_lr=0", *options)
    assert read_weights("new/digits_iter_4.caffemodel")["ip1"][1].all()
    assert not read_weights("old/digits_iter_4.caffemodel")["ip1"][1].any()


def test_float64_is_kept_in_the_final_weights(train):
    train("--run", "r", "--dtype", "float64")
    assert read_weights("r/digits_iter_4.caffemodel")["conv1"][0].dtype == np.float64


def test_lint_warns_before_training(train):
    result = train("--run", "r", "--set", "block_group_decay=0")
    assert "warning: solver: block_group_decay is 0" in result.stderr
    assert "warning" not in train("--run", "q").stderr


def test_the_default_folder_is_named_after_the_solver(train):
    train("--max-iter", 1)
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits_solver-\d{8}-\d{6}", folder.name)


def test_nets_inside_the_solver_and_separate_test_nets(train, solver_file, net_file):
    text = solver_file.read_text().replace("net:", "train_net:") + 'test_net: "digits.prototxt"'
    solver_file.write_text(text)
    train("--run", "a")
    assert read_solver("a/solver.prototxt").test_net == ["a/test_net_0.prototxt"]
    solver_file.write_text(
        "net_param { "
        + net_file.read_text()
        + "}"
        + text.split("\n", 2)[2].replace('test_net: "digits.prototxt"', "")
    )
    net_file.unlink()
    train("--run", "b")
    same_tensors("a/digits_iter_4.safetensors", "b/digits_iter_4.safetensors")


# --- too large a decay ---

LETHAL = ("--max-iter", 20, "--set", "block_group_decay=50")


def test_a_lost_layer_ends_the_run_with_advice_and_a_snapshot(train):
    told = train("--run", "r", *LETHAL, code=1).stderr
    for words in ("iteration 10", "'conv1'", "block_group_decay 50", "halve it", "minissl lambda"):
        assert words in told
    assert "r/digits_iter_10.safetensors" in told
    assert Path("r/digits_iter_10.safetensors").is_file()
    record = json.loads(Path("r/run.json").read_text())
    assert "'conv1'" in record["error"] and record["collapse_check"]


def test_the_check_can_be_switched_off_before_or_after(train):
    train("--run", "whole", *LETHAL, "--no-collapse-check")
    assert not json.loads(Path("whole/run.json").read_text())["collapse_check"]
    train("--run", "parts", *LETHAL, code=1)
    train("--run", "parts", *LETHAL, "--resume", "last", "--no-collapse-check")
    same_tensors("whole/digits_iter_20.safetensors", "parts/digits_iter_20.safetensors")


def test_the_original_never_stopped(train):
    train("--run", "r", *LETHAL, "--original")
    assert Path("r/digits_iter_20.safetensors").is_file()


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--weights", "w.npz", "--resume", "x.safetensors"], "not both"),
        (["--resume", "last"], "--run"),
        (["--rescale-like", "w.npz"], "add --weights"),
        (["--original", "--no-zero-out"], "--original"),
        (["--max-iter", "0"], "max-iter"),
        (["--seed", "-1"], "seed"),
        (["--seed", "99999999999999999999"], "seed"),
        (["--max-iter", "2147483648"], "max-iter"),
    ],
)
def test_wrong_usage(train, arguments, said):
    assert said in train(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "base_rl=1"], "did you mean 'base_lr'"),
        (["--set", "base_lr=fast"], "expected a number"),
        (["--set", "type=Magic"], "unknown solver type 'Magic'"),
        (["--set", "snapshot=-1"], "snapshot is -1; use 0 or more"),
        (["--set", "test_iter=0"], "test_iter is 0; use 1 or more"),
        (["--set", "lr_policy=inv", "--set", "gamma=-1"], "gamma is -1; lr_policy 'inv' needs"),
        (["--weights", "absent.npz"], "absent.npz"),
        (["--resume", "absent.safetensors"], "absent.safetensors"),
        (["--resume", "last", "--run", "empty"], "no snapshot"),
        (["--run", "digits.prototxt/run"], "cannot be written"),
        (["--data", "cifar10"], "minissl data fetch cifar10"),
    ],
)
def test_what_fails_fails_before_training(train, arguments, said, monkeypatch, tmp_path):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    before = set(tmp_path.rglob("*"))
    result = train(*arguments, code=1)
    assert said in result.stderr and "Iteration 0" not in result.output
    assert set(tmp_path.rglob("*")) == before


def test_a_folder_with_a_run_is_not_overwritten(train):
    train("--run", "r")
    before = {path: path.read_bytes() for path in Path("r").iterdir()}
    assert "--resume last" in train("--run", "r", code=1).stderr
    assert before == {path: path.read_bytes() for path in Path("r").iterdir()}


def test_divergence_stops_the_run_and_is_recorded(train):
    result = train("--run", "r", "--set", "base_lr=1e30", code=1)
    assert "iteration" in result.stderr and "lower base_lr" in result.stderr
    assert "lower base_lr" in json.loads(Path("r/run.json").read_text())["error"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence(train):
    Path("r").mkdir()
    Path("r/train.log").symlink_to("/dev/full")
    assert "No space left on device" in train("--run", "r", code=1).stderr


# --- real processes ---


def start(folder, solver_file, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "minissl", "train", "--solver", solver_file, "--run", folder,
         "--backend", "numpy", "--max-iter", "1000000", "--set", "test_interval=1000000",
         *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_stop(solver_file, tmp_path, number, code):
    process = start(tmp_path / "r", solver_file, "--json", "--set", "snapshot=0")
    for line in process.stderr:
        if "Iteration 2," in line:
            process.send_signal(number)
            break
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    result = json.loads(output)
    assert result["iterations"] > 2 and Path(result["snapshot"]).is_file()
    assert result["snapshot"].endswith(f"_iter_{result['iterations']}.safetensors")


def on_terminal(columns, command, **variables):
    """Run a command on a terminal of a given width; return its exit code and what it showed."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", **variables}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "minissl", *map(str, command)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side has gone
            break
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(60), shown.decode()


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
@pytest.mark.parametrize("columns", [20, 80])
def test_on_a_terminal(solver_file, tmp_path, columns):
    command = ["train", "--solver", solver_file, "--run", tmp_path / "r", "--backend", "numpy"]
    code, shown = on_terminal(columns, command)
    assert code == 0 and "Traceback" not in shown
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n")
    assert "iteration 2: loss" in text and "4 iterations in" in text
    (row,) = {line for line in text.splitlines() if line.startswith("conv1")}
    assert row.split() == ["conv1", "3x25", "0", "0", "0", "0", "25x1:", "0.0"]
    assert columns == 20 or len(row) < 80
    assert "Element Sparsity" not in text  # Caffe's lines are in the log
    assert "Element Sparsity" in (tmp_path / "r/train.log").read_text()


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_no_color(solver_file, tmp_path):
    command = ["train", "--solver", solver_file, "--backend", "numpy", "--run"]
    colours = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38;[0-9;]*)m")
    assert colours.search(on_terminal(80, [*command, tmp_path / "a"])[1])
    assert not colours.search(on_terminal(80, [*command, tmp_path / "b"], NO_COLOR="1")[1])


def test_a_run_that_goes_on_otherwise_says_so(train):
    train("--run", "r")
    told = train("--run", "r", "--resume", "last", "--max-iter", "6").stderr
    assert "r goes on with other settings: max_iter was 4 and is 6 now" in told
    assert told.count("other settings") == 1
    more = ["--set", "block_group_decay=0.5", "--seed", "7", "--max-iter", "8"]
    told = train("--run", "r", "--resume", "last", *more).stderr
    assert "block_group_decay was 0.001" in told and "random_seed was 1 and is 7 now" in told
    assert "changes nothing" in told
    assert json.loads(Path("r/run.json").read_text())["seed"] == 1
    told = train("--run", "r", "--resume", "last", *more, "--data", "mnist-small/validation").stderr
    assert "mnist-small/validation now" in told and "max_iter was" not in told
    told = train("--run", "r", "--resume", "last", *more, "--shuffle", "--no-zero-out").stderr
    assert "shuffle was False and is True now" in told
    assert "zero_out was True and is False now" in told


def test_another_seed_changes_nothing_of_a_run_that_goes_on(train):
    for name, seed in {"a": 1, "b": 7}.items():
        train("--run", name, "--max-iter", 2)
        train("--run", name, "--resume", "last", "--seed", seed)
    same_tensors("a/digits_iter_4.safetensors", "b/digits_iter_4.safetensors")


def test_a_run_that_goes_on_counts_its_own_iterations(train):
    train("--run", "r", "--max-iter", 1)
    result = train("--run", "r", "--resume", "last")
    assert "3 iterations after 1 before in " in result.output
    found = json.loads(Path("r/run.json").read_text())["result"]
    assert (found["iterations"], found["began_at"]) == (4, 1)


def test_data_for_a_net_without_a_data_layer(train, net_file):
    text = net_file.read_text()
    layer = 'type: "MemoryData"'
    net_file.write_text(text.replace('type: "Data"', layer))
    assert "--data mnist-small is for Data layers" in train("--data", "mnist-small", code=2).stderr


def test_nothing_is_left_to_train(train):
    train("--run", "r")
    told = train("--run", "r", "--resume", "last", "--max-iter", "2").stderr
    assert "is of iteration 4, and max_iter is 2: nothing is left to train" in told


def test_the_result_says_when_it_was_tested(train):
    train("--run", "r")
    result = json.loads(Path("r/run.json").read_text())["result"]
    assert result["tested_after"] == result["iterations"] == 4
