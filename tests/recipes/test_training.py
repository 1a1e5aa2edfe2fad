import json
import os
import signal

import numpy as np
import pytest

from minissl.errors import CollapseError, ConfigError
from minissl.formats.weights import read_weights
from minissl.recipes import stages
from minissl.recipes.stages import Stopped, Watcher, Work, digest
from minissl.recipes.training import LOG, WEIGHTS, Training
from minissl.solvers.display import Silent
from tests.tiny_nets import DIGITS

SOLVER = """
net: "digits.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" random_seed: 3
block_group_decay: 0.01 test_iter: 2 test_interval: 4 display: 1 max_iter: 8 snapshot: 3
snapshot_prefix: "digits"
"""


class Stopper(Watcher):
    """Sends this process a signal after some iterations."""

    def __init__(self, after, number=signal.SIGINT):
        self.after, self.number = after, number

    def reporter(self, stage):
        watcher = self

        class Reporter(Silent):
            def after_update(self, solver):
                if solver.iteration == watcher.after:
                    os.kill(os.getpid(), watcher.number)

        return Reporter()


@pytest.fixture
def solver(tmp_path):
    (tmp_path / "digits.prototxt").write_text(DIGITS)
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER)
    return path


def training(solver, **options):
    return Training("dense", "train", solver, backend="numpy", **options)


def weights_in(folder):
    return read_weights(folder / WEIGHTS)


def assert_same(one, other):
    for name in one:
        for a, b in zip(one[name], other[name], strict=True):
            assert np.array_equal(a, b)


