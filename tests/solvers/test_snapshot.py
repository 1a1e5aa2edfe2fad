"""n iterations, a snapshot and n more are bitwise 2n iterations; damaged files are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minissl import Solver
from minissl.errors import MinisslError, WeightsError
from minissl.formats.safetensors_file import read_tensors, write_tensors
from minissl.solvers.display import JsonLines
from tests.tiny_nets import (
    DIGITS,
    give_arrays,
    make_solver,
    net_text,
    same_weights,
    solver_param,
    weights_of,
)

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 12

MULTISTEP = """lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 3 stepvalue: 8
    weight_decay: 0.01 block_group_decay: 0.05 average_loss: 4 display: 1 max_iter: 12
    test_iter: 2 test_interval: 3 iter_size: 2 """

RULES = {
    "SGD": 'type: "SGD" momentum: 0.9',
    "Nesterov": 'type: "Nesterov" momentum: 0.9',
    "Adam": 'type: "Adam" momentum: 0.9 base_lr: 0.01 momentum2: 0.99',
    "AdaGrad": 'type: "AdaGrad" base_lr: 0.01',
    "RMSProp": 'type: "RMSProp" base_lr: 0.001 rms_decay: 0.9',
    "AdaDelta": 'type: "AdaDelta" base_lr: 1 momentum: 0.95 delta: 1e-6',
}


class Log(list):
    """A file of log lines, without the times."""

    def write(self, text):
        record = json.loads(text)
        record.pop("seconds", None)
        self.append(record)

    def flush(self):
        pass


def digits_solver(fields, log, **options):
    """Dropout, shuffled digits, several reports; read in another order in each epoch."""
    return Solver(
        solver_param(MULTISTEP + fields, DIGITS),
        data={"shuffle": True},
        reporter=JsonLines(log),
        **options,
    )


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_resume_at_every_iteration(kind, backend, tmp_path):
    log = Log()
    straight = digits_solver(RULES[kind], log, backend=backend, run=tmp_path)
    straight.param.snapshot = 1
    straight.solve()
    digests = weights_of(straight)
    assert straight.iteration == LENGTH and len(log) == LENGTH + 5  # tests at 0, 3, 6, 9, 12
    for start in range(1, LENGTH):
        resumed_log = Log()
        path = tmp_path / f"Digits_iter_{start}.safetensors"
        resumed = digits_solver(RULES[kind], resumed_log, backend=backend, resume=path)
        assert resumed.iteration == start
        resumed.solve()
        for name, values in weights_of(resumed).items():
            np.testing.assert_array_equal(values, digests[name], err_msg=f"from {start}, {name}")
        for one, other in zip(resumed.history, straight.history, strict=True):
            for buffer, expected in zip(one, other, strict=True):
                np.testing.assert_array_equal(buffer, expected)
        assert resumed_log == log[-len(resumed_log) :]
        assert resumed_log[0]["iteration"] == start


def test_every_part_of_the_state_matters(tmp_path):
    """Take one part away at a time: the run must go another way, or nothing is tested above."""
    straight = digits_solver(RULES["SGD"], Log(), backend="numpy", run=tmp_path)
    straight.solve(4)
    path = straight.snapshot()
    straight.solve()

    def resume():
        return digits_solver(RULES["SGD"], Log(), backend="numpy", resume=path)

    def forget(solver, what):
        if what == "history":
            solver.history[0][0][...] = 0
        elif what == "random numbers":
            solver.net.rng = np.random.default_rng(99)
            solver.net.layer("drop1").rng = solver.net.rng
        elif what == "position":
            solver.net.layer("data").set_state({"position": 0, "seed": 1})
        elif what == "steps":
            solver.steps_passed = 0

    assert same_weights(resume_and_solve(resume()), straight)
    for what in ("history", "random numbers", "position", "steps"):
        solver = resume()
        forget(solver, what)
        assert not same_weights(resume_and_solve(solver), straight), what


def resume_and_solve(solver):
    solver.solve()
    return solver


def test_masks_and_last_loss_values_come_back(tmp_path):
    net = net_text(ip1="connectivity_mode: DISCONNECTED_ELTWISE")
    solver = make_solver("average_loss: 3", net, backend="numpy", run=tmp_path)
    weights = {name: [np.array(b) for b in blobs] for name, blobs in solver.net.weights().items()}
    weights["ip1"][0][1] = 0
    solver.net.load(weights)
    for _ in range(5):
        solver.step()
    path = solver.snapshot()
    resumed = make_solver("average_loss: 3", net, backend="numpy")
    resumed.restore(path)
    assert resumed.frozen() == solver.frozen() == {"ip1": pytest.approx(100 / 6)}
    assert list(resumed.losses) == list(solver.losses)
    for _ in range(3):
        assert resumed.step() == solver.step()
    assert (resumed.net.layer("ip1").parameters[0].data[1] == 0).all()


def test_a_snapshot_is_a_weight_file(tmp_path):
    solver = make_solver("momentum: 0.9", backend="numpy", run=tmp_path)
    solver.step()
    tensors, _ = read_tensors(solver.snapshot())
    own = {name: array for name, array in tensors.items() if not name.startswith("solver/")}
    assert set(own) == set(weights_of(solver))


def test_finetuning_from_a_snapshot(tmp_path):
    """``weights=`` takes the weights of a snapshot and nothing else."""
    solver = make_solver("momentum: 0.9", backend="numpy", run=tmp_path)
    solver.step()
    path = solver.snapshot()
    other = make_solver("momentum: 0.9", backend="numpy", weights=path)
    assert same_weights(other, solver)
    assert other.iteration == 0 and not other.history[0][0].any()


# --- files that do not belong ---


@pytest.fixture
def saved(tmp_path):
    solver = make_solver("momentum: 0.9", backend="numpy", run=tmp_path)
    for _ in range(3):
        solver.step()
    return solver.snapshot()


def refused(fields="", net="", path="", **options):
    """Resume; return the one sentence of the error, after checking that nothing changed."""
    solver = make_solver(fields, net, backend="numpy", **options)
    before = weights_of(solver)
    with pytest.raises(WeightsError) as caught:
        solver.restore(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert solver.iteration == 0
    for name, values in weights_of(solver).items():
        np.testing.assert_array_equal(values, before[name])
    return message


def test_another_net(saved):
    net = net_text().replace("num_output: 3", "num_output: 5")
    message = refused(net=net, path=saved)
    assert "'ip2.0' has shape (3, 6) where the net has shape (5, 6)" in message


def test_another_solver(saved):
    assert "saved with type SGD, this solver has Adam" in refused('type: "Adam"', path=saved)


def test_another_dtype(saved):
    assert "with dtype float32, this solver has float64" in refused(path=saved, dtype="float64")


def test_not_a_snapshot(saved, tmp_path):
    path = tmp_path / "weights.safetensors"
    solver = make_solver(backend="numpy")
    solver.net.save(path)
    assert "is not a snapshot" in refused(path=path)


def test_missing_file(tmp_path):
    refused(path=tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file(saved, kept):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * kept)])
    refused(path=saved)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, metadata: metadata.pop("state"),
        lambda tensors, metadata: metadata.update(state="{"),
        lambda tensors, metadata: metadata.update(state="[]"),
        lambda tensors, metadata: metadata.update(state="{}"),
        lambda tensors, metadata: metadata.update(minissl_snapshot="99"),
        lambda tensors, metadata: tensors.pop("solver/history/ip2.1.0"),
        lambda tensors, metadata: tensors.update({"ip2.1": np.full(3, np.nan, np.float32)}),
        lambda tensors, metadata: tensors.update({"ip2.1": np.zeros(3, np.int64)}),
    ],
    ids=["no state", "no JSON", "a list", "empty", "version", "no history", "NaN", "integers"],
)
def test_damaged_content(saved, damage):
    tensors, metadata = read_tensors(saved)
    damage(tensors, metadata)
    write_tensors(saved, tensors, metadata)
    refused(path=saved)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iteration", -1),
        ("steps_passed", -1),
        ("losses", ["high"]),
        ("zero_from_the_start", [1]),
        ("rng", -(2**70)),
    ],
)
def test_damaged_state(saved, field, value):
    tensors, metadata = read_tensors(saved)
    state = json.loads(metadata["state"])
    if field == "rng":
        state["net"]["rng"]["state"]["state"] = value
    else:
        state[field] = value
    write_tensors(saved, tensors, {**metadata, "state": json.dumps(state)})
    assert "the state of the solver is damaged" in refused(path=saved)


def test_a_damaged_state_changes_nothing(saved):
    """Not even the random numbers, which are put back before the layers are looked at."""
    tensors, metadata = read_tensors(saved)
    state = json.loads(metadata["state"])
    state["net"]["rng"]["state"]["state"] += 1
    state["net"]["layers"] = 3
    write_tensors(saved, tensors, {**metadata, "state": json.dumps(state)})
    solver = make_solver(backend="numpy")
    solver.step()
    before = json.dumps(solver.net.state())
    with pytest.raises(WeightsError, match="the state of the solver is damaged"):
        solver.restore(saved)
    assert json.dumps(solver.net.state()) == before


@pytest.mark.parametrize("how", ["load", "resume"])
def test_a_single_number_is_trained_saved_and_resumed(how, tmp_path):
    """The slope of a PReLU that all channels share has no axis."""
    prelu = """layer { name: "slope" type: "PReLU" bottom: "conv1" top: "conv1"
      prelu_param { channel_shared: true } }"""
    relu = 'layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }'
    net = DIGITS.replace(relu, prelu)
    assert net != DIGITS
    first = Solver(solver_param("", net), backend="numpy", run=tmp_path)
    first.step()
    path = first.snapshot()
    second = Solver(solver_param("", net), backend="numpy", run=tmp_path)
    if how == "load":
        second.net.load(first.net.weights())
    else:
        second.restore(path)
    again = second.snapshot()
    third = Solver(solver_param("", net), backend="numpy")
    third.restore(again)
    assert third.net.layer("slope").parameters[0].shape == ()
    assert same_weights(first, third)


# --- saving that fails ---


def test_disk_full_keeps_the_old_file(tmp_path):
    """A limit on the size of files stands for the full disk: it fails in the middle of a write."""
    script = f"""
