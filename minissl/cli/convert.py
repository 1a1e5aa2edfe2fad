"""``minissl convert``: weights and nets from one file format to another, ONNX among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl convert lenet.caffemodel lenet.safetensors
  minissl convert snapshot_iter_500.safetensors lenet.caffemodel.gz --model lenet.prototxt
  minissl convert lenet.caffemodel matrices/      (one conv1.mtx for each layer)
  minissl convert matrices/ lenet.caffemodel --model lenet.prototxt
  minissl convert old.prototxt new.prototxt       (V0, V1 and net-level inputs are upgraded)
  minissl convert lenet.caffemodel net.prototxt   (the net that the file describes)
  minissl convert model.pt lenet.caffemodel --model lenet.prototxt --names names.json
  minissl convert resnet.onnx resnet/             (net.prototxt and net.caffemodel)
  minissl convert small/net.prototxt small/net.caffemodel small.onnx
"""


#: suffixes of state_dict files
PYTORCH = (".pt", ".pth")
#: suffixes of other files, which a folder does not get by mistake
OTHERS = (".prototxt", ".caffemodel", ".gz", ".h5", ".safetensors", ".npz", *PYTORCH)

TO_ONNX, FROM_ONNX = "an ONNX model as OUT", "an ONNX model as IN"
STATE_DICT, NET, WEIGHTS = "files of PyTorch (.pt, .pth)", "a net (.prototxt) as OUT", "weights"
#: what each kind of conversion takes beside IN and OUT
TAKES = {
    TO_ONNX: {"sparse", "data"},
    FROM_ONNX: {"batch_size"},
    STATE_DICT: {"model", "names", "data"},
    NET: {"skimcaffe"},
    WEIGHTS: {"model", "data"},
}


@click.command(epilog=EPILOG)
@click.argument("source", type=options.FILE, metavar="IN")
@click.argument(
    "more",
    type=options.NamedPath(str),  # a slash at the end counts
    metavar="[WEIGHTS] OUT",
    nargs=-1,
    required=True,
)
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
@click.option(
    "--batch-size",
    type=options.POSITIVE,
    default=1,
    show_default=True,
    metavar="N",
    help="Of an ONNX model that leaves it open.",
)
@click.option(
    "--sparse",
    is_flag=True,
    help="With .onnx as OUT: weights with many zeros as sparse initializers.",
)
@click.option(
    "--names",
    type=options.FILE,
    metavar="FILE.json",
    help='With files of PyTorch: {"layer": "module", ...}, for all layers or some.',
)
@options.data_option
def command(
    source: Path,
    more: tuple[str, ...],
    model: Path | None,
    skimcaffe: bool,
    batch_size: int,
    sparse: bool,
    names: Path | None,
    data: str | None,
) -> None:
    """Convert weights from IN to OUT; the suffix of OUT chooses the format.

    Formats: .caffemodel, .caffemodel.gz, .caffemodel.h5, .safetensors, .npz. An OUT without a
    suffix is a folder for Matrix Market files, one for the weight matrix of each layer (biases are
    left out). Such a folder as IN needs --model: biases are then those that the net begins with.
    Of a snapshot the weights are taken, not the solver's state.

    .pt and .pth are state_dict files of PyTorch: --model says what the layers are. A layer takes
    the module of its name, or the one that --names gives it, or, of what is left, the next in
    order; the mapping is printed.

    A net (.prototxt, or a .caffemodel that describes one) is written as .prototxt in today's form.

    An ONNX model becomes a folder with net.prototxt and net.caffemodel; a net and its WEIGHTS
    become an ONNX model.
    """
    target = more[-1]
    if len(more) > 2 or (len(more) == 2) != target.endswith(".onnx"):
        raise click.UsageError("Give IN and OUT, or for an ONNX model NET, WEIGHTS and OUT.onnx.")
    kind = _kind(source, target)
    _check_options(kind)
    if kind == TO_ONNX:
        _write_onnx(source, more[0], target, sparse, data)
        return
    if kind == FROM_ONNX:
        if Path(target).suffix in OTHERS:
            raise click.UsageError(
                f"An ONNX model becomes a folder with a net and its weights; {target} looks like a "
                "file."
            )
        _read_onnx(source, target, batch_size)
        return
    if kind == STATE_DICT:
        _convert_state_dict(source, Path(target), model, names, data)
        return
    if kind == NET:
        _write_net(source, Path(target), skimcaffe)
        return
    from minissl.formats.weights import write_weights

    if Path(target).exists() and Path(target).samefile(source):
        raise click.UsageError(
            f"{source} would be replaced by less than it holds; give another OUT."
        )
    name = ""
    definitions: dict[str, Any] = {}
    if source.is_dir():
        weights, name, definitions = _read_matrices(source, model, data)
    elif model is not None:
        from minissl.net import Net
        from minissl.net_weights import fitting, whole

        weights = options.read_weights_only(source, lacking=True)
        net = Net(model, "TEST", data=options.data_options(data))
        found = fitting(net.layers, weights, net.dtype, str(source), net.name, "left out")
        weights = {layer: whole(net.layers, weights)[layer] for layer in found}
        name, definitions = net.name, net.definitions()
    elif data is not None:
        raise click.UsageError("--data needs --model: a weight file alone reads no data.")
    else:
        weights = options.read_weights_only(source)
        name, definitions = _described(source)
    if target.endswith("/") or not Path(target).suffix or Path(target).is_dir():
        written = _write_matrices(Path(target), weights)
    else:
        write_weights(target, weights, name, definitions=definitions)
        written = [Path(target)]
    for path in written:
        _tell(path)


