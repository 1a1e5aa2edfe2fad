"""Snapshots in Caffe's formats: bitwise resume from ours, Caffe's rules for Caffe's."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minissl.errors import MinisslError, WeightsError
from minissl.formats import hdf5, proto
from minissl.formats.caffemodel import read_caffemodel
from minissl.formats.solverstate import SolverState, read_solverstate, write_solverstate
from minissl.formats.weights import read_weights, write_weights
from minissl.solvers import run_folder, update_rules
from tests.formats.conftest import damaged
from tests.solvers.test_snapshot import digits_solver
from tests.tiny_nets import make_solver, net_text, same_weights, weights_of

SUFFIXES = {"BINARYPROTO": ".solverstate", "HDF5": ".solverstate.h5"}
FROZEN = net_text(conv1="connectivity_mode: DISCONNECTED_ELTWISE")


@pytest.fixture(params=SUFFIXES)
def kind(request):
    if request.param == "HDF5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    return request.param


def options_of(rule: str, kind: str) -> str:
    momentum = "" if rule in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    return f'type: "{rule}" {momentum} snapshot_format: {kind}'


def half_zero(solver):
    """Weights of which some are zero, so that a mask is made, and some become zero by training."""
    rng = np.random.default_rng(5)
    return {
        name: [np.where(rng.random(b.shape) < 0.5, 0, b) for b in blobs]
        for name, blobs in solver.net.weights().items()
    }


@pytest.mark.parametrize("rule", update_rules.RULES)
def test_two_and_two_iterations_are_four(rule, kind, tmp_path):
    options = {"net": FROZEN, "backend": "numpy", "run": tmp_path}
    straight = make_solver(options_of(rule, kind), **options)
    straight.net.load(half_zero(straight))
    straight.step()
    straight.step()
    path = straight.snapshot()
    assert path.name == f"Tiny_iter_2{SUFFIXES[kind]}"
    resumed = make_solver(options_of(rule, kind) + " random_seed: 9", **options)
    resumed.restore(path)
    assert same_weights(straight, resumed) and resumed.iteration == 2
    for mine, theirs in zip(straight.history, resumed.history, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert resumed.net.parameters[0].mask is not None
    for _ in range(2):
        assert straight.step() == resumed.step()
    assert same_weights(straight, resumed)


def test_dropout_shuffle_and_losses_go_on(kind, tmp_path):
    fields = f"snapshot_format: {kind}"
    straight = digits_solver(fields, [], backend="numpy", run=tmp_path)
    straight.reporter = type(make_solver().reporter)()
    straight.solve(5)
    path = straight.snapshot()
    resumed = digits_solver(fields, [], backend="numpy", run=tmp_path, resume=path)
    resumed.reporter = straight.reporter
    for _ in range(3):
        assert straight.step() == resumed.step()
    assert straight.smoothed_loss() == resumed.smoothed_loss()
    assert same_weights(straight, resumed)


def of_caffe(path: Path) -> Path:
    """Take out what only minissl writes."""
    state = proto.SolverState.FromString(path.read_bytes())
    state.ClearField("minissl_state")
    state.ClearField("mask")
    path.write_bytes(state.SerializeToString())
    return path


@pytest.mark.parametrize("rule", update_rules.RULES)
def test_files_of_caffe(rule, tmp_path, caplog):
    solver = make_solver(
        options_of(rule, "BINARYPROTO") + ' lr_policy: "multistep" gamma: 0.5 stepvalue: 1',
        backend="numpy",
        run=tmp_path,
    )
    solver.step()
    solver.step()
    path = of_caffe(solver.snapshot())
    theirs = proto.SolverState.FromString(path.read_bytes())
    assert (theirs.iter, theirs.current_step) == (2, 1)
    assert theirs.learned_net == str(tmp_path / "Tiny_iter_2.caffemodel")
    buffers = update_rules.RULES[rule].buffers
    count = len(solver.net.parameters)
    assert len(theirs.history) == buffers * count
    for number, parameter in enumerate(solver.net.parameters):
        for b in range(buffers):  # all first buffers, then all second ones
            blob = theirs.history[b * count + number]
            assert tuple(blob.shape.dim) == parameter.shape
            assert list(blob.data) == solver.history[number][b].ravel().tolist()
    resumed = make_solver(options_of(rule, "HDF5") + " random_seed: 4", backend="numpy")
    with caplog.at_level(logging.INFO, "minissl"):
        resumed.restore(path)
    assert "is of Caffe" in caplog.text
    assert same_weights(solver, resumed) and resumed.iteration == 2 and resumed.steps_passed == 1
    assert len(resumed.losses) == 0


def test_the_weights_are_found_where_the_file_was_moved(tmp_path):
    solver = make_solver("snapshot_format: BINARYPROTO", backend="numpy", run=tmp_path / "a")
    (tmp_path / "a").mkdir()
    solver.step()
    solver.snapshot()
    (tmp_path / "a").rename(tmp_path / "b")
    moved = tmp_path / "b" / "Tiny_iter_1.solverstate"
    assert run_folder.newest_snapshot(tmp_path / "b") == moved
    resumed = make_solver(backend="numpy")
    resumed.restore(moved)
    assert same_weights(solver, resumed)
    (tmp_path / "b" / "Tiny_iter_1.caffemodel").unlink()
    with pytest.raises(WeightsError, match=r"weights that belong to .* are missing; looked at"):
        make_solver(backend="numpy").restore(moved)


def test_the_weights_beside_a_moved_file_come_before_those_at_its_old_place(tmp_path):
    fields = "snapshot_format: BINARYPROTO"
    first = make_solver(fields, backend="numpy", run=tmp_path / "a")
    other = make_solver(f"{fields} random_seed: 9", backend="numpy", run=tmp_path / "a")
    for solver in (first, other):
        (tmp_path / "a").mkdir()
        solver.step()
        solver.snapshot()
        if solver is first:
            (tmp_path / "a").rename(tmp_path / "b")
    resumed = make_solver(backend="numpy")
    resumed.restore(tmp_path / "b" / "Tiny_iter_1.solverstate")
    assert same_weights(first, resumed) and not same_weights(other, resumed)


def test_of_another_solver_or_net(tmp_path):
    solver = make_solver("snapshot_format: BINARYPROTO", backend="numpy", run=tmp_path)
    solver.step()
    path = solver.snapshot()
    before = make_solver('type: "Adam"', backend="numpy")
    untouched = weights_of(before)
    with pytest.raises(WeightsError, match="holds 6 history blobs where this net has 12"):
        before.restore(path)
    other = net_text().replace("num_output: 6", "num_output: 7")
    with pytest.raises(WeightsError, match=r"history 2 has shape \(6, 16\)"):
        make_solver(net=other, backend="numpy", resume=path)
    with pytest.raises(WeightsError, match="type SGD, this solver has Nesterov"):
        make_solver('type: "Nesterov"', backend="numpy", resume=path)
    for name, values in weights_of(before).items():
        np.testing.assert_array_equal(values, untouched[name])


def test_double_precision(kind, tmp_path):
    fields = f"snapshot_format: {kind}"
    solver = make_solver(fields, backend="numpy", dtype="float64", run=tmp_path)
    solver.step()
    path = solver.snapshot()
    assert read_solverstate(path).history[0].dtype == np.float64
    resumed = make_solver(fields, backend="numpy", dtype="float64")
    resumed.restore(path)
    assert same_weights(solver, resumed)


def test_without_the_field_snapshots_are_safetensors(tmp_path):
    assert make_solver(backend="numpy", run=tmp_path).snapshot().suffix == ".safetensors"


def test_hdf5_without_its_library(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hdf5, "is_there", lambda: False)
    solver = make_solver("snapshot_format: HDF5", backend="numpy", run=tmp_path)
    assert solver.snapshot().suffix == ".safetensors"
    assert "pip install 'minissl[hdf5]'" in caplog.text


# --- files ---


def test_weights_as_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    weights = {
        "inception_3a/1x1": [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)],
        "ip": [np.arange(3.0)],
    }
    path = tmp_path / "w.caffemodel.h5"
    write_weights(path, weights)
    found = read_weights(path)
    assert found.keys() == weights.keys()
    for name, blobs in weights.items():
        for ours, theirs in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype and ours.flags.writeable
    with h5py.File(path) as file:
        assert file["data/ip/0"][()].tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", SUFFIXES.values())
def test_state_there_and_back(suffix, tmp_path):
    if suffix.endswith("h5"):
        pytest.importorskip("h5py", reason="h5py is not installed")
    state = SolverState(7, "a/b.caffemodel", 3, [np.arange(4, dtype=np.float32).reshape(2, 2)],
                        '{"x": "ü"}', [b"", b"\x80\0"])  # fmt: skip
    write_solverstate(tmp_path / f"s{suffix}", state)
    found = read_solverstate(tmp_path / f"s{suffix}")
    np.testing.assert_array_equal(found.history.pop(), state.history.pop())
    assert found == state


def test_hostile_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["data/a/0"] = np.ones(3, np.float32)
    np.ones(3, np.float32).tofile(tmp_path / "raw")

    def refused(words: str, make) -> None:
        path = tmp_path / "w.caffemodel.h5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(WeightsError, match=words) as error:
            read_weights(path)
        assert "\n" not in str(error.value)

    def external(file):
        file["data/a/0"] = h5py.ExternalLink(str(secret), "/data/a/0")

    def soft(file):
        file["x"] = np.ones(3)
        file["data/a/0"] = h5py.SoftLink("/x")

    def raw(file):
        storage = [(str(tmp_path / "raw"), 0, 12)]
        file.create_dataset("data/a/0", (3,), "f4", external=storage)

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "data/a/0", (3,))
        file.create_virtual_dataset("data/a/0", layout)

    refused("points elsewhere", external)
    refused("points elsewhere", soft)
    refused("points elsewhere", raw)
    refused("points elsewhere", virtual)
    refused(
        "claims 4000000000000 bytes",
        lambda f: f.create_dataset(
            "data/a/0", (10**6, 10**6), "f4", chunks=(1, 1000), compression="gzip"
        ),
    )
    refused("holds no numbers", lambda f: f.create_dataset("data/a/0", data=np.bytes_(b"x")))
    refused("is not named", lambda f: f.create_dataset("data/a/first", data=np.ones(1)))
    refused("numbered from 0", lambda f: f.create_dataset("data/a/17", data=np.ones(1)))
    refused("holds no weights", lambda f: f.create_group("data"))

    def cycle(file):
        group = file.create_group("data").create_group("a")
        group["a"] = file["data"]

    refused("nested too deeply", cycle)
    (tmp_path / "t.caffemodel.h5").write_bytes(secret.read_bytes()[:900])
    with pytest.raises(WeightsError, match="not a complete HDF5"):
        read_weights(tmp_path / "t.caffemodel.h5")
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_weights(tmp_path / "none.caffemodel.h5")


VALID = proto.SolverState(
    iter=3, learned_net="x", current_step=1, minissl_state="{}", mask=[b"1", b""]
)
VALID.history.add(data=[1, 2]).shape.dim.append(2)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged(VALID.SerializeToString()), st.booleans())
def test_any_bytes_are_read_or_explained(tmp_path, content, as_weights):
    path = tmp_path / "s.solverstate"
    path.write_bytes(content)
    try:
        read_caffemodel(path) if as_weights else read_solverstate(path)
    except MinisslError as error:
        assert "\n" not in str(error)
