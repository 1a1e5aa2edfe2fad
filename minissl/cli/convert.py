"""``minissl convert``: weights from one file format to another."""

from __future__ import annotations

from pathlib import Path

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl convert lenet.caffemodel lenet.safetensors
  minissl convert snapshot_iter_500.safetensors lenet.caffemodel.gz --model lenet.prototxt
  minissl convert lenet.caffemodel matrices/      (one conv1.mtx for each layer)
"""


@click.command(epilog=EPILOG)
@click.argument("source", type=options.FILE, metavar="IN")
@click.argument("target", type=click.Path(), metavar="OUT")
@click.option(
    "--model",
    type=options.MODEL,
    metavar="NET",
    help="The net: checks that the weights fit, and gives a .caffemodel its name and layer types.",
)
@options.data_option
def command(source: Path, target: str, model: Path | None, data: str | None) -> None:
    """Convert weights from IN to OUT; the suffix of OUT chooses the format.

    Formats: .caffemodel, .caffemodel.gz, .safetensors, .npz. An OUT without a suffix is a folder
    for Matrix Market files, one for the weight matrix of each layer (biases are left out). Of a
    snapshot the weights are taken, not the solver's state.
    """
    from minissl.formats.weights import write_weights

    weights = options.read_weights_only(source)
    name, types = "", {}
    if model is not None:
        from minissl.net import Net

        net = Net(model, "TEST", data=options.data_options(data))
        weights = {found: weights[found] for found in net.load(weights)}
        name, types = net.name, {layer.name: layer.type_name for layer in net.layers}
    elif data is not None:
        raise click.UsageError("--data needs --model: a weight file alone reads no data.")
    if target.endswith("/") or not Path(target).suffix or Path(target).is_dir():
        written = _write_matrices(Path(target), weights)
    else:
        write_weights(target, weights, name, types)
        written = [Path(target)]
    for path in written:
        click.echo(f"{path} ({path.stat().st_size:,} bytes)")


def _write_matrices(folder: Path, weights: dict[str, list]) -> list[Path]:
    """Write the first blob of each layer as ``LAYER.mtx``."""
    from minissl.formats.matrix_market import write_matrix

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for layer, blobs in weights.items():
        path = folder / f"{layer.replace('/', '_')}.mtx"
        write_matrix(path, blobs[0])
        written.append(path)
    return written
