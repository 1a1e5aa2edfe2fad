"""``minissl convert``: weights from one file format to another, old nets to the current form."""

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
  minissl convert old.prototxt new.prototxt       (V0, V1 and net-level inputs are upgraded)
  minissl convert lenet.caffemodel net.prototxt   (the net that the file describes)
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
@click.option(
    "--skimcaffe",
    is_flag=True,
    help="With a .prototxt as OUT: SkimCaffe wrote IN, whose conv_mode has other numbers.",
)
@options.data_option
def command(
    source: Path, target: str, model: Path | None, skimcaffe: bool, data: str | None
) -> None:
    """Convert weights from IN to OUT; the suffix of OUT chooses the format.

    Formats: .caffemodel, .caffemodel.gz, .safetensors, .npz. An OUT without a suffix is a folder
    for Matrix Market files, one for the weight matrix of each layer (biases are left out). Of a
    snapshot the weights are taken, not the solver's state.

    A net (.prototxt, or a .caffemodel that describes one) is written as .prototxt in today's form.
    """
    if target.endswith(".prototxt"):
        if model is not None or data is not None:
            raise click.UsageError("--model and --data are for weights; OUT is a .prototxt.")
        _write_net(source, Path(target), skimcaffe)
        return
    if skimcaffe:
        raise click.UsageError("--skimcaffe is for nets; OUT must be a .prototxt.")
    from minissl.formats.weights import write_weights

    weights = options.read_weights_only(source)
    name, definitions = "", {}
    if model is not None:
        from minissl.net import Net

        net = Net(model, "TEST", data=options.data_options(data))
        weights = {found: weights[found] for found in net.load(weights)}
        name, definitions = net.name, net.definitions()
    elif data is not None:
        raise click.UsageError("--data needs --model: a weight file alone reads no data.")
    if target.endswith("/") or not Path(target).suffix or Path(target).is_dir():
        written = _write_matrices(Path(target), weights)
    else:
        write_weights(target, weights, name, definitions=definitions)
        written = [Path(target)]
    for path in written:
        _tell(path)


def _tell(path: Path) -> None:
    click.echo(f"{path} ({path.stat().st_size:,} bytes)")


def _write_net(source: Path, target: Path, skimcaffe: bool) -> None:
    from minissl.formats.caffemodel import read_caffemodel_net
    from minissl.formats.prototxt import read_net, write_prototxt

    if source.suffix == ".prototxt":
        net = read_net(source)
    else:
        net = read_caffemodel_net(source, skimcaffe)
    write_prototxt(net, target)
    _tell(target)


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
