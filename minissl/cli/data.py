"""``minissl data``: fetch, verify and describe data sets."""

from __future__ import annotations

import sys
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl data info
  minissl data fetch mnist
  minissl data verify mnist

Data sets are kept in $MINISSL_DATA, else in the user's cache folder.
"""

dataset_argument = click.argument("name", type=options.DatasetName(), metavar="NAME")


@click.group(epilog=EPILOG)
def command() -> None:
    """Fetch, verify and describe data sets."""


@command.command(epilog="Example: minissl data fetch mnist")
@dataset_argument
def fetch(name: str) -> None:
    """Download the official files of a data set; every byte is checked by SHA-256."""
    from minissl.data import fetch as fetching

    if name not in fetching.fetchable():
        click.echo(f"{name} is part of the package: there is nothing to fetch")
        return
    with _Bar(name) as bar:
        placed = fetching.fetch(name, tell=options.note, progress=bar)
    for path in placed:
        click.echo(str(path))
    if not placed:
        click.echo(f"{name} is there already, and whole")


@command.command(epilog="Example: minissl data verify mnist")
@dataset_argument
@options.json_option
def verify(name: str, as_json: bool) -> None:
    """Check the files of a data set by size and SHA-256; exit code 1 if one is not right."""
    from minissl.data.datasets import load
    from minissl.data.fetch import verify as verifying

    files = verifying(name)
    if not files:  # part of the package: reading it checks sizes and labels
        files = {f"{name} ({split})": "ok" for split in ("train", "test") if load(name, split)}
    ok = all(state == "ok" for state in files.values())
    if as_json:
        options.show_json({"name": name, "ok": ok, "files": files})
    else:
        for file, state in files.items():
            click.echo(f"{state:8} {file}")
        if not ok:
            click.echo(f"run 'minissl data fetch {name}'")
    if not ok:
        click.get_current_context().exit(1)


@command.command(epilog="Example: minissl data info")
@click.argument("name", type=options.DatasetName(), metavar="[NAME]", required=False)
@options.json_option
def info(name: str | None, as_json: bool) -> None:
    """Describe one data set, or all: image shape, classes, where it lies, whether it is there."""
    from minissl.data.catalogue import CATALOGUE, data_folder

    names = [name] if name else list(CATALOGUE)
    described = [_describe(one) for one in names]
    if as_json:
        options.show_json({"folder": str(data_folder()), "data": described})
        return
    headings = ["name", "image", "classes", "training", "test", "there"]
    fields = ["name", "image_shape", "classes", "train", "test", "there"]
    rows = [[one[field] for field in fields] for one in described]
    for row in rows:
        row[2] = len(row[2])
    options.show_table(options.table(headings, rows, names=2))
    click.echo(f"folder: {data_folder()}")


def _describe(name: str) -> dict[str, Any]:
    """Return shape and classes, and the numbers of records where the files are there."""
    from minissl.data.catalogue import find
    from minissl.data.datasets import load
    from minissl.doctor import missing_files

    entry = find(name)
    there = not missing_files(name)
    return {
        "name": name,
        "image_shape": list(entry.image_shape),
        "classes": list(entry.classes),
        "train": len(load(name, "train")) if there else None,
        "test": len(load(name, "test")) if there else None,
        "there": there,
    }


class _Bar:
    """A progress bar in the form that pooch's downloader wants."""

    def __init__(self, name: str):
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        self.total = 0
        console = options.console(sys.stderr)
        self._progress = Progress(
            "{task.description}",
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
            disable=options.is_quiet() or not console.is_terminal,
        )
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        """Count bytes that have arrived."""
        self._progress.update(self._task, advance=size, total=self.total)

    def reset(self) -> None:
        """Start again from 0, as pooch asks at the end of each file."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Leave the bar open for the next file."""
