"""``minissl lambda``: where to begin the search for a decay, and the search itself."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.recipes.search import Search

EPILOG = """
\b
Examples:
  minissl lambda --solver demo_ssl_solver.prototxt --data mnist-small
  minissl lambda --solver ssl_solver.prototxt --weights dense.caffemodel --batches 50 --json
  minissl lambda --solver ssl_solver.prototxt --weights dense.caffemodel \\
      --data mnist/validation --target-flops 0.05
  minissl lambda --solver ssl_solver.prototxt --weights dense.caffemodel \\
      --data mnist/validation --target-error 0.01 --iterations 3000

With a target, decays are tried by short runs of the solver, its learning rates compressed: first
its own decays (or, where they are 0, the middle of the marks) times 1, 4, 16 ... or 1/4, 1/16
... until the target lies between two of them, then by bisection. All decays get the same factor.
Ctrl-C finishes the iteration and saves; the same command goes on from there. Trials that are in
the folder already are not repeated.
"""


@click.command(epilog=EPILOG)
@options.solver_option("The solver, a prototxt; its decays may be 0.")
@options.weights_option(False, "Weights that training will start from.  [default: the fillers']")
@click.option(
    "--batches",
    type=options.POSITIVE,
    default=10,
    show_default=True,
    help="Batches of training data to average the marks over.",
)
@click.option(
    "--target-flops",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="FRACTION",
    help="Search for the decay that leaves this part of the FLOP of the whole network: 0.05 is "
    "5 %, dead filters and channels taken out.",
)
@click.option(
    "--target-error",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="FRACTION",
    help="Search for the largest decay with at most this test error after the trial.",
)
@click.option(
    "--iterations",
    type=options.POSITIVE,
    help="Iterations of a trial.  [default: a fifth of the solver's, or as many as its decays need "
    "to remove the groups it starts from]",
)
@click.option("--trials", type=options.POSITIVE, help="Make this many at most.  [default: 10]")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="FRACTION",
    help="How near is near enough: FLOP to the target, or the decay to the largest one.  "
    "[default: 0.1]",
)
@click.option(
    "--work",
    type=options.FILE,
    metavar="DIR",
    help="Folder for the trials.  [default: runs/lambda]",
)
@options.set_option("weight_decay=0.001")
@options.data_option
@options.backend_option
@options.threads_option
@options.json_option
def command(
    solver_path: Path,
    weights: Path | None,
    batches: int,
    target_flops: float | None,
    target_error: float | None,
    iterations: int | None,
    trials: int | None,
    tolerance: float | None,
    work: Path | None,
    assignments: tuple[str, ...],
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Suggest decays for group lasso, from the weights and the data, or search for one.

    Shows for each decay of the solver where its penalty equals that of weight_decay, where it
    equals the loss, and from where on the first layer that is zero stays zero. With --target-flops
    or --target-error, tries decays by short runs of SSL until the target is reached.
    """
    if target_flops is not None and target_error is not None:
        raise click.UsageError("Give --target-flops or --target-error, not both.")
    chosen = {"iterations": iterations, "trials": trials, "work": work}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    near: dict[str, Any] = {} if tolerance is None else {"tolerance": tolerance}
    if target_flops is None and target_error is None:
        for name in (*given, *near):
            raise click.UsageError(
                f"--{name} belongs to a search; add --target-flops or --target-error."
            )
        options.use_threads(threads, backend)
        _suggest(solver_path, weights, batches, assignments, backend, data, as_json)
        return
    from minissl.recipes.search import Search
    from minissl.recipes.targets import ErrorTarget, FlopsTarget, Target

    options.use_threads(threads, backend)
    target: Target
    if target_flops is not None:
        target = FlopsTarget(target_flops, **near)
    else:
        target = ErrorTarget(target_error or 0.0, **near)
    given.update(changes=assignments, data=data, backend=backend, batches=batches)
    _search(Search(solver_path, target, weights, **given), as_json)


def _search(search: Search, as_json: bool) -> None:
    """Make the trials and print them; a target that is not reached is a failure."""
    from minissl.cli.lambda_display import TrialBar, TrialTable
    from minissl.errors import MinisslError
    from minissl.recipes.stages import Stopped

    begin = search.begin()
    for warning in begin.warnings:
        options.note(f"warning: {warning}")
    table = TrialTable(list(begin.decays), sys.stderr if as_json else sys.stdout)
    tell = None if as_json and options.is_quiet() else table.row
    with TrialBar(options.console(sys.stderr), shown=not options.is_quiet()) as bar:
        try:
            result = search.run(begin, bar, tell)
        except Stopped as stopped:
            bar.close()
            options.note(
                f"stopped, everything is saved in {search.work}; run the same command to go on"
            )
            raise SystemExit(stopped.exit_code) from None
    if as_json:
        options.show_json(result)
    if not result["reached"]:
        raise MinisslError(result["outcome"])
    if as_json:
        return
    click.echo(f"\n{result['outcome']}")
    for note in result["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"to train with it: {_training_command(search, result['chosen']['decays'])}")


def _training_command(search: Search, decays: Mapping[str, float]) -> str:
    """Write the command that trains with some decays as the trials were trained."""
    words = ["minissl", "train", "--solver", str(search.solver)]
    if search.weights:
        words += ["--weights", str(search.weights)]
    if search.data:
        words += ["--data", search.data]
    fields = [*search.changes, *(f"{name}={value:g}" for name, value in decays.items())]
    return shlex.join([*words, *(word for field in fields for word in ("--set", field))])


def _suggest(
    solver_path: Path,
    weights: Path | None,
    batches: int,
    assignments: tuple[str, ...],
    backend: str,
    data: str | None,
    as_json: bool,
) -> None:
    """Print the marks on the scale of every decay."""
    from minissl.recipes.decays import suggest

    found = suggest(solver_path, weights, batches, assignments, backend, options.data_options(data))
    if as_json:
        options.show_json(found.to_json())
        return
    click.echo(f"loss of the data: {found.loss:.4g}, mean of {found.batches} batches\n")
    headings = ["decay", "now", "equal to\nL2 decay", "equal to\nthe loss", "a layer\nis lost"]
    marks = [
        [one.decay, *map(_short, (one.now, one.equal_to_l2, one.equal_to_loss, one.decay_max))]
        for one in found.decays
    ]
    options.show_table(options.table(headings, marks))
    headings = ["layer", "decay", "groups", "of\n(columns x rows)", "mult", "sqrt of\nlength"]
    rows = [
        [
            one.layer if one.blob == 0 else f"{one.layer}, blob {one.blob}",
            one.decay,
            one.groups,
            str(one.tile),
            _short(one.multiplier),
            _short(found.root_multiplier(one)),
            _short(one.decay_max),
        ]
        for one in found.tilings
    ]
    options.show_table(options.table([*headings, "lost at\ndecay"], rows, names=2))


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"
