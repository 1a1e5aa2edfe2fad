"""Real processes get real signals: what they save, how they exit, that they can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minissl.solvers.signals import catching
from tests.tiny_nets import make_solver, same_weights

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

ROOT = Path(__file__).resolve().parents[2]

#: trains for ever, slowly; tells when it has begun
CHILD = """
import sys, time
from minissl.solvers.display import Silent
from minissl.solvers.signals import catching
from tests.tiny_nets import make_solver

class Slow(Silent):
    def before_update(self, solver, rate):
        print("iteration", solver.iteration, flush=True)
        time.sleep(SLEEP)
    def saved(self, solver, path):
        print("saved", path, flush=True)

solver = make_solver("momentum: 0.9 max_iter: 100000", backend="numpy", reporter=Slow(), run=RUN)
try:
    with catching(solver) as caught:
        solver.solve()
except KeyboardInterrupt:
    sys.exit(caught.exit_code)
print("done", solver.iteration, flush=True)
sys.exit(caught.exit_code)
"""


@pytest.fixture
def child(tmp_path):
    """Start a child that trains; the test ends it, or this fixture does."""
    started = []

    def start(sleep=0.01):
        script = CHILD.replace("RUN", repr(str(tmp_path))).replace("SLEEP", str(sleep))
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        wait_for(process, "iteration 2")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return line.strip()
    raise AssertionError(f"the child ended without '{start}': {process.stderr.read()}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stops_saves_and_can_be_resumed(child, tmp_path, number, code):
    process = child()
    process.send_signal(number)
    saved = Path(wait_for(process, "saved").removeprefix("saved "))
    iteration = int(wait_for(process, "done").removeprefix("done "))
    assert process.wait(timeout=60) == code
    assert process.stderr.read() == ""
    assert saved == tmp_path / f"Tiny_iter_{iteration}.safetensors"
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]

    resumed = make_solver("momentum: 0.9", backend="numpy")
    resumed.restore(saved)
    straight = make_solver("momentum: 0.9", backend="numpy")
    for _ in range(iteration):
        straight.step()
    assert resumed.iteration == iteration
    assert same_weights(resumed, straight)
    assert resumed.step() == straight.step()


def test_hangup_saves_and_goes_on(child, tmp_path):
    process = child()
    process.send_signal(signal.SIGHUP)
    saved = wait_for(process, "saved")
    iteration = int(saved.rpartition("_")[2].removesuffix(".safetensors"))
    wait_for(process, f"iteration {iteration + 2}")
    process.send_signal(signal.SIGHUP)
    assert wait_for(process, "saved") != saved
    assert process.poll() is None
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_one_leaves_at_once(child, tmp_path, number, code):
    """In the middle of an iteration that would take an hour."""
    process = child(sleep="0 if solver.iteration < 2 else 3600")
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None  # the first one waits for the iteration
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    assert not list(tmp_path.iterdir())


def test_handlers_come_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    solver = make_solver(backend="numpy")
    with pytest.raises(RuntimeError), catching(solver) as caught:
        assert [signal.getsignal(number) for number in numbers] != before
        raise RuntimeError
    assert [signal.getsignal(number) for number in numbers] == before
    assert caught.exit_code is None


def test_flags_in_this_process():
    solver = make_solver(backend="numpy")
    with catching(solver) as caught:
        os.kill(os.getpid(), signal.SIGHUP)
        assert solver.snapshot_requested and not solver.stop_requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert solver.stop_requested
        assert caught.exit_code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert caught.exit_code == 130


def test_other_threads_are_left_alone():
    """Only the main thread may set handlers; elsewhere the block just runs."""
    codes = []

    def run():
        with catching(make_solver(backend="numpy")) as caught:
            codes.append(caught.exit_code)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert codes == [None]
