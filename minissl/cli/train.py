"""``minissl train``: train a network as a solver prototxt says."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.solvers import Solver

EPILOG = """
\b
Examples:
  minissl train --solver lenet_solver.prototxt --data mnist-small
  minissl train --solver lenet2_ssl_solver.prototxt --data mnist --run runs/ssl \\
      --weights baseline.caffemodel --set block_group_decay=0.03 --max-iter 3000
  minissl train --solver lenet2_ssl_solver.prototxt --data mnist --run runs/ssl \\
      --set block_group_decay=0.03 --max-iter 3000 --resume last

The run folder holds the effective solver.prototxt and net.prototxt, run.json, train.log
(Caffe's lines), log.jsonl, the snapshots and the final weights as .caffemodel. Ctrl-C finishes
the iteration and saves; a second one leaves at once.
"""


@click.command(epilog=EPILOG)
@options.solver_option(
    "The solver, a prototxt; its net is looked for beside it and among minissl's own models."
)
@options.weights_option(False, "Weights to start from; zeros are frozen as connectivity_mode says.")
@click.option(
    "--rescale-like",
    "like",
    type=options.FILE,
    metavar="FILE",
    help="Give layers that BatchNorm follows the norm that they have in these weights, as before "
    "fine-tuning; the outputs stay as they are.",
)
@click.option(
    "--resume",
    "--snapshot",
    "resume",
    metavar="FILE|last",
    help="Snapshot to go on from; last is the newest one of the folder that --run names.",
)
@click.option(
    "--run",
    "run",
    type=options.FILE,
    metavar="DIR",
    help="Run folder.  [default: runs/SOLVER-DATE-TIME; that of the snapshot when resuming]",
)
@options.set_option("base_lr=0.001")
@click.option("--max-iter", type=options.POSITIVE, help="Short for --set max_iter=N.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="Of all random numbers, in place of random_seed.",
)
@options.data_option
@click.option("--shuffle", is_flag=True, help="Read the data in another order in each epoch.")
@click.option(
    "--original",
    is_flag=True,
    help="Reproduce the published program's numbers, its quirks included.",
)
@click.option(
    "--no-zero-out", is_flag=True, help="Leave weights below 0.0001 as they are after an update."
)
@click.option(
    "--no-collapse-check",
    is_flag=True,
    help="Go on when a layer loses all of its groups within the first epoch.",
)
@options.backend_option
@options.dtype_option
@options.threads_option
@options.json_option
def command(
    solver_path: Path,
    weights: Path | None,
    like: Path | None,
    resume: str | None,
    run: Path | None,
    assignments: tuple[str, ...],
    max_iter: int | None,
    seed: int | None,
    data: str | None,
    shuffle: bool,
    original: bool,
    no_zero_out: bool,
    no_collapse_check: bool,
    backend: str,
    dtype: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a network as a solver prototxt says.

    On a terminal a progress bar and tables are shown, elsewhere the lines that Caffe writes (on
    standard error with --json).
    """
    from minissl.formats.prototxt import read_solver, set_fields
    from minissl.solvers import Solver, run_folder

    if weights is not None and resume is not None:
        raise click.UsageError("Give --weights to start from or --resume to go on, not both.")
    if like is not None and weights is None:
        raise click.UsageError("--rescale-like changes weights to start from; add --weights.")
    if original and no_zero_out:
        raise click.UsageError("--original includes the zero-out that --no-zero-out switches off.")
    threads = options.use_threads(threads, backend)
    run, snapshot = _places(run, resume, solver_path)
    param = read_solver(solver_path)
    set_fields(param, assignments)
    if max_iter is not None:
        param.max_iter = max_iter
    if seed is not None:
        param.random_seed = seed
    param = run_folder.inline_nets(param, solver_path, data)
    options.check_data(data, run_folder.nets_of(param))
    solver = Solver(
        param,
        weights,
        snapshot,
        backend,
        dtype,
        data={"shuffle": shuffle},
        original=original,
        zero_out=not no_zero_out,
        collapse_check=not no_collapse_check,
        run=run,
    )
    if like is not None:
        _rescale(solver, like)
    _warn(solver, weights_given=weights is not None or snapshot is not None)
    _open_data(solver)
    resuming = snapshot is not None and snapshot.parent == run
    run_folder.prepare(run, resuming)
    record = _record(solver, threads, weights, snapshot, shuffle)
    if resuming:
        _go_on(run, param, record)
        run_folder.cut_log(run, solver.iteration)
    if snapshot is not None and solver.iteration >= param.max_iter:
        options.note(
            f"warning: {snapshot} is of iteration {solver.iteration}, and max_iter is "
            f"{param.max_iter}: nothing is left to train; raise it with --max-iter."
        )
    run_folder.write_configuration(run, param)
    record["rescaled_like"] = str(like) if like else None
    record["earlier"] = run_folder.earlier_records(run)
    result = _run(solver, run, record, as_json)

    if as_json:
        options.show_json(result)
    elif not options.is_quiet():
        done = result["iterations"] - result["began_at"]
        after = f" after {result['began_at']} before" if result["began_at"] else ""
        click.echo(f"{done} iterations{after} in {result['seconds']:.1f} s; see {run}")
    if result["exit_code"]:
        options.note(
            f"stopped after iteration {solver.iteration}; go on with the same options, "
            f"--run {run} --resume last{' in place of --weights' if weights else ''}"
        )
        click.get_current_context().exit(result["exit_code"])


def _places(run: Path | None, resume: str | None, solver_path: Path) -> tuple[Path, Path | None]:
    """Return the run folder, and the snapshot to resume from if any."""
    from minissl.errors import ConfigError
    from minissl.solvers import run_folder

    if resume == "last":
        if run is None:
            raise click.UsageError("--resume last needs --run, the folder of that run.")
        snapshot = run_folder.newest_snapshot(run)
        if snapshot is None:
            raise ConfigError(f"{run} holds no snapshot to go on from; name one with --resume FILE")
        return run, snapshot
    if resume is None:
        return run or run_folder.default_path(solver_path), None
    snapshot = Path(resume)
    if snapshot.is_dir():
        raise click.UsageError(
            f"{resume} is a folder; to go on from its newest snapshot give --run {resume} "
            "--resume last."
        )
    if snapshot.name.endswith((".caffemodel", ".caffemodel.gz", ".caffemodel.h5", ".npz")):
        raise click.UsageError(
            f"{resume} holds weights and no state of a solver; start from them with --weights, or "
            "name a snapshot."
        )
    if run is None and (snapshot.parent / run_folder.RECORD).exists():
        run = snapshot.parent
    return run or run_folder.default_path(solver_path), snapshot


def _go_on(run: Path, param: Any, record: dict[str, Any]) -> None:
    """Say what a run that goes on does otherwise; its random numbers go on, whatever the seed."""
    from minissl.solvers import run_folder

    last = run_folder.last_record(run)
    changes = run_folder.changes(run, param) + run_folder.changed_options(last, record)
    for change in changes:
        options.note(f"{run} goes on with other settings: {change}.")
    if last.get("seed", record["seed"]) != record["seed"]:
        record["seed"] = param.random_seed = last["seed"]


def _rescale(solver: Solver, like: Path) -> None:
    from minissl.formats.weights import read_weights
    from minissl.solvers.rescaling import rescale

    if not rescale(solver.net, read_weights(like)):
        options.note(
            "warning: --rescale-like changes nothing: BatchNorm follows no layer that has weights "
            "of its own."
        )


def _warn(solver: Solver, weights_given: bool) -> None:
    """Print what lint finds."""
    from minissl.lint import lint_net, lint_solver

    shapes = {
        layer.name: layer.parameters[0].shape for layer in solver.net.layers if layer.parameters
    }
    findings = lint_solver(solver.param, solver.net.param, weights_given)
    for finding in [*findings, *lint_net(solver.net.param, shapes)]:
        options.note(f"warning: {finding.where}: {finding.message} {finding.advice}")


def _open_data(solver: Solver) -> None:
    """Load all data sets, so that a missing one is told before a run folder is made."""
    for net in (solver.net, *solver.test_nets):
        net.state()


def _record(
    solver: Solver, threads: int, weights: Path | None, snapshot: Path | None, shuffle: bool
) -> dict[str, Any]:
    """Return what run.json says about the run."""
    from minissl import backend as backends
    from minissl import doctor
    from minissl.solvers import run_folder

    return {
        "command": run_folder.command_line(sys.argv),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "net": solver.net.name,
        "weights": str(weights) if weights else None,
        "resumed": str(snapshot) if snapshot else None,
        "seed": solver.seed,
        "shuffle": shuffle,
        "backend": backends.name_of(solver.kernels),
        "dtype": solver.net.dtype.name,
        "threads": threads,
        "original": solver.original,
        "zero_out": solver.zero_out_enabled,
        "collapse_check": solver.collapse is not None,
        "versions": doctor.versions(),
        "machine": doctor.machine_in_words(),
    }


def _run(solver: Solver, run: Path, record: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """Train with all logs open; return the results, which run.json gets as well."""
    from minissl.errors import MinisslError
    from minissl.solvers import run_folder
    from minissl.solvers.signals import catching

    run_folder.write_record(run, record)
    began_at = solver.iteration
    start = time.perf_counter()
    try:
        stream = sys.stderr if as_json else sys.stdout
        with _reporting(solver, run, stream), catching(solver) as caught:
            solver.solve()
        weights = _save_weights(solver)
    except MinisslError as error:
        run_folder.write_record(run, {**record, "error": str(error)})
        raise
    result = {
        "iterations": solver.iteration,
        "began_at": began_at,
        "seconds": time.perf_counter() - start,
        "outputs": solver.last_test[0] if solver.last_test else {},
        "test_nets": solver.last_test,
        "tested_after": solver.tested_after,
        "snapshot": str(solver.last_snapshot) if solver.last_snapshot else None,
        "weights": str(weights),
        "run": str(run),
        "exit_code": caught.exit_code or 0,
    }
    run_folder.write_record(run, {**record, "result": result})
    return result


def _save_weights(solver: Solver) -> Path:
    """Write the final weights in Caffe's format, beside the snapshot of the same iteration."""
    from minissl.solvers.caffe_snapshot import weights_path

    path = solver.snapshot_path()
    assert path is not None
    weights = weights_path(path)
    solver.net.save(weights)
    return weights


@contextmanager
def _reporting(solver: Solver, run: Path, stream: IO[str]) -> Iterator[None]:
    """Attach the reporters: two log files, and what is shown to people on ``stream``."""
    from minissl import doctor
    from minissl.backend import name_of
    from minissl.cli.train_display import COMPILING, TerminalDisplay
    from minissl.solvers import run_folder
    from minissl.solvers.display import CaffeLog, JsonLines, Together

    compiles = name_of(solver.kernels) == "numba" and not doctor.kernels_are_compiled()
    shown = not options.is_quiet()
    watched = shown and stream.isatty()

    with (
        (run / "train.log").open("a", encoding="utf-8") as log,
        (run / run_folder.LOG).open("a", encoding="utf-8") as lines,
    ):

        def write(line: str) -> None:
            log.write(line + "\n")
            log.flush()
            if shown and not watched:
                click.echo(line, file=stream)

        caffe_log = CaffeLog(write)
        reporters = [caffe_log, JsonLines(lines)]
        if compiles and not watched:
            caffe_log.say(COMPILING)
        if not watched:
            solver.reporter = Together(*reporters)
            yield
            return
        with TerminalDisplay(options.console(stream), compiles) as display:
            solver.reporter = Together(*reporters, display)
            yield
