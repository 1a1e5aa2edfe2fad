"""``minissl lambda``: where to begin the search for a decay."""

from __future__ import annotations

from pathlib import Path

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl lambda --solver demo_ssl_solver.prototxt --data mnist-small
  minissl lambda --solver ssl_solver.prototxt --weights dense.caffemodel --data mnist/validation
  minissl lambda --solver ssl_solver.prototxt --weights dense.caffemodel --batches 50 --json
"""


@click.command(epilog=EPILOG)
@click.option(
    "--solver",
    "solver_path",
    type=options.MODEL,
    required=True,
    metavar="SOLVER",
    help="The solver, a prototxt; its decays may be 0.",
)
@options.weights_option(False, "Weights that training will start from.  [default: the fillers']")
@click.option(
    "--batches",
    type=options.POSITIVE,
    default=10,
    show_default=True,
    help="Batches of training data to average over.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a field of the solver, such as weight_decay=0.001; may be repeated.",
)
@options.data_option
@options.backend_option
@options.threads_option
@options.json_option
def command(
    solver_path: Path,
    weights: Path | None,
    batches: int,
    assignments: tuple[str, ...],
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Suggest decays for group lasso, from the weights and the data.

    Shows for each decay of the solver where its penalty equals that of weight_decay, where it
    equals the loss, and from where on the first layer that is zero stays zero.
    """
    from minissl.recipes.decays import suggest

    options.use_threads(threads, backend)
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
