"""The stage that trains: a solver, its network, and the weights it starts from.

It writes into its folder what ``minissl train`` writes into a run folder::

    solver.prototxt      the solver as it ran
    net.prototxt         the net that it trained
    train.log            the lines that Caffe writes
    log.jsonl            the same for programs
    revived.json         groups that came back to life, as of the newest snapshot
    *_iter_N.safetensors snapshots
    weights.caffemodel   the result
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl import doctor
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_solver, set_fields, to_text
from minissl.recipes.stages import Done, Stopped, Watcher, digest
from minissl.solvers import Solver, run_folder
from minissl.solvers.display import CaffeLog, JsonLines, Together
from minissl.solvers.revivals import Revivals
from minissl.solvers.signals import catching

WEIGHTS = "weights.caffemodel"
LOG = run_folder.LOG
#: exit code of a run that was stopped by other means than a signal, as after Ctrl-C
INTERRUPTED = 130


@dataclass(frozen=True)
class Training:
    """Train as a solver file says, from the weights of a stage or a file, or from the fillers.

    Attributes
    ----------
    solver : Path
        The solver prototxt.
    start : str, optional
        Name of the stage whose weights to start from.
    changes : sequence of str
        Solver fields to set, as ``key=value``.
    data : str, optional
        Name of the data set that every Data layer reads instead of its own source.
    backend, dtype : str
        See :class:`minissl.net.Net`.
    weights : Path, optional
        File to start from, where no stage is.
    collapse_check : bool
        Stop when a layer loses all of its groups within the first epoch.
    shuffle : bool
        Read the data in another order in each epoch, in place of that of the files.
    """

    name: str
    title: str
    solver: Path
    start: str | None = None
    changes: Sequence[str] = ()
    data: str | None = None
    backend: str = "auto"
    dtype: str = "float32"
    weights: Path | None = None
    collapse_check: bool = True
    shuffle: bool = False

    def read(self) -> Any:
        """Return the message of the solver, as changed, with its net inside."""
        param = read_solver(self.solver)
        set_fields(param, self.changes)
        return run_folder.inline_nets(param, self.solver, self.data)

    def settings(self, done: Done) -> dict[str, str]:
        """Solver with its net, arithmetic, initial weights, and the order of the data.

        Not the backend: what one computer has trained, another takes as it is. Backends differ
        by rounding alone, as processors do.
        """
        start = self._start_weights(done)
        settings = {
            "solver and net": digest(to_text(self.read())),
            "dtype": self.dtype,
            "initial weights": digest(start) if start else "",
        }
        return {**settings, "order": "shuffled"} if self.shuffle else settings

    def run(self, folder: Path, done: Done, watcher: Watcher) -> dict[str, Any]:
        """Train to the end, from the newest snapshot where there is one."""
        param = self.read()
        run_folder.write_configuration(folder, param)
        solver = self._solver(param, folder, done)
        run_folder.cut_log(folder, solver.iteration)
        revivals = Revivals(folder)
        with (
            open(folder / LOG, "a", encoding="utf-8") as lines,
            open(folder / "train.log", "a", encoding="utf-8") as log,
            catching(solver) as caught,
        ):
            solver.reporter = Together(
                CaffeLog(lambda line: print(line, file=log, flush=True)),
                JsonLines(lines),
                revivals,
                watcher.reporter(self),
            )
            solver.solve()
        if solver.stop_requested:  # where all iterations are done, the next start only tests
            raise Stopped(caught.exit_code or INTERRUPTED)
        solver.net.save(folder / WEIGHTS)
        figures = {
            "iterations": solver.iteration,
            "outputs": solver.last_test,
            "trained_by": f"{backends.in_words(solver.kernels)}; {doctor.machine_in_words()}",
        }
        revived = revivals.counts()
        return {**figures, "revived": revived} if revived else figures

    def _start_weights(self, done: Done) -> Path | None:
        if self.start is None:
            return self.weights
        if self.start not in done:
            raise ConfigError(
                f"stage '{self.name}' starts from '{self.start}', which is no earlier stage"
            )
        return done[self.start].folder / WEIGHTS

    def _solver(self, param: Any, folder: Path, done: Done) -> Solver:
        """Return a solver that stands where an earlier run stopped, if one did."""
        snapshot = run_folder.newest_snapshot(folder)
        weights = None if snapshot else self._start_weights(done)
        return Solver(
            param,
            weights,
            snapshot,
            self.backend,
            self.dtype,
            data={"shuffle": self.shuffle},
            run=folder,
            collapse_check=self.collapse_check,
        )