def log_of(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def shape_of_log(folder):
    return [(line["iteration"], "test" in line) for line in log_of(folder)]


def test_a_training_stage_writes_a_run_folder(tmp_path, solver):
    done = stages.run([training(solver)], tmp_path / "out")["dense"]
    assert done.figures["iterations"] == 8
    assert set(done.figures["outputs"][0]) == {"accuracy", "loss"}
    names = {path.name for path in done.folder.iterdir()}
    assert {LOG, WEIGHTS, "train.log", "solver.prototxt", "net.prototxt"} <= names
    assert "Optimization Done." in (done.folder / "train.log").read_text()
    assert [line for line in shape_of_log(done.folder) if line[1]] == [
        (0, True),
        (4, True),
        (8, True),
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_stage_goes_on_to_the_same_weights_and_log(tmp_path, solver, number, code):
    whole = stages.run([training(solver)], tmp_path / "whole")["dense"].folder
    with pytest.raises(Stopped) as stopped:
        stages.run([training(solver)], tmp_path / "parts", Stopper(5, number))
    assert stopped.value.exit_code == code
    parts = tmp_path / "parts" / "dense"
    assert not (parts / WEIGHTS).exists()
    assert shape_of_log(parts)[-1] == (4, False)
    stages.run([training(solver)], tmp_path / "parts")
    assert_same(weights_in(whole), weights_in(parts))
    assert shape_of_log(parts) == shape_of_log(whole)


def test_a_stage_may_be_stopped_without_a_signal(tmp_path, solver):
    class Asker(Watcher):
        def reporter(self, stage):
            class Reporter(Silent):
                def after_update(self, solver):
                    solver.stop_requested = solver.iteration == 5

            return Reporter()

    with pytest.raises(Stopped) as stopped:
        stages.run([training(solver)], tmp_path, Asker())
    assert stopped.value.exit_code == 130
    assert not (tmp_path / "dense" / WEIGHTS).exists()
    stages.run([training(solver)], tmp_path)
    assert shape_of_log(tmp_path / "dense")[-1] == (8, True)


@pytest.mark.parametrize("last", ["iteration", "test"])
def test_a_signal_at_the_end_of_a_stage_ends_the_recipe(tmp_path, solver, last):
    """The next stage does not start; the next start of the recipe tests, and goes on."""

    class Late(Watcher):
        def reporter(self, stage):
            class Reporter(Silent):
                def tested(self, solver, number, outputs):
                    if solver.iteration == 8:
                        os.kill(os.getpid(), signal.SIGINT)

            return Reporter()

    later = Work("later", "", lambda folder, done: {})
    with pytest.raises(Stopped) as stopped:
        stages.run(
            [training(solver), later], tmp_path, Stopper(8) if last == "iteration" else Late()
        )
    assert stopped.value.exit_code == 130 and not (tmp_path / "later").exists()
    done = stages.run([training(solver), later], tmp_path)["dense"]
    assert done.figures["iterations"] == 8 and done.figures["outputs"]
    assert not done.skipped and (done.folder / WEIGHTS).exists()
    whole = stages.run([training(solver)], tmp_path / "whole")["dense"].folder
    assert shape_of_log(done.folder) == shape_of_log(whole)
    assert_same(weights_in(whole), weights_in(done.folder))


def test_a_killed_stage_goes_on_from_its_snapshot_without_double_lines(tmp_path, solver):
    whole = stages.run([training(solver)], tmp_path / "whole")["dense"].folder

    class Killed(BaseException):
        pass

    class Killer(Watcher):
        def reporter(self, stage):
            class Reporter(Silent):
                def after_update(self, solver):
                    if solver.iteration == 5:
                        raise Killed  # snapshots were made at 3 only

            return Reporter()

    with pytest.raises(Killed):
        stages.run([training(solver)], tmp_path / "parts", Killer())
    parts = tmp_path / "parts" / "dense"
    with open(parts / LOG, "a") as log:
        log.write('{"iteration": 5, "lo')
    stages.run([training(solver)], tmp_path / "parts")
    assert_same(weights_in(whole), weights_in(parts))
    assert shape_of_log(parts) == shape_of_log(whole)


def test_a_stage_starts_from_the_weights_of_another(tmp_path, solver):
    both = [
        training(solver),
        Training(
            "next",
            "go on",
            solver,
            start="dense",
            changes=["max_iter=1", "base_lr=0", "test_interval=1"],
            backend="numpy",
        ),
    ]
    done = stages.run(both, tmp_path / "out")
    assert_same(weights_in(done["dense"].folder), weights_in(done["next"].folder))


def test_a_stage_starts_from_a_file(tmp_path, solver):
    dense = stages.run([training(solver)], tmp_path / "out")["dense"].folder / WEIGHTS
    still = ["max_iter=1", "base_lr=0", "block_group_decay=0"]
    stage = Training("file", "", solver, changes=still, backend="numpy", weights=dense)
    done = stages.run([stage], tmp_path / "out")["file"]
    assert_same(weights_in(done.folder), read_weights(dense))
    assert stage.settings({})["initial weights"] == digest(dense)
    without = Training("file", "", solver, changes=still, backend="numpy")
    assert without.settings({})["initial weights"] == ""


def test_changed_settings_are_seen(tmp_path, solver):
    told = []

    class Listener(Watcher):
        def anew(self, stage, changed):
            told.append((stage.name, changed))

    first = [training(solver), Training("next", "", solver, start="dense", backend="numpy")]
    stages.run(first, tmp_path / "out")
    changes = ["base_lr=0.01"]
    second = [
        training(solver, changes=changes),
        Training("next", "", solver, start="dense", backend="numpy"),
    ]
    stages.run(second, tmp_path / "out", Listener())
    assert told == [("dense", ["solver and net"]), ("next", ["initial weights"])]
    assert shape_of_log(tmp_path / "out" / "dense")[0] == (0, True)


def test_a_stage_reads_in_another_order_when_told(tmp_path, solver):
    class Listener(Watcher):
        def anew(self, stage, changed):
            told.append(changed)

    told: list = []
    in_order = weights_in(stages.run([training(solver)], tmp_path / "out")["dense"].folder)
    stage = training(solver, shuffle=True)
    shuffled = weights_in(stages.run([stage], tmp_path / "out", Listener())["dense"].folder)
    assert told == [["order"]]
    assert not np.array_equal(in_order["ip1"][0], shuffled["ip1"][0])
    with pytest.raises(Stopped):
        stages.run([stage], tmp_path / "parts", Stopper(5))
    parts = stages.run([stage], tmp_path / "parts")["dense"].folder
    assert_same(shuffled, weights_in(parts))


@pytest.mark.parametrize("iterations", [4, 8])
def test_what_one_backend_has_trained_another_takes(tmp_path, solver, iterations, monkeypatch):
    """Whole, or as far as it came."""

    class Strict(Watcher):
        def anew(self, stage, changed):
            raise AssertionError(f"anew, for {changed}")

    monkeypatch.setattr("minissl.backend.in_words", lambda kernels: kernels.__name__)
    first, second = (Training("dense", "", solver, backend=name) for name in ("numpy", "numba"))
    if iterations == 8:
        stages.run([first], tmp_path / "out")
    else:
        with pytest.raises(Stopped):
            stages.run([first], tmp_path / "out", Stopper(iterations))
    done = stages.run([second], tmp_path / "out", Strict())["dense"]
    kernels = "reference" if iterations == 8 else "cpu"
    assert done.figures["trained_by"].startswith(f"minissl.kernels.{kernels}; ")


def test_an_edited_net_is_a_changed_setting(tmp_path, solver):
    stages.run([training(solver)], tmp_path / "out")
    edited = DIGITS.replace("dropout_ratio: 0.25", "dropout_ratio: 0.5")
    (tmp_path / "digits.prototxt").write_text(edited)
    before = weights_in(tmp_path / "out" / "dense")
    stages.run([training(solver)], tmp_path / "out")
    after = weights_in(tmp_path / "out" / "dense")
    assert not np.array_equal(before["ip1"][0], after["ip1"][0])


def test_a_start_that_is_no_earlier_stage(tmp_path, solver):
    with pytest.raises(ConfigError, match="starts from 'later', which is no earlier stage"):
        stages.run([training(solver, start="later")], tmp_path / "out")


def test_a_decay_that_takes_a_layer_stops_unless_told_otherwise(solver, tmp_path):
    solver.write_text(SOLVER.replace("0.01", "1000").replace("max_iter: 8", "max_iter: 40"))
    watched, free = training(solver), training(solver, collapse_check=False)
    with pytest.raises(CollapseError, match="halve it"):
        stages.run([watched], tmp_path / "watched")
    done = stages.run([free], tmp_path / "free")["dense"]
    assert done.figures["iterations"] == 40
    assert watched.settings({}) == free.settings({})
