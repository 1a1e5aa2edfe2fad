"""Weights from Matrix Market files, for the layers of a net or for layers that are known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.channels import WITH_WEIGHTS
from minissl.errors import WeightsError
from minissl.formats.matrix_market import read_matrix, read_shape
from minissl.net import Net
from minissl.timing.known_layers import KnownLayer, in_words, net_of, recognise

#: what a file of layer ``conv1`` may be called; the first that is there counts
PATTERNS = ("{}.mtx", "coo_{}.weight", "{}.weight")
#: a conv group's matrix: ``conv2_1`` of ``conv2``
BAND = re.compile(r"(.+)_[1-9]\d*")


def load_matrices(net: Net, folder: str | Path) -> list[str]:
    """Take the weights of a net from Matrix Market files; return the layers that found one.

    Raises
    ------
    WeightsError
        When a matrix does not fit its layer, or no layer found a file.
    """
    return net.load(read_matrices(net, folder))


def read_matrices(net: Net, folder: str | Path) -> dict[str, list[np.ndarray]]:
    """Read the weights of a net's convolutions and inner products from Matrix Market files.

    For a layer ``conv1`` the file is ``conv1.mtx``, ``coo_conv1.weight`` or ``conv1.weight``, an
    F x K matrix.

    Returns
    -------
    dict
        Each layer that found a file -> its weights, and its bias as the net has it.

    Raises
    ------
    WeightsError
        When a matrix does not fit its layer, or no layer found a file.
    """
    weights = {}
    for layer in net.layers:
        if layer.type_name not in WITH_WEIGHTS:
            continue
        path = file_of(layer.name, folder)
        if path is None:
            continue
        matrix, own = read_matrix(path), layer.parameters[0]
        if matrix.shape != own.matrix_shape:
            raise WeightsError(
                f"{path} holds a {matrix.shape[0]} x {matrix.shape[1]} matrix where layer "
                f"'{layer.name}' has {own.matrix_shape[0]} x {own.matrix_shape[1]}; use the net "
                "that it belongs to"
            )
        others = [to_host(parameter.data) for parameter in layer.parameters[1:]]
        weights[layer.name] = [matrix.reshape(own.shape), *others]
    if not weights:
        raise WeightsError(
            f"{folder} holds no matrix for a layer of net '{net.name}'; name the files "
            "LAYER.mtx or coo_LAYER.weight"
        )
    return weights


def stem_of(layer: str) -> str:
    """Return what a layer is called in names of files, where slashes cannot be."""
    return re.sub(r"[/\\]", "_", layer)


def file_of(layer: str, folder: str | Path) -> Path | None:
    """Return the file that holds a layer's matrix, or None."""
    paths = (Path(folder, pattern.format(stem_of(layer))) for pattern in PATTERNS)
    return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class Recognised:
    """The layers that matrices of a folder belong to.

    Attributes
    ----------
    layers : dict
        Name of a file's layer -> what is known about it.
    skipped : list of str
        A sentence about every file that is not known.
    """

    layers: dict[str, KnownLayer]
    skipped: list[str]

    @property
    def net(self) -> Any:
        """A net (NetParameter) of these layers, each with an input of its own."""
        return net_of(self.layers)


def recognise_matrices(folder: str | Path) -> Recognised:
    """Find the known layers that the Matrix Market files of a folder belong to.

    The matrix of a conv group, ``conv2_1``, is a layer of its own, where that of the whole layer is
    missing.

    Raises
    ------
    WeightsError
        When the folder cannot be read, or no file is known.
    """
    layers, skipped = {}, []
    names = _names(Path(folder))
    for name in names:
        band = BAND.fullmatch(name)
        if band and band[1] in names:
            continue
        path = file_of(name, folder)
        assert path is not None
        shape = read_shape(path)
        layer = recognise(name, shape)
        if layer is None:
            skipped.append(
                f"{path} is not timed: a {shape[0]} x {shape[1]} matrix named '{name}' belongs to "
                "no known layer"
            )
        else:
            layers[name] = layer
    if not layers:
        what = "; ".join(skipped) or f"{folder} holds no file LAYER.mtx or coo_LAYER.weight"
        raise WeightsError(f"{what}; give its net with --model (known without one: {in_words()})")
    return Recognised(layers, skipped)


def _names(folder: Path) -> list[str]:
    """Return the layers that files of a folder are named after, in order."""
    try:
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise WeightsError(
            f"the folder {folder} cannot be read ({error.strerror}); name the one that holds the "
            "Matrix Market files"
        ) from None
    patterns = [re.compile(re.escape(one).replace(r"\{\}", "(.+)")) for one in PATTERNS]
    found = [match[1] for file in files for one in patterns if (match := one.fullmatch(file))]
    # coo_conv1.weight is named after conv1, not after coo_conv1
    return [name for name in dict.fromkeys(found) if not name.startswith("coo_")]
