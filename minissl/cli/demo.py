"""``minissl demo``: the whole method on LeNet, in a few minutes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl demo
  minissl demo --out runs/seed2 --seed 2
  minissl demo --json > demo.json

Ctrl-C finishes the iteration and saves; the same command goes on from there. Stages that are
complete are not repeated, unless what they depend on has changed.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for weights, logs, pictures and the report.  [default: demo; with --fast "
    "demo-fast]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**31 - 1),
    default=1,
    show_default=True,
    help="Of the initial weights.",
)
@click.option("--fast", is_flag=True, help="A few iterations only, to see that everything works.")
@options.backend_option
@options.threads_option
@options.json_option
def command(
    out: Path | None, seed: int, fast: bool, backend: str, threads: int | None, as_json: bool
) -> None:
    """Make LeNet smaller and faster on real digits: train, sparsify, fine-tune, compact, measure.

    Needs no download: 6,000 digits of MNIST are part of the package.
    """
    from minissl.cli.demo_display import DemoDisplay
    from minissl.recipes.demo import Demo
    from minissl.recipes.stages import Stopped
    from minissl.report.page import write_report
    from minissl.report.plots import plot

    options.use_threads(threads, backend)
    out = out or Path("demo-fast" if fast else "demo")
    demo = Demo(out, seed, backend, fast)
    with DemoDisplay(options.console(sys.stderr), shown=not options.is_quiet()) as display:
        try:
            result = demo.run(display)
        except Stopped as stopped:
            display.close()
            options.note(f"stopped, everything is saved in {out}; run the same command to go on")
            raise SystemExit(stopped.exit_code) from None
    report = write_report(out)
    plot([out])
    if as_json:
        options.show_json({**result, "report": str(report)})
        return
    _show(result)
    click.echo(f"report: {report}")
    click.echo(f"small network: {out / 'compact' / 'net.prototxt'} and net.caffemodel beside it")


def _show(result: Mapping[str, Any]) -> None:
    from minissl.report import tables

    rows = [*tables.demo_rows(result), *tables.paper_rows(result)]
    options.show_table(options.table(tables.demo_headings(result), rows))
    click.echo(
        f"The paper's rows are for {result['paper'][0]['data']}, "
        "ours for the 5,000 + 1,000 digits that come with minissl.\n"
    )
    dense, compact = result["rows"][0], result["rows"][-1]
    for size, ratios in tables.speed_ups(result).items():
        layers = ", ".join(f"{name} {ratios[name]:.1f}x" for name in tables.LAYERS)
        click.echo(
            f"batch {size}: the compacted network is {ratios['all']:.1f} times as fast ({layers})"
        )
    click.echo(
        f"weights: {dense['bytes'] / compact['bytes']:.1f} times smaller; outputs differ by at "
        f"most {result['compaction']['max_abs_difference']:.1e}"
    )
