"""What commands share: options, and how results are printed."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from minissl.errors import NonFiniteError, WeightsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Decorator = Callable[[Callable], Callable]

#: Width of tables that go to a file or a pipe, where nothing has to fit a window.
FILE_WIDTH = 200


class DatasetName(click.ParamType):
    """The name of a data set; the catalogue is loaded only when one is given.

    Parameters
    ----------
    divided : bool
        Whether ``/validation`` may stand behind the name.
    """

    name = "name"

    def __init__(self, divided: bool = False):
        self.divided = divided

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse names that are not in the catalogue."""
        known = self._names()
        if value not in known:
            self.fail(f"{value!r} is not a data set; choose one of {', '.join(known)}.", param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list:
        """Complete the names of the catalogue."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]

    def _names(self) -> list[str]:
        from minissl.data.catalogue import CATALOGUE, SOURCES

        return list(SOURCES if self.divided else CATALOGUE)


class Numbers(click.ParamType):
    """Whole numbers with commas between them; a tuple.

    Parameters
    ----------
    what : str
        What they are, in the plural.
    lowest, highest : int
    """

    name = "numbers"

    def __init__(self, what: str, lowest: int = 0, highest: int = 2**31 - 1):
        self.what, self.lowest, self.highest = what, lowest, highest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse anything else, and numbers that are given twice."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{value!r} is no list of {self.what}; write them as 1,2,3.", param, ctx)
        numbers = tuple(int(part) for part in parts)
        in_range = min(numbers) >= self.lowest and max(numbers) <= self.highest
        if len(set(numbers)) < len(numbers) or not in_range:
            self.fail(
                f"{value!r}: use each of the {self.what} once, from {self.lowest} to "
                f"{self.highest}.",
                param,
                ctx,
            )
        return numbers


class NamedPath(click.Path):
    """A file or folder that has a name: ``""`` would otherwise mean the current folder."""

    def __init__(self, path_type: type = Path) -> None:
        super().__init__(path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty name."""
        if value == "":
            self.fail("the name is empty; for the current folder write '.'.", param, ctx)
        return super().convert(value, param, ctx)


class ModelFile(NamedPath):
    """A prototxt: a file, or the bare name of one that comes with minissl."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the file that is there, else minissl's own of that name."""
        from minissl.models import FOLDER

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        packaged = FOLDER / path
        is_name = path.parent == Path() and path.suffix == ".prototxt"
        return packaged if is_name and not path.exists() and packaged.is_file() else path


FILE = NamedPath()
MODEL = ModelFile()
#: A whole number from 1 on.
POSITIVE = click.IntRange(1, 2**31 - 1)


def model_option(function: Callable) -> Callable:
    """Add ``--model``, the net prototxt."""
    return click.option(
        "--model", type=MODEL, required=True, metavar="NET", help="The net, a prototxt."
    )(function)


def solver_option(help: str) -> Decorator:
    """Add ``--solver``, a solver prototxt."""
    return click.option(
        "--solver", "solver_path", type=MODEL, required=True, metavar="SOLVER", help=help
    )


def set_option(example: str) -> Decorator:
    """Add ``--set``, fields of the solver that are given other values."""
    return click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Override a field of the solver, such as {example}; may be repeated.",
    )


def weights_option(required: bool, help: str) -> Decorator:
    """Add ``--weights``, a weight file or snapshot."""
    return click.option("--weights", type=FILE, required=required, metavar="FILE", help=help)


data_option = click.option(
    "--data",
    type=DatasetName(divided=True),
    help="Data set to read, in place of what the net's Data layers name; NAME/validation reads "
    "its training part only, divided in two.",
)
batch_size_option = click.option(
    "--batch-size", type=POSITIVE, help="Images in a batch, in place of the net's own number."
)
_backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "numpy", "numba", "cupy"]),
    default="auto",
    show_default=True,
    help="Who computes: numpy is the plain definition, numba the fast twin, cupy an NVIDIA GPU.",
)


def _allow_tf32(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    from minissl import backend as backends

    if value:
        backends.allow_tf32(True)
        context.call_on_close(lambda: backends.allow_tf32(False))


_tf32_option = click.option(
    "--tf32",
    is_flag=True,
    expose_value=False,
    callback=_allow_tf32,
    help="Let a GPU round the factors of float32 products to 10 bits: faster, right to 1e-3.",
)


def backend_option(command: Any) -> Any:
    """``--backend``, and ``--tf32`` which belongs to one of them."""
    return _backend_option(_tf32_option(command))


dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of all numbers.",
)
threads_option = click.option(
    "--threads", type=POSITIVE, help="Number of threads.  [default: all cores]"
)
fuse_option = click.option(
    "--fuse/--no-fuse",
    default=True,
    show_default=True,
    help="Run chains such as Convolution, ReLU, Pooling as one step, in phase TEST.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object instead of a table."
)


