"""Side by side, jobs do what they do one after the other; stopped, they go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from minissl.errors import ConfigError, DependencyError, MinisslError, NonFiniteError
from minissl.recipes import parallel
from minissl.recipes.experiment_files import read
from minissl.recipes.parallel import Job, Workers
from minissl.recipes.reproduce import Reproduction
from minissl.recipes.stages import Stopped, Watcher
from minissl.recipes.training import WEIGHTS
from tests.recipes.test_reproduce import OTHERS, SOLVER, experiment, recipe

REASON = "dask.distributed is not installed; pip install 'minissl[parallel]'"
distributed = pytest.importorskip("distributed", reason=REASON)
ROOT = Path(__file__).resolve().parents[2]


class Listener(Watcher):
    def __init__(self):
        self.told = []

    def skipped(self, stage):
        self.told.append(("skipped", stage.title))

    def anew(self, stage, changed):
        self.told.append(("anew", stage.title, *changed))

    def started(self, stage):
        self.told.append(("started", stage.title))

    def finished(self, stage, result):
        self.told.append(("finished", stage.title))


def weights_in(folder):
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob(WEIGHTS)}
    assert found
    return found


def figures(result):
    """What does not depend on the machine's mood."""
    keys = ("error", "layers", "flops_percent", "bytes", "revived", "error_after_ssl")
    return [{k: run.get(k) for k in keys} for row in result["rows"] for run in row["runs"]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One after the other: the folder and the result; not to be changed."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, recipe(folder, OTHERS, fast=True).run("x")


def test_side_by_side_gives_the_same_weights(alone, tmp_path):
    folder, result = alone
    listener = Listener()
    again = recipe(tmp_path, OTHERS, fast=True).run("x", listener, Workers(2))
    assert weights_in(tmp_path / "work") == weights_in(folder / "work")
    assert figures(again) == figures(result)
    told = [what for what in listener.told if not what[1].endswith(": time")]
    started = [title for what, title in told if what == "started"]
    assert len(started) == len(set(started)) == 2 * 24
    assert sorted(started) == sorted(title for what, title in told if what == "finished")
    # nothing starts before what it needs
    places = {what: place for place, what in enumerate(told)}
    for seed in (1, 2):
        dense = places["finished", f"seed {seed}, Digits 1"]
        pruned = places["started", f"seed {seed}, random: prune"]
        assert dense < pruned > places["finished", f"seed {seed}, Digits 2: finetune"]
    listener.told.clear()
    recipe(tmp_path, OTHERS, fast=True).run("x", listener, Workers(2))
    assert {what for what, *_ in listener.told} == {"skipped"}


def test_a_running_scheduler_is_used(alone, tmp_path):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        workers = Workers(scheduler=cluster.scheduler_address, threads=1)
        result = recipe(tmp_path, fast=True).run("x", None, workers)
    mine, expected = weights_in(tmp_path / "work"), weights_in(alone[0] / "work")
    assert mine == {path: expected[path] for path in mine}
    assert [row["key"] for row in result["rows"]] == ["baseline", "digits2"]


# --- jobs as such ---


def note(path, watcher):
    with open(path, "a") as file:
        file.write("done\n")


def fail(error, watcher):
    raise error


def test_jobs_wait_for_what_they_need_and_errors_come_back(tmp_path):
    jobs = [
        Job("first", partial(note, tmp_path / "first")),
        Job("wrong", partial(fail, NonFiniteError("the loss is nan")), ["first"]),
        Job("never", partial(note, tmp_path / "never"), ["wrong"]),
    ]
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        parallel.run(jobs, Workers(2), tmp_path)
    assert (tmp_path / "first").read_text() == "done\n"
    with pytest.raises(ZeroDivisionError):
        parallel.run([Job("x", partial(fail, ZeroDivisionError()))], Workers(2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def die(watcher):
    os._exit(1)


def test_workers_that_die(tmp_path):
    with pytest.raises(MinisslError, match="the workers that were given x died"):
        parallel.run([Job("x", die)], Workers(1), tmp_path)


def test_schedulers_that_are_none(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "PATIENCE", 0.5)
        for address in ("tcp://127.0.0.1:1", "nonsense://x", "127.0.0.1:x"):
            with pytest.raises(ConfigError, match=f"no dask scheduler answers at '{address}'"):
                parallel.run([], Workers(scheduler=address), tmp_path)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(ConfigError, match="the scheduler has no workers"),
    ):
        parallel.run([], Workers(scheduler=cluster.scheduler_address), tmp_path)


@pytest.mark.parametrize(
    ("introduced", "said"),
    [
        (("0.0.0", True), "has minissl 0.0.0, here it is"),
        ((None, False), "does not see the folder"),
    ],
)
def test_workers_that_do_not_fit(tmp_path, introduced, said):
    class Client:
        def run(self, function, token):
            version, sees = function(token)
            return {"tcp://1": (introduced[0] or version, introduced[1] and sees)}

    with pytest.raises(ConfigError, match=said):
        parallel._see_that_workers_fit(Client(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_worker_without_minissl(tmp_path):
    class Client:
        def run(self, function, token):
            raise ModuleNotFoundError("No module named 'minissl'")

    with pytest.raises(MinisslError, match="a worker cannot load minissl"):
        parallel._see_that_workers_fit(Client(), tmp_path)


def test_without_dask_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"pip install 'minissl\[parallel\]'"):
        parallel.run([], Workers(2), tmp_path)


# --- signals ---


def long_recipe(folder):
    """As the others, but its last stage takes minutes."""
    experiment(folder)
    (folder / "ft.prototxt").write_text(
        SOLVER.replace("digits.proto", "frozen.proto").replace("max_iter: 10", "max_iter: 100000")
    )
    mine = read(folder / "digits.toml")
    return Reproduction(mine, folder / "out", folder / "work", (1, 2), "mnist-small", "numpy")


def started(folder, stage):
    """Wait until a stage of both seeds has made some iterations."""
    logs = [folder / "work" / f"seed{seed}" / stage / "log.jsonl" for seed in (1, 2)]
    deadline = time.monotonic() + 300
    while not all(log.exists() and log.read_text().count("\n") > 4 for log in logs):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_signal_stops_all_workers_and_they_go_on(tmp_path):
    recipe = long_recipe(tmp_path)

    def interrupt():
        started(tmp_path, "digits2-finetune")
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(Stopped) as stopped:
        recipe.run("x", None, Workers(2))
    killer.join()
    assert stopped.value.exit_code == 143
    for seed in (1, 2):
        folder = tmp_path / "work" / f"seed{seed}" / "digits2-finetune"
        assert not json.loads((folder / "stage.json").read_text())["complete"]
        (snapshot,) = folder.glob("*.safetensors")
        iteration = int(snapshot.stem.rpartition("_")[2])
        assert iteration > 10 and not (folder / WEIGHTS).exists()
        # what follows has not begun
        assert not (folder.parent / "digits2-compact").exists()


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_ctrl_c_in_a_terminal_reaches_workers_and_they_save(tmp_path):
    long_recipe(tmp_path)
    command = [sys.executable, "-m", "minissl", "reproduce", tmp_path / "digits.toml"]
    command += ["--parallel", "2", "--seeds", "1,2", "--data", "mnist-small", "--backend", "numpy"]
    command += ["--out", tmp_path / "out", "--work", tmp_path / "work"]
    run = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        started(tmp_path, "digits2-finetune")
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        told = run.communicate(timeout=300)[1]
    finally:
        run.kill()
    assert run.returncode == 130
    assert told.splitlines()[-1].startswith("stopped, everything is saved in ")
    assert "Traceback" not in told and "seed 2, Digits 2: finetune ..." in told
    for seed in (1, 2):
        folder = tmp_path / "work" / f"seed{seed}" / "digits2-finetune"
        assert len(list(folder.glob("*.safetensors"))) == 1
