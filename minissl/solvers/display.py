"""What a run tells: Caffe's log lines, ``log.jsonl``, and whoever else wants to listen.

A reporter is an object with the methods of :class:`Silent`. Several are joined by
:class:`Together`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from minissl.backend import to_host
from minissl.solvers.debug_info import DebugInfo
from minissl.sparsity import statistics

if TYPE_CHECKING:
    from minissl.solvers.solver import Solver


class Silent:
    """A reporter that says nothing; the base of all others."""

    def begin(self, solver: Solver, last: int) -> None:
        """Training starts and will end before iteration ``last``."""

    def before_update(self, solver: Solver, rate: float) -> None:
        """Loss and gradients of an iteration are known, its weights are still the old ones."""

    def after_update(self, solver: Solver) -> None:
        """The weights have been updated and ``iteration`` counted up."""

    def testing(self, solver: Solver, number: int) -> None:
        """Test net ``number`` is about to run."""

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Test net ``number`` gave these means."""

    def saved(self, solver: Solver, path: Path) -> None:
        """A snapshot was written."""

    def end(self, solver: Solver) -> None:
        """Training has ended, complete or stopped."""


class Together(Silent):
    """Several reporters as one."""

    def __init__(self, *reporters: Silent):
        self.reporters = reporters

    def begin(self, solver: Solver, last: int) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.begin(solver, last)

    def before_update(self, solver: Solver, rate: float) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.before_update(solver, rate)

    def after_update(self, solver: Solver) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.after_update(solver)

    def testing(self, solver: Solver, number: int) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.testing(solver, number)

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.tested(solver, number, outputs)

    def saved(self, solver: Solver, path: Path) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.saved(solver, path)

    def end(self, solver: Solver) -> None:
        """Pass on."""
        for reporter in self.reporters:
            reporter.end(solver)


class CaffeLog(Silent):
    """Write the lines that Caffe writes, in the grammar its ``parse_log`` reads.

    Parameters
    ----------
    write : callable
        Takes one line, without a line end.
    """

    def __init__(self, write: Callable[[str], Any]):
        self.write = write
        self._clock = 0.0
        self._last_display = 0
        self._regularization: float | None = None

    def say(self, message: str) -> None:
        """Write one message behind a time stamp in the form of glog."""
        self.write(f"{datetime.now():I%m%d %H:%M:%S.%f} minissl] {message}")

    def begin(self, solver: Solver, last: int) -> None:
        """Open the log."""
        self.say(f"Solving {solver.net.name}")
        self.say(f"Learning Rate Policy: {solver.param.lr_policy}")
        self._clock = time.perf_counter()
        self._last_display = solver.iteration
        if solver.param.debug_info:
            for net in (solver.net, *solver.test_nets):
                net.watcher = DebugInfo(net, self.say)

    def before_update(self, solver: Solver, rate: float) -> None:
        """Loss, outputs, rate and the four sparsity lines."""
        if not solver.displays():
            return
        i = solver.iteration
        self.say(f"Iteration {i}{self._speed(i)}, loss = {solver.smoothed_loss():g}")
        net = solver.net
        outputs = {name: to_host(net.blobs[name].data) for name in net.outputs}
        self._outputs("Train", net, outputs)
        self.say(f"Iteration {i}, lr = {rate:g}")
        blobs = [
            (parameter.matrix, terms.tiles)
            for parameter, terms in zip(net.parameters, solver.terms, strict=True)
        ]
        for header, values in statistics.log_lines(blobs):
            self.say(header)
            self.write(values)
        self._regularization = solver.regularization()

    def after_update(self, solver: Solver) -> None:
        """Write the regularization of the weights before the update, as the original does."""
        if self._regularization is not None:
            total = self._regularization + solver.smoothed_loss()
            self.say(
                f"    Total regularization terms: {self._regularization:g} "
                f"loss+regular. : {total:g}"
            )
            self._regularization = None

    def testing(self, solver: Solver, number: int) -> None:
        """Announce a test."""
        self.say(f"Iteration {solver.iteration}, Testing net (#{number})")

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Means of a test net."""
        values = {name: np.asarray(value) for name, value in outputs.items()}
        self._outputs("Test", solver.test_nets[number], values)

    def saved(self, solver: Solver, path: Path) -> None:
        """Where the snapshot went."""
        kinds = {".safetensors": "safetensors", ".h5": "HDF5"}
        self.say(f"Snapshotting to {kinds.get(path.suffix, 'binary proto')} file {path}")

    def end(self, solver: Solver) -> None:
        """How the run ended."""
        stopped = solver.iteration < solver.param.max_iter
        self.say("Optimization stopped early." if stopped else "Optimization Done.")

    def _speed(self, iteration: int) -> str:
        """Iterations per second since the last display, from the second display on."""
        done, now = iteration - self._last_display, time.perf_counter()
        seconds = now - self._clock
        self._clock, self._last_display = now, iteration
        if done <= 0:
            return ""
        return f" ({done / seconds:g} iter/s, {seconds:g}s/{done} iters)"

    def _outputs(self, which: str, net: Any, outputs: dict[str, np.ndarray]) -> None:
        """``    Train net output #i: name = v (* w = w*v loss)``, one line for each element."""
        weights = {
            name: weight
            for layer, ws in zip(net.layers, net.loss_weights, strict=True)
            for name, weight in zip(layer.param.top, ws, strict=True)
        }
        number = 0
        for name, values in outputs.items():
            weight = weights.get(name, 0.0)
            for value in values.reshape(-1):
                loss = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
                self.say(f"    {which} net output #{number}: {name} = {value:g}{loss}")
                number += 1


class JsonLines(Silent):
    """Write ``log.jsonl``: one object a line for each display and each test."""

    def __init__(self, file: TextIO):
        self.file = file
        self._start = time.perf_counter()

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def before_update(self, solver: Solver, rate: float) -> None:
        """Write loss, regularization and sparsity before the update."""
        if not solver.displays():
            return
        self._write(
            {
                "iteration": solver.iteration,
                "loss": solver.loss,
                "smoothed_loss": solver.smoothed_loss(),
                "regularization": solver.regularization(),
                "lr": rate,
                "sparsity": sparsity_by_layer(solver),
                "seconds": time.perf_counter() - self._start,
            }
        )

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Write the means of a test net."""
        record: dict[str, Any] = {"iteration": solver.iteration, "test": outputs}
        if len(solver.test_nets) > 1:
            record["net"] = number
        self._write(record)


def sparsity_by_layer(solver: Solver) -> dict[str, dict[str, Any]]:
    """Statistics of the weights of every layer, by its name: percentages over the whole matrix."""
    result = {}
    for parameter, terms in zip(solver.net.parameters, solver.terms, strict=True):
        if parameter.role != "weight":
            continue
        measured = statistics.statistics_of(
            parameter.layer_name,
            parameter.index,
            parameter.data,
            parameter.conv_groups,
            terms.tiles,
        )
        whole = {name: getattr(measured, name) for name in ("element", "row", "column", "blocks")}
        bands = measured.bands
        for name in ("filter", "channel", "kernel2d"):
            whole[name] = sum(getattr(band, name) for band in bands) / len(bands)
        result[parameter.layer_name] = whole
    return result
