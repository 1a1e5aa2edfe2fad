"""``minissl data``: fetch, verify and describe data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl data info
  minissl data fetch mnist
  minissl data verify mnist
  minissl data lmdb cifar10 cifar10_train_lmdb --pad 4
  minissl data mean cifar10_train_lmdb mean.binaryproto

Data sets are kept in $MINISSL_DATA, else in the user's cache folder.
"""

dataset_argument = click.argument("name", type=options.DatasetName(), metavar="NAME")


@click.group(epilog=EPILOG)
def command() -> None:
    """Fetch, verify and describe data sets; write them as Caffe's tools do."""


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


LMDB_EPILOG = """
\b
Examples:
  minissl data lmdb mnist mnist_train_lmdb
  minissl data lmdb cifar10 cifar10_train_lmdb --pad 4
  minissl data lmdb train.txt ilsvrc12_train_lmdb --root train/ --size 256 256
"""


@command.command(epilog=LMDB_EPILOG)
@click.argument("source", metavar="SOURCE")
@click.argument("target", type=options.FILE, metavar="OUT")
@click.option(
    "--split",
    type=click.Choice(["train", "test"]),
    default="train",
    show_default=True,
    help="Which part of the data set.",
)
@click.option(
    "--pad", type=click.IntRange(0, 64), default=0, help="Zeros on each side of each image."
)
@click.option("--root", default="", metavar="DIR/", help="Stands before each path of a list.")
@click.option(
    "--size", type=options.POSITIVE, nargs=2, metavar="H W", help="Size of all images of a list."
)
@click.option("--gray", is_flag=True, help="One channel for the images of a list, not three.")
@click.option(
    "--encode", type=click.Choice(["png", "jpeg"]), help="Store each image as such a file."
)
def lmdb(
    source: str,
    target: Path,
    split: str,
    pad: int,
    root: str,
    size: tuple[int, int] | None,
    gray: bool,
    encode: str | None,
) -> None:
    """Write a data set as an LMDB database of Datum, as Caffe's tools do.

    SOURCE is the name of a data set, or a text file that lists images: a path and a label in each
    line. OUT is a folder that is not there yet. Caffe's padded CIFAR-10 is --pad 4.
    """
    from minissl.data.catalogue import CATALOGUE, SOURCES
    from minissl.data.databases import write_image_list, write_lmdb
    from minissl.data.datasets import load
    from minissl.data.images import ImageList
    from minissl.errors import DataError

    named = source in SOURCES
    if named and (root or size or gray):
        raise click.UsageError("--root, --size and --gray are for lists of image files.")
    if not named and not Path(source).exists():
        known = ", ".join(CATALOGUE)
        raise DataError(
            f"'{source}' is neither a data set ({known}) nor a text file that lists images"
        )
    if not named and (pad or split != "train"):
        raise click.UsageError("--pad and --split are for data sets that minissl knows by name.")
    if named:
        dataset = load(source, split)
        with options.progress(source, len(dataset)) as tick:
            count = write_lmdb(target, dataset, pad, encode, tick)
    else:
        images = ImageList(source, root, size, not gray)
        with options.progress(source, len(images)) as tick:
            count = write_image_list(target, images, encode, tick)
    click.echo(f"{target}: {count:,} records")


@command.command(epilog="Example: minissl data mean cifar10_train_lmdb mean.binaryproto")
@click.argument("source", metavar="SOURCE")
@click.argument("target", type=options.FILE, metavar="OUT")
@options.json_option
def mean(source: str, target: Path, as_json: bool) -> None:
    """Write the mean image of SOURCE to OUT, as Caffe's compute_image_mean does.

    SOURCE is the folder of an LMDB database, or the name of a data set, whose training images are
    taken.
    """
    from minissl.data.catalogue import SOURCES
    from minissl.data.databases import DatumDataset, mean_of_records
    from minissl.data.datasets import load
    from minissl.formats.blobs import write_binaryproto

    dataset = load(source, "train") if source in SOURCES else DatumDataset(source)
    image = mean_of_records(dataset)
    write_binaryproto(target, image)
    values = [float(value) for value in image.mean(axis=(1, 2), dtype="float64")]
    if as_json:
        options.show_json({"mean": str(target), "shape": list(image.shape), "channels": values})
        return
    click.echo(f"{target}: {'x'.join(map(str, image.shape))}, the mean of {len(dataset):,} images")
    for channel, value in enumerate(values):
        click.echo(f"mean_value channel [{channel}]: {value:g}")


def _describe(name: str) -> dict[str, Any]:
    """Return shape and classes, and the numbers of records where the files are there."""
    from minissl.data.catalogue import find
    from minissl.data.datasets import load
    from minissl.doctor import missing_files
    from minissl.errors import DataError

    entry = find(name)
    there, damage = not missing_files(name), None
    counts: dict[str, int | None] = {"train": None, "test": None}
    try:
        if there:
            counts = {split: len(load(name, split)) for split in counts}
    except DataError as error:  # others may be whole
        damage = str(error)
        options.note(f"warning: {name}: {damage}")
    return {
        "name": name,
        "image_shape": list(entry.image_shape),
        "classes": list(entry.classes),
        **counts,
        "there": there,
        "damage": damage,
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
