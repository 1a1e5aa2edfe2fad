"""``minissl reproduce``: a table or figure of the paper, earned again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options
from minissl.recipes.experiments import NAMES as TRAINED
from minissl.recipes.experiments import RESULTS
from minissl.recipes.speed_experiments import NAMES as MEASURED

NAMES = (*TRAINED, *MEASURED)
#: options that only experiments of one kind have
OF_TRAINED = ("work", "seeds", "parallel", "scheduler", "no_collapse_check", "data")
OF_MEASURED = ("matrices",)
#: options of what --check and --time do not do
OF_A_RUN = ("work", "seeds", "parallel", "scheduler", "no_collapse_check", "fast")

if TYPE_CHECKING:
    from minissl.recipes.reproduce import Reproduction
    from minissl.recipes.speed_experiments import SpeedExperiment

EPILOG = """
\b
Examples:
  minissl data fetch mnist
  minissl reproduce table1
  minissl reproduce table1 --parallel 3
  minissl reproduce table3 --parallel 2
  minissl reproduce variants --work runs/table1
  minissl reproduce table2 --seeds 1 --data mnist/validation --out runs/trial --work runs/trial-work
  minissl reproduce mlp --check
  minissl reproduce table1 --time --threads 1
  minissl reproduce table1 --show > mine.toml
  minissl reproduce mine.toml
  minissl reproduce table4 --matrices matrixmarket
  minissl reproduce fig1

table1, table2 and mlp (MNIST), table3 and depth (CIFAR-10, hours to days) are the paper's. channels
narrows the blocks of a residual network (CIFAR-10, hours). variants is LeNet 3 of table1 learned in
other ways, with controls. table4, fig1 and fig8 train nothing: they
measure how many times faster AlexNet's convolutions are with sparse weights. table4 and fig8 use
those that the authors published, which are not part of minissl: copy the folder
experiments/sparsity/matrixmarket of https://github.com/wenwei202/caffe (branch scnn) and name it
with --matrices or MINISSL_MATRICES; fig1 adds them where they are given. FILE.toml is an experiment
of your own: start from one that --show prints. Its solvers are found beside it, or among those that
come with minissl.

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


