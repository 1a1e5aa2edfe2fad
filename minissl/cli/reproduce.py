"""``minissl reproduce``: a table of the paper, earned again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from minissl.cli import options

#: what can be reproduced; :mod:`minissl.recipes.experiments` says how
NAMES = ("table1", "table2", "mlp")
#: where results are kept, with a README.md about all of them
RESULTS = Path("reference_results")

EPILOG = """
\b
Examples:
  minissl data fetch mnist
  minissl reproduce table1
  minissl reproduce table2 --seeds 1 --data mnist/validation --out runs/trial --work runs/trial-work
  minissl reproduce mlp --check

Ctrl-C finishes the iteration and saves; the same command goes on from there. Stages that are
complete are not repeated, unless what they depend on has changed.
"""


class Seeds(click.ParamType):
    """Seeds with commas between them."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of different whole numbers from 0 on."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is no list of seeds; write them as 1,2,3.", param, ctx)
        seeds = tuple(int(part) for part in parts)
        if len(set(seeds)) < len(seeds) or max(seeds) >= 2**31:
            self.fail(f"{value!r}: use each seed once, from 0 to {2**31 - 1}.", param, ctx)
        return seeds


@click.command(epilog=EPILOG)
@click.argument("name", type=click.Choice(NAMES), metavar="table1|table2|mlp")
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for the result.  [default: reference_results/NAME]",
)
@click.option(
    "--work",
    type=options.FILE,
    metavar="DIR",
    help="Folder for everything that training writes.  [default: runs/NAME]",
)
@click.option(
    "--seeds",
    type=Seeds(),
    default="1,2,3",
    show_default=True,
    help="Train every row with each of them; the median run is kept.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Train nothing: test the kept networks again and compare every figure of the result.",
)
@click.option("--fast", is_flag=True, help="A few iterations only, to see that everything works.")
@options.data_option
@options.backend_option
@options.threads_option
@options.json_option
def command(
    name: str,
    out: Path | None,
    work: Path | None,
    seeds: tuple[int, ...],
    check: bool,
    fast: bool,
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Earn a table of the paper again on the full MNIST: dense, SSL, fine-tuned, compacted.

    Prints the paper's rows beside ours, and writes the result with the compacted networks, their
    solvers, logs and pictures.
    """
    options.use_threads(threads, backend)
    is_kept_with_others = out is None
    out = out or RESULTS / name
    if check:
        _check(out, backend, data, as_json)
        return
    from minissl.cli.demo_display import DemoDisplay
    from minissl.recipes.experiments import find
    from minissl.recipes.reproduce import Reproduction
    from minissl.recipes.stages import Stopped
    from minissl.report import reproduce
    from minissl.solvers.run_folder import command_line

    work = work or Path("runs") / name
    recipe = Reproduction(find(name), out, work, seeds, data or "mnist", backend, fast)
    with DemoDisplay(options.console(sys.stderr), shown=not options.is_quiet()) as display:
        try:
            result = recipe.run(command_line(sys.argv), display)
        except Stopped as stopped:
            display.close()
            options.note(f"stopped, everything is saved in {work}; run the same command to go on")
            raise SystemExit(stopped.exit_code) from None
    reproduce.write(result, work, out)
    if is_kept_with_others:
        reproduce.write_index(RESULTS)
    if as_json:
        options.show_json(result)
        return
    options.show_table(options.table(reproduce.headings(result), reproduce.rows(result)))
    options.show_table(options.table(reproduce.SPEED_HEADINGS, reproduce.speed_rows(result)))
    click.echo(f"result: {out / 'result.json'}, README.md and pictures beside it")


def _check(out: Path, backend: str, data: str | None, as_json: bool) -> None:
    from minissl.recipes.checking import check

    checked = check(out, backend, data)
    ok = all(one["ok"] for one in checked)
    if as_json:
        options.show_json({"ok": ok, "rows": checked})
    else:
        for one in checked:
            click.echo(
                f"{one['name']}: error {100 * one['error']:.2f} % on {one['data']}, recorded "
                f"{100 * one['recorded_error']:.2f} %: {'as recorded' if one['ok'] else 'WRONG'}"
            )
            for sentence in one["wrong"]:
                click.echo(f"  {sentence}")
    if not ok:
        click.get_current_context().exit(1)
