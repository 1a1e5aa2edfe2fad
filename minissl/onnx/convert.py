"""Models between files: ``net.onnx`` to prototxt and caffemodel, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError, MinisslError
from minissl.formats.folders import make_folder
from minissl.formats.prototxt import write_prototxt
from minissl.formats.weights import write_weights
from minissl.net import Net
from minissl.onnx import files
from minissl.onnx.export import export
from minissl.onnx.graph import graph_of
from minissl.onnx.patterns import recognize
from minissl.onnx.translation import Translated, input_shapes, translate

NET, WEIGHTS = "net.prototxt", "net.caffemodel"


def read(path: str | Path, batch: int = 1) -> Translated:
    """Read an ONNX model as prototxt and weights.

    Parameters
    ----------
    path
        The model; tensors in other files are looked for in its folder.
    batch : int
        The batch size, where the model leaves it open.

    Raises
    ------
    MinisslError
        If the file is damaged, or a node of it cannot be said in prototxt.
    """
    model = files.read_model(path)
    try:
        graph = recognize(graph_of(model, Path(path).parent))
        return translate(graph, input_shapes(graph, batch))
    except MinisslError as reason:
        raise type(reason)(f"{path}: {reason}") from None


def from_onnx(path: str | Path, folder: str | Path, batch: int = 1) -> list[Path]:
    """Convert a model to ``net.prototxt`` and ``net.caffemodel`` in a folder.

    Returns
    -------
    list of Path
        The files, the prototxt first.

    Raises
    ------
    MinisslError
        As :func:`read`, and if a file cannot be written.
    """
    made = read(path, batch)
    types = {layer.name: layer.type for layer in made.net_param.layer}
    folder = make_folder(folder)
    written = [folder / NET]
    if made.weights:
        written.append(folder / WEIGHTS)
        write_weights(written[1], made.weights, made.net_param.name, types)
    write_prototxt(made.net_param, written[0])
    return written


def to_onnx(
    model: str | Path,
    weights: str | Path,
    path: str | Path,
    sparse: bool = False,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Convert a net and its weights to an ONNX model, which the checker of ONNX has accepted.

    Parameters
    ----------
    model, weights
        The net's prototxt and its weights.
    path
        The model to write.
    sparse : bool
        Write weights with enough zeros as sparse initializers.
    data : dict, optional
        Overrides for Data layers, which decide the shape of the input.

    Raises
    ------
    MinisslError
        If weights are missing or do not fit, or a layer has no counterpart.
    """
    net = Net(model, "TEST", backend="numpy", data=data)
    found = net.load(weights)
    missing = [layer.name for layer in net.layers if layer.parameters and layer.name not in found]
    if missing:
        raise ConfigError(
            f"{weights} has no weights for {', '.join(missing)}; a model needs them all."
        )
    files.write_model(export(net, sparse), path)
    return Path(path)
