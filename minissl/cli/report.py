"""``minissl report``: one self-contained HTML page about a run."""

from __future__ import annotations

from pathlib import Path

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl report demo
  minissl report runs/ssl --out ssl.html
"""


@click.command(epilog=EPILOG)
@click.argument("run", type=options.FILE, metavar="RUN")
@click.option(
    "--out", type=options.FILE, metavar="FILE", help="The page.  [default: RUN/report.html]"
)
@options.json_option
def command(run: Path, out: Path | None, as_json: bool) -> None:
    """Write one page with the results, the pictures and the exact settings of a run.

    RUN is a folder that demo or train has written. The page needs no other file and no network.
    """
    from minissl.report.page import write_report

    path = write_report(run, out)
    if as_json:
        options.show_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        click.echo(str(path))
