"""``minissl sparsity``: how sparse weights are, in every sense that is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.sparsity.statistics import BlobStatistics

EPILOG = """
\b
Examples:
  minissl sparsity lenet_iter_10000.caffemodel
  minissl sparsity lenet.safetensors --model lenet_ssl.prototxt --json

\b
Percentages of zeros:
  element    weights with |w| < 0.0001
  row        rows of the weight matrix (filters, output neurons) that are exactly zero
  column     columns (shape fibres, input neurons) that are exactly zero
  channel    input channels that no filter reads
  kernel2d   2-D kernels without a weight
  XxY        blocks of X columns and Y rows, as block_group_lasso of the net configures them
"""


@click.command(epilog=EPILOG)
@click.argument("weights", type=options.FILE, metavar="WEIGHTS")
@click.option(
    "--model",
    type=options.MODEL,
    metavar="NET",
    help="The net: tells conv groups and configured blocks.",
)
@options.data_option
@options.json_option
def command(weights: Path, model: Path | None, data: str | None, as_json: bool) -> None:
    """Show how sparse the weights of each layer are.

    Layers with several conv groups have a line for each. Without --model every layer counts as
    one group, and its blocks are not known.
    """
    if model is None:
        if data is not None:
            raise click.UsageError("--data needs --model: a weight file alone reads no data.")
        measured = _of_file(weights)
    else:
        measured = _of_net(model, weights, data)
    rows = [row for blob in measured for row in blob.to_json()]
    if as_json:
        options.show_json({"layers": rows})
    else:
        _show(rows)


def _of_file(path: Path) -> list[BlobStatistics]:
    """Measure the first blob of every layer, its weights."""
    from minissl.errors import WeightsError
    from minissl.sparsity.statistics import statistics_of

    weights = options.read_weights_only(path)
    measured = [
        statistics_of(name, 0, blobs[0])
        for name, blobs in weights.items()
        if blobs[0].ndim > 1 and blobs[0].size
    ]
    if not measured:
        raise WeightsError(f"{path} holds no weight matrices; is it the right file?")
    return measured


def _of_net(model: Path, path: Path, data: str | None) -> list[BlobStatistics]:
    """Measure the weights of a network, with its conv groups and tiles."""
    from minissl.channels import WITH_WEIGHTS, dense_weights
    from minissl.net import Net
    from minissl.sparsity.groups import block_tiles
    from minissl.sparsity.statistics import statistics_of

    net = Net(model, "TEST", data=options.data_options(data))
    net.load(path)
    measured = []
    for layer in net.layers:
        if layer.type_name in WITH_WEIGHTS:
            parameter, w = layer.parameters[0], dense_weights(layer)
            found = statistics_of(layer.name, 0, w, parameter.conv_groups)
            # group lasso divides the weights as they are stored: a transposed InnerProduct's (K, F)
            stored = w.T if getattr(layer, "transpose", False) else w
            tiles = block_tiles(parameter.spec, stored.shape, f"layer '{layer.name}', blob 0")
            blocks = statistics_of(layer.name, 0, stored, tiles=tiles).blocks
            measured.append(replace(found, blocks=blocks))
    return measured


def _show(rows: list[dict[str, Any]]) -> None:
    """Print the table; the group column only where there are groups."""
    grouped = any(row["group"] for row in rows)
    percentages = ["element", "row", "column", "channel", "kernel2d"]
    headings = ["layer", "shape", *(["group"] if grouped else []), *percentages, "blocks"]
    cells = [
        [
            row["name"],
            row["shape"],
            *([row["group"]] if grouped else []),
            *(row[name] for name in percentages),
            options.blocks_cell(row["blocks"]),
        ]
        for row in rows
    ]
    click.echo("Percent of zeros")
    options.show_table(options.table(headings, cells, names=2))
