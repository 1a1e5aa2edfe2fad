"""Write a compacted network to a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minissl.compaction.compact import Compacted
from minissl.errors import ConfigError
from minissl.formats.folders import make_folder
from minissl.formats.prototxt import write_prototxt
from minissl.formats.weights import write_weights
from minissl.solvers.run_folder import RECORD

NET, WEIGHTS = "net.prototxt", ("net.safetensors", "net.caffemodel")


def refuse_to_replace(folder: str | Path, inputs: Iterable[str | Path]) -> None:
    """See that :func:`write` replaces neither what is read nor the net of a training run.

    Parameters
    ----------
    folder : path
        Where the network is to be written; need not be there.
    inputs : iterable of path
        The files that it is made of.

    Raises
    ------
    ConfigError
        When it would.
    """
    if os.path.exists(Path(folder, RECORD)):
        raise ConfigError(
            f"{folder} holds a training run, which goes on from its own {NET}; choose another "
            "folder with --out"
        )
    for path in _targets(folder):
        if any(_is_same(path, one) for one in inputs):
            raise ConfigError(
                f"{path} is what the network is made of, and would be replaced by it; choose "
                "another folder with --out"
            )


def _is_same(one: str | Path, other: str | Path) -> bool:
    there = os.path.exists(one) and os.path.exists(other)
    return there and os.path.samefile(one, other)


def _targets(folder: str | Path) -> list[Path]:
    return [Path(folder, name) for name in (NET, *WEIGHTS)]


def write(compacted: Compacted, folder: str | Path) -> list[Path]:
    """Write ``net.prototxt`` and the weights, as safetensors and caffemodel.

    Each file is complete or not there. The folder is made if it is missing.

    Returns
    -------
    list of Path
        The prototxt, then the weights.

    Raises
    ------
    MinisslError
        When the folder or a file cannot be written.
    """
    folder = make_folder(folder)
    paths = _targets(folder)
    for path in paths[1:]:
        write_weights(path, compacted.weights, compacted.net_param.name, compacted.layer_types)
    write_prototxt(compacted.net_param, paths[0])
    return paths