import resource, signal
from minissl.errors import MinisslError
from tests.tiny_nets import make_solver
solver = make_solver(backend="numpy", run={str(tmp_path)!r})
solver.step()
path = solver.snapshot()
solver.net.layer("ip2").parameters[0].data[...] = 7
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    solver.snapshot()
except MinisslError as error:
    print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.count("\n") == 1
    assert "the previous file is untouched" in found.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["Tiny_iter_1.safetensors"]
    solver = make_solver(backend="numpy")
    solver.restore(tmp_path / "Tiny_iter_1.safetensors")
    assert not (solver.net.layer("ip2").parameters[0].data == 7).any()


def test_folder_that_is_gone(tmp_path):
    solver = make_solver(backend="numpy", run=tmp_path / "gone")
    with pytest.raises(MinisslError, match="folder does not exist") as caught:
        solver.snapshot()
    assert "\n" not in str(caught.value)


KILLED = """
from tests.tiny_nets import make_solver
solver = make_solver("momentum: 0.9 max_iter: 1000000 snapshot: 1", backend="numpy", run=RUN)
solver.solve(1)
print("ready", flush=True)
solver.solve()
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 of POSIX")
def test_killed_while_saving(tmp_path):
    """However often: all files but temporaries are whole, and the newest goes on."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED.replace("RUN", repr(str(tmp_path)))],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(float(rng.uniform(0.05, 0.25)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        snapshots = list(tmp_path.glob("*.safetensors"))
        assert snapshots
        for path in snapshots:
            read_tensors(path)
        newest = max(snapshots, key=lambda path: int(path.stem.rpartition("_")[2]))
        solver = make_solver("momentum: 0.9", backend="numpy")
        solver.restore(newest)
        assert solver.iteration == int(newest.stem.rpartition("_")[2])
        solver.step()
        for path in snapshots:
            path.unlink()


def test_arrays_come_first(saved):
    """A MemoryData layer that has no arrays yet cannot stand at record 12."""
    with pytest.raises(MinisslError, match="call set_arrays"):
        Solver(solver_param("momentum: 0.9"), backend="numpy", resume=saved)
    solver = Solver(solver_param("momentum: 0.9"), backend="numpy")
    give_arrays(solver.net)
    solver.restore(saved)
    assert solver.iteration == 3
