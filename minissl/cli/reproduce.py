"""``minissl reproduce``: a table of the paper, earned again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from minissl.cli import options
from minissl.recipes.experiments import NAMES

#: where results of minissl's own experiments are kept, with a README.md about all of them
RESULTS = Path("reference_results")

EPILOG = """
\b
Examples:
  minissl data fetch mnist
  minissl reproduce table1
  minissl reproduce table1 --parallel 3
  minissl reproduce variants --work runs/table1
  minissl reproduce table2 --seeds 1 --data mnist/validation --out runs/trial --work runs/trial-work
  minissl reproduce mlp --check
  minissl reproduce table1 --show > mine.toml
  minissl reproduce mine.toml

table1, table2 and mlp are the paper's; variants is LeNet 3 of table1 learned in other ways, with
controls. FILE.toml is an experiment of your own: start from one that --show prints. Its solvers are
found beside it, or among those that come with minissl.

Ctrl-C finishes the iteration and saves; the same command goes on from there. Stages that are
complete are not repeated, unless what they depend on has changed. --parallel and --scheduler need
dask.distributed (pip install 'minissl[parallel]'); the results are the same without.
"""


class ExperimentName(click.ParamType):
    """The name of an experiment, or the path of a TOML file that describes one."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is neither."""
        if value not in NAMES and Path(value).suffix != ".toml":
            self.fail(
                f"{value!r} is no experiment; use {', '.join(NAMES)}, or a file that ends in "
                ".toml.",
                param,
                ctx,
            )
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list:
        """Complete names, else let the shell complete files."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name) for name in NAMES if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]


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
@click.argument("name", type=ExperimentName(), metavar="|".join((*NAMES, "FILE.toml")))
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for the result.  [default: reference_results/NAME; of a FILE.toml "
    "runs/FILE-results]",
)
@click.option(
    "--work",
    type=options.FILE,
    metavar="DIR",
    help="Folder for everything that training writes.  [default: runs/NAME; of a FILE.toml "
    "runs/FILE-work]",
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
@click.option("--show", is_flag=True, help="Print the experiment's file, and do nothing else.")
@click.option("--fast", is_flag=True, help="A few iterations only, to see that everything works.")
@click.option(
    "--parallel",
    type=options.POSITIVE,
    metavar="N",
    help="Train rows and seeds side by side in N processes, which share the threads.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Train them on the workers of this dask scheduler. They must see the --work folder under "
    "the same path and have the data; --threads is for each of them.",
)
@click.option(
    "--no-collapse-check",
    is_flag=True,
    help="Go on when a layer loses all of its groups within the first epoch.",
)
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
    show: bool,
    fast: bool,
    parallel: int | None,
    scheduler: str | None,
    no_collapse_check: bool,
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run an experiment: train its rows, compact them, and put them beside the paper's.

    Each row is trained with every seed on the full MNIST: dense, SSL, fine-tuned, compacted. Prints
    the paper's rows beside ours, and writes the result with the compacted networks, their solvers,
    logs and pictures.
    """
    if parallel and scheduler:
        raise click.UsageError("--parallel and --scheduler exclude each other.")
    is_own = name not in NAMES
    stem = Path(name).stem
    is_kept_with_others = out is None and not is_own
    out = out or (Path("runs") / f"{stem}-results" if is_own else RESULTS / name)
    if check:
        options.use_threads(threads, backend)
        _check(out, backend, data, as_json)
        return
    from minissl.recipes.experiment_files import find

    experiment = find(name)
    if show:
        click.echo(experiment.file.read_text("utf-8"), nl=False)
        return
    from minissl.cli.demo_display import DemoDisplay
    from minissl.recipes.parallel import Workers
    from minissl.recipes.reproduce import Reproduction
    from minissl.recipes.stages import Stopped
    from minissl.report import reproduce
    from minissl.solvers.run_folder import command_line

    options.use_threads(None if scheduler else threads, backend)
    work = work or Path("runs") / (f"{stem}-work" if is_own else name)
    workers = Workers(parallel or 1, scheduler, threads) if parallel or scheduler else None
    recipe = Reproduction(experiment, out, work, seeds, data, backend, fast, not no_collapse_check)
    with DemoDisplay(options.console(sys.stderr), shown=not options.is_quiet()) as display:
        try:
            result = recipe.run(command_line(sys.argv), display, workers)
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