def use_threads(count: int | None, backend: str) -> int:
    """Set the number of threads; return how many the kernels use."""
    from minissl import backend as backends

    if backends.name_of(backends.get(backend)) == "numpy":
        if count not in (None, 1):
            raise click.UsageError("--threads: the numpy backend has one thread; use numba.")
        return 1
    if count is not None:
        backends.set_threads(count)
    return backends.threads()


def data_options(data: str | None, batch_size: int | None = None) -> dict[str, Any]:
    """Return the overrides for Data layers, as :class:`minissl.net.Net` takes them."""
    given = {"source": data, "batch_size": batch_size}
    return {name: value for name, value in given.items() if value is not None}


def check_data(data: str | None, nets: Sequence[Any]) -> None:
    """Refuse a --data that no net uses: figures would be of other data than was asked for.

    Raises
    ------
    click.UsageError
        When none of the nets (NetParameter) has a Data layer.
    """
    if data is not None and not any(x.type == "Data" for net in nets for x in net.layer):
        raise click.UsageError(
            f"--data {data} is for Data layers, and net '{nets[0].name}' has none; leave it out."
        )


def read_weights_only(path: Path, lacking: bool = False) -> dict[str, list]:
    """Read a weight file; of a snapshot only the weights, not the solver's own tensors.

    Layers come in the order of the file; a safetensors file keeps none, so there they are sorted.

    Parameters
    ----------
    path
        The file.
    lacking
        Whether shared blobs may be empty, as in :func:`minissl.formats.caffe_hdf5.read_weights`.

    Raises
    ------
    WeightsError
        When the file is damaged, or lacks a shared blob.
    NonFiniteError
        When a weight is NaN or infinite.
    """
    import numpy as np

    from minissl.formats.weights import read_weights
    from minissl.solvers.snapshot import PREFIX

    weights = {
        name: blobs for name, blobs in read_weights(path).items() if not name.startswith(PREFIX)
    }
    if path.suffix == ".safetensors":
        weights = dict(sorted(weights.items()))
    for name, blobs in weights.items():
        if not all(np.isfinite(blob).all() for blob in blobs):
            raise NonFiniteError(
                f"{path}: layer '{name}' holds NaN or infinity; use weights that were saved "
                "before the run diverged"
            )
        if not lacking and not all(np.size(blob) for blob in blobs):
            raise WeightsError(
                f"{path}: layer '{name}' shares a blob with a layer that only its net knows; "
                "convert the file first, by minissl convert with --model"
            )
    return weights


# --- printing ---


def show_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output; NaN and infinity become null."""
    click.echo(json.dumps(_finite(result), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def is_quiet() -> bool:
    """Whether ``--quiet`` was given."""
    return logging.getLogger("minissl").level >= logging.ERROR


def note(sentence: str) -> None:
    """Tell something beside the result, on standard error, unless ``--quiet`` was given."""
    if not is_quiet():
        click.echo(sentence, err=True)


def console(stream: IO[str] | None = None) -> Console:
    """Return a console for a stream (standard output); NO_COLOR is honoured."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() else FILE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    total: Sequence[Any] | None = None,
    names: int = 1,
) -> Table:
    """Lay out a table: names to the left, numbers to the right, ``-`` where there is no value.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells, see :func:`cell`.
    total
        A last row, set apart.
    names
        How many of the first columns hold names; the others hold numbers.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    layout = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_footer=total is not None,
    )
    for i, heading in enumerate(columns):
        layout.add_column(
            heading,
            footer=Text(cell(total[i])) if total is not None else "",
            justify="left" if i < names else "right",
            no_wrap=True,
        )
    for row in rows:
        layout.add_row(*(Text(cell(value)) for value in row))
    return layout


def cell(value: Any) -> str:
    """Write one value for people; a shape as 20x1x5x5, a float with about four digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
        return f"{value:,.{digits}f}" if value else "0"
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) or "scalar"
    return str(value)


def blocks_cell(blocks: Mapping[str, float]) -> str:
    """Write the percentages of zero blocks by tile: ``500x1: 12.0  25x50: 4.0``."""
    return "  ".join(f"{tile}: {percent:.1f}" for tile, percent in blocks.items()) or "-"


def show_table(layout: Table, to: Console | None = None) -> None:
    """Print a table; where the window is too narrow, its lines wrap and no number is lost."""
    from rich.measure import Measurement

    to = to or console()
    width = to.width
    unlimited = to.options.update(width=10_000)
    to.width = max(width, Measurement.get(to, unlimited, layout).maximum)
    to.print(layout)
    to.width = width


@contextmanager
def progress(what: str, total: int, quiet: bool = False) -> Iterator[Callable[[], None] | None]:
    """Show a progress bar on standard error while a block runs; yield what counts one up.

    Yields None where nothing is shown: without a terminal, with ``--quiet``, or when ``quiet``.
    """
    to = console(sys.stderr)
    if quiet or is_quiet() or not to.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=to, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
