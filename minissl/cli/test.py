"""``minissl test``: the mean of every output of a network over a test set."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.net import Net

EPILOG = """
\b
Examples:
  minissl test --model lenet.prototxt --weights lenet_iter_10000.caffemodel --data mnist
  minissl test --model runs/a/net.prototxt --weights runs/a/lenet_iter_500.safetensors --json
"""


@click.command(epilog=EPILOG)
@options.model_option
@options.weights_option(True, "Trained weights: .caffemodel, .safetensors, .npz or a snapshot.")
@click.option(
    "--iterations",
    type=options.POSITIVE,
    help="Number of batches.  [default: the whole test set once]",
)
@options.data_option
@options.batch_size_option
@options.backend_option
@options.dtype_option
@options.threads_option
@options.fuse_option
@options.json_option
def command(
    model: Path,
    weights: Path,
    iterations: int | None,
    data: str | None,
    batch_size: int | None,
    backend: str,
    dtype: str,
    threads: int | None,
    fuse: bool,
    as_json: bool,
) -> None:
    """Run a network over a test set and print the mean of every output.

    NET is run in phase TEST. Its conv_mode is followed: a compacted or sparse network is tested
    in the form in which it is timed.
    """
    from minissl.net import Net
    from minissl.solvers.solver import mean_outputs

    options.use_threads(threads, backend)
    data_options = options.data_options(data, batch_size)
    net = Net(model, "TEST", backend, dtype, data=data_options, fuse=fuse)
    options.check_data(data, [net.param])
    net.load(weights)
    batches, images = _batches(net, iterations)
    start = time.perf_counter()
    outputs = mean_outputs(net, batches)
    seconds = time.perf_counter() - start

    if as_json:
        options.show_json({"outputs": outputs, "images": images, "seconds": seconds})
        return
    for name, value in outputs.items():
        click.echo(f"{name} = {value:g}")
    rate = f"{images / seconds:,.0f} images/s" if seconds > 0 else "at once"
    click.echo(f"{images:,} images in {seconds:.2f} s ({rate})")


def _batches(net: Net, iterations: int | None) -> tuple[int, int]:
    """Return how many batches to run, and how many images they hold."""
    from minissl.errors import ConfigError
    from minissl.layers.records import Records

    given = ("Input", "MemoryData")  # by a caller, which a command is not
    sources = [layer for layer in net.layers if layer.is_data and layer.type_name not in given]
    if not sources:
        raise ConfigError(
            f"net '{net.name}' reads no data set in phase TEST; test a net with a Data layer"
        )
    source: Any = next((layer for layer in sources if isinstance(layer, Records)), None)
    if source is None:
        if iterations is None:
            raise ConfigError(
                f"layer '{sources[0].name}' ({sources[0].type_name}) does not say how many records "
                "it has; give the number of batches with --iterations"
            )
        return iterations, iterations * net.bottoms_and_tops(sources[0])[1][0].shape[0]
    records, size = len(source.reader.dataset), source.reader.batch_size
    batches = iterations or math.ceil(records / size)
    if iterations is None and size > records:
        options.note(
            f"note: a batch of {size} is more than the {records:,} images, so some count more "
            "often than others; choose another --batch-size"
        )
    elif iterations is None and records % size:
        options.note(
            f"note: batches of {size} do not divide {records:,} images, so the first "
            f"{batches * size - records} count twice; choose another --batch-size"
        )
    return batches, batches * size
