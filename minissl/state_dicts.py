"""Weights of a network from modules of PyTorch, and back (:mod:`minissl.formats.state_dict`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from minissl.formats import state_dict
from minissl.formats.state_dict import Wanted
from minissl.net import Net


def load(net: Net, path: str | Path, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give a network the tensors of a state_dict file; return which module each layer took.

    Parameters
    ----------
    net : Net
    path : str or Path
        A ``.pt`` or ``.pth`` file.
    names : dict of str to str, optional
        {layer: module}, see :func:`minissl.formats.state_dict.match`.
    """
    weights, mapping = state_dict.match(_layers(net), state_dict.read_state_dict(path), names)
    net.load(weights)
    return mapping


def save(net: Net, path: str | Path, names: Mapping[str, str] | None = None) -> None:
    """Write a network's weights as the tensors of modules, named by ``names`` or as the layers."""
    state_dict.write_state_dict(path, net.weights(), _layers(net), names)


def _layers(net: Net) -> list[Wanted]:
    return [
        Wanted(name, net.layer(name).type_name, tuple(blob.shape for blob in parameters))
        for name, parameters in net.params.items()
    ]