def _kind(source: Path, target: str) -> str:
    """Return which of the conversions in ``TAKES`` it is, by the suffixes."""
    if target.endswith(".onnx"):
        return TO_ONNX
    if source.suffix == ".onnx":
        return FROM_ONNX
    if source.suffix in PYTORCH or Path(target).suffix in PYTORCH:
        return STATE_DICT
    return NET if target.endswith(".prototxt") else WEIGHTS


def _check_options(kind: str) -> None:
    """Refuse options that this conversion would not look at."""
    context = click.get_current_context()
    known = set().union(*TAKES.values())
    for name in context.params:
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if name in known and given and name not in TAKES[kind]:
            where = " or ".join(one for one, options_of in TAKES.items() if name in options_of)
            raise click.UsageError(f"--{name.replace('_', '-')} is for {where}; leave it out here.")


def _write_onnx(model: Path, weights: str, target: str, sparse: bool, data: str | None) -> None:
    from minissl.onnx.convert import to_onnx

    _tell(
        to_onnx(
            options.MODEL.convert(model, None, None),
            weights,
            target,
            sparse,
            options.data_options(data),
        )
    )


def _read_onnx(source: Path, folder: str, batch_size: int) -> None:
    from minissl.onnx.convert import from_onnx

    for path in from_onnx(source, folder, batch_size):
        _tell(path)


def _convert_state_dict(
    source: Path, target: Path, model: Path | None, names: Path | None, data: str | None
) -> None:
    from minissl import state_dicts
    from minissl.formats.state_dict import read_names
    from minissl.net import Net

    if model is None:
        raise click.UsageError("Files of PyTorch need --model: it says what the layers are.")
    if source.suffix in PYTORCH and target.suffix in PYTORCH:
        raise click.UsageError("Both are files of PyTorch; give one of another format.")
    net = Net(model, "TEST", data=options.data_options(data))
    modules = read_names(names) if names is not None else None
    if source.suffix in PYTORCH:
        for layer, module in state_dicts.load(net, source, modules).items():
            click.echo(f"{layer}: {module}")
        net.save(target)
    else:
        net.load(options.read_weights_only(source, lacking=True))
        state_dicts.save(net, target, modules)
    _tell(target)


def _described(source: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and the layers of the net that a caffemodel describes, where it does."""
    from minissl.errors import ConfigError
    from minissl.formats.caffemodel import read_caffemodel_net

    if not source.name.endswith((".caffemodel", ".caffemodel.gz")):
        return "", {}
    try:
        net = read_caffemodel_net(source)
    except ConfigError:  # of a form that is too old; its weights can be read all the same
        return "", {}
    return net.name, {layer.name: layer for layer in net.layer if layer.type}


def _tell(path: Path) -> None:
    click.echo(f"{path} ({path.stat().st_size:,} bytes)")


def _write_net(source: Path, target: Path, skimcaffe: bool) -> None:
    from minissl.errors import ConfigError
    from minissl.formats.caffemodel import read_caffemodel_net
    from minissl.formats.prototxt import read_net, write_prototxt

    if source.suffix == ".prototxt":
        net = read_net(options.MODEL.convert(source, None, None))
    else:
        net = read_caffemodel_net(source, skimcaffe)
        if any(not layer.type for layer in net.layer):
            raise ConfigError(
                f"{source} holds weights and no net: its layers have no types; write the net from "
                "its prototxt"
            )
    write_prototxt(net, target)
    _tell(target)


def _read_matrices(
    folder: Path, model: Path | None, data: str | None
) -> tuple[dict[str, list], str, dict]:
    """Return the weights that a folder of Matrix Market files gives a net, its name and layers."""
    from minissl.net import Net
    from minissl.timing.matrices import read_matrices

    if model is None:
        raise click.UsageError(
            "A folder of Matrix Market files needs --model: it says what shape the weights have."
        )
    net = Net(model, "TEST", data=options.data_options(data))
    weights = read_matrices(net, folder)
    net.load(weights)  # only to refuse what it refuses; it may freeze zeros, the files do not
    biases = [layer for layer, blobs in weights.items() if len(blobs) > 1]
    if biases:
        click.echo(f"biases of {', '.join(biases)}: as the net begins, the files have none")
    return weights, net.name, net.definitions()


def _write_matrices(folder: Path, weights: dict[str, list]) -> list[Path]:
    """Write the first blob of each layer as ``LAYER.mtx``; two layers never share a file."""
    from minissl.errors import WeightsError
    from minissl.formats.folders import make_folder
    from minissl.formats.matrix_market import write_matrix
    from minissl.timing.matrices import stem_of

    paths: dict[Path, str] = {}
    for layer in weights:
        path = folder / f"{stem_of(layer)}.mtx"
        if path in paths:
            raise WeightsError(
                f"{path} would hold layer '{paths[path]}' and layer '{layer}'; convert to a format "
                "that is one file, such as .safetensors"
            )
        paths[path] = layer
    make_folder(folder)
    for path, layer in paths.items():
        write_matrix(path, weights[layer][0])
    return list(paths)