@click.command(epilog=EPILOG)
@click.argument("name", type=ExperimentName(), metavar="|".join((*NAMES, "FILE.toml")))
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for the result.  [default: reference_results/NAME; of a FILE.toml "
    "runs/FILE-results, with --fast or --data another one beside it]",
)
@click.option(
    "--work",
    type=options.FILE,
    metavar="DIR",
    help="Folder for everything that training writes.  [default: runs/NAME; of a FILE.toml "
    "runs/FILE-work, with --fast or --data another one beside it]",
)
@click.option(
    "--seeds",
    type=options.Numbers("seeds"),
    default="1,2,3",
    show_default=True,
    help="Train every row with each of them; the median run is kept.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Train nothing: test the kept networks again, and compare their error, structure, FLOP "
    "and size with the result. Times, and networks that are not kept, cannot be measured again; of "
    "them is compared what follows from other figures and from the kept logs.",
)
@click.option(
    "--time",
    "again",
    is_flag=True,
    help="Train nothing: time the kept networks again, on this machine, and write the times into "
    "the result and its page.",
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
@click.option(
    "--matrices",
    type=options.FILE,
    metavar="DIR",
    envvar="MINISSL_MATRICES",
    show_envvar=True,
    help="Folder of the published sparse weights, for table4, fig1 and fig8.",
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
    again: bool,
    show: bool,
    fast: bool,
    parallel: int | None,
    scheduler: str | None,
    no_collapse_check: bool,
    matrices: Path | None,
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run an experiment: train its rows, compact them, and put them beside the paper's.

    Each row is trained with every seed on all training images: dense, SSL, fine-tuned, compacted.
    Prints the paper's rows beside ours, and writes the result with the compacted networks, their
    solvers, logs and pictures. Experiments of speed-ups train nothing, and time layers instead.
    """
    if parallel and scheduler:
        raise click.UsageError("--parallel and --scheduler exclude each other.")
    if show and (check or again or as_json):
        raise click.UsageError("--show prints a file; leave out --check, --time and --json.")
    is_own = name not in NAMES
    stem = Path(name).stem
    # what a trial writes stays away from the results and trainings of whole runs
    trial = "-fast" if fast else ""
    if data and not check:
        trial += f"-{data.replace('/', '-')}"
    is_kept_with_others = out is None and not is_own and not trial
    if out is None:
        out = Path("runs") / f"{stem}{trial}-results" if is_own or trial else RESULTS / name
    if check and again:
        raise click.UsageError("--check and --time exclude each other.")
    if again:
        _refuse((*OF_A_RUN, "data", "matrices"), "for a run that trains", "--time")
        options.use_threads(threads, backend)
        _time(out, backend, as_json)
        return
    if check:
        _refuse(OF_A_RUN, "for a run that trains or measures", "--check")
        options.use_threads(threads, backend)
        _check(None if is_own else name, out, backend, data, matrices, as_json)
        return
    from minissl.recipes.experiment_files import find
    from minissl.recipes.experiments import Experiment
    from minissl.recipes.reproduce import Reproduction
    from minissl.report import index, reproduce, speed

    experiment = find(name)
    if show:
        click.echo(experiment.file.read_text("utf-8"), nl=False)
        return
    if isinstance(experiment, Experiment):
        _refuse(OF_MEASURED, "for an experiment that measures speed-ups", name)
        work = work or Path("runs") / (f"{stem}{trial}-work" if is_own or trial else name)
        checked = not no_collapse_check
        recipe = Reproduction(experiment, out, work, seeds, data, backend, fast, checked)
        result = _train(recipe, (parallel, scheduler, threads))
        reproduce.write(result, work, out)
        tables = [
            (reproduce.headings(result), reproduce.rows(result)),
            (reproduce.speed_headings(result), reproduce.speed_rows(result)),
        ]
    else:
        _refuse(OF_TRAINED, "for an experiment that trains", name)
        result = _measure(experiment, out, matrices, threads, backend, fast)
        speed.write(result, out)
        for sentence in speed.notes(result):
            options.note(sentence.strip("*"))
        tables = [(speed.headings(result), speed.rows(result))]
    if is_kept_with_others:
        index.write_index(RESULTS)
    if as_json:
        options.show_json(result)
        return
    for headings, rows in tables:
        options.show_table(options.table(headings, rows, names=1 if "measure" not in result else 2))
    click.echo(f"result: {out / 'result.json'}, README.md and pictures beside it")


def _refuse(names: tuple[str, ...], meant: str, here: str) -> None:
    """Refuse options that an experiment or a mode does not have; the environment may set them."""
    from click.core import ParameterSource

    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is {meant}; leave it out for {here}.")


def _train(
    recipe: Reproduction, workers: tuple[int | None, str | None, int | None]
) -> dict[str, Any]:
    """Run an experiment that trains; after a signal, say how to go on."""
    from minissl.cli.demo_display import DemoDisplay
    from minissl.recipes.parallel import Workers
    from minissl.recipes.stages import Stopped
    from minissl.solvers.run_folder import command_line

    parallel, scheduler, threads = workers
    options.use_threads(None if scheduler else threads, recipe.backend)
    several = Workers(parallel or 1, scheduler, threads) if parallel or scheduler else None
    with DemoDisplay(options.console(sys.stderr), shown=not options.is_quiet()) as display:
        try:
            return recipe.run(command_line(sys.argv), display, several)
        except Stopped as stopped:
            display.close()
            options.note(
                f"stopped, everything is saved in {recipe.work}; run the same command to go on"
            )
            raise SystemExit(stopped.exit_code) from None


def _measure(
    experiment: SpeedExperiment,
    out: Path,
    matrices: Path | None,
    threads: int | None,
    backend: str,
    fast: bool,
) -> dict[str, Any]:
    """Run an experiment that measures speed-ups."""
    from minissl import doctor
    from minissl.recipes.speed import SpeedMeasurement
    from minissl.solvers.run_folder import command_line

    forced = doctor.blas_overrides()
    if forced:
        options.note(
            f"warning: {', '.join(forced)} is set, so that BLAS does not choose its fastest "
            "kernels, and the dense baseline is slower than it could be; unset it"
        )
    recipe = SpeedMeasurement(
        experiment, out, matrices, threads=threads, backend=backend, fast=fast
    )
    return recipe.run(command_line(sys.argv), options.note)


def _time(out: Path, backend: str, as_json: bool) -> None:
    from minissl.recipes.retiming import time_again
    from minissl.report import reproduce

    result = time_again(out, backend, options.note)
    reproduce.write_times(result, out)
    if as_json:
        options.show_json(result)
        return
    headings, rows = reproduce.speed_headings(result), reproduce.speed_rows(result)
    options.show_table(options.table(headings, rows, names=1))
    click.echo(f"result: {out / 'result.json'}, and README.md beside it")


def _check(
    name: str | None,
    out: Path,
    backend: str,
    data: str | None,
    matrices: Path | None,
    as_json: bool,
) -> None:
    from minissl.recipes.checking import check

    checked = check(out, backend, data, matrices, name)
    ok = all(one["ok"] for one in checked)
    if as_json:
        options.show_json({"ok": ok, "rows": checked})
    else:
        for one in checked:
            what = "the rest as recorded" if data and "error" in one else "as recorded"
            click.echo(f"{_told(one)}: {what if one['ok'] else 'WRONG'}")
            for sentence in one["wrong"]:
                click.echo(f"  {sentence}")
    if not ok:
        click.get_current_context().exit(1)


def _told(one: dict[str, Any]) -> str:
    """Say what of a row was compared."""
    if "compared" in one:
        return f"{one['name']}: {one['compared']}"
    return (
        f"{one['name']}: error {100 * one['error']:.2f} % on {one['data']}, recorded "
        f"{100 * one['recorded_error']:.2f} %"
    )
