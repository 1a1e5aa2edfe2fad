"""``minissl plot``: the pictures of a run."""

from __future__ import annotations

from pathlib import Path

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl plot demo
  minissl plot runs/ssl --format svg
  minissl plot runs/seed1 runs/seed2 runs/seed3 --out comparison
"""


@click.command(epilog=EPILOG)
@click.argument("runs", type=options.FILE, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for the pictures.  [default: RUN/pictures; with several runs, pictures]",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "svg", "pdf"]),
    default="png",
    show_default=True,
    help="Of the files.",
)
@options.json_option
def command(runs: tuple[Path, ...], out: Path | None, kind: str, as_json: bool) -> None:
    """Draw loss, test outputs and sparsity over the iterations, and where the weights are zero.

    RUN is a folder that demo or train has written. Several runs are drawn into the same pictures.
    """
    from minissl.report.plots import plot

    files = plot(runs, out, kind)
    if as_json:
        options.show_json({"files": [str(path) for path in files]})
        return
    for path in files:
        click.echo(str(path))
