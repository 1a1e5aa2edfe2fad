"""Write a compacted network to a folder."""

from __future__ import annotations

from pathlib import Path

from minissl.compaction.compact import Compacted
from minissl.formats.folders import make_folder
from minissl.formats.prototxt import write_prototxt
from minissl.formats.weights import write_weights

NET, WEIGHTS = "net.prototxt", ("net.safetensors", "net.caffemodel")


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
    paths = [folder / NET, *(folder / name for name in WEIGHTS)]
    for path in paths[1:]:
        write_weights(path, compacted.weights, compacted.net_param.name, compacted.layer_types)
    write_prototxt(compacted.net_param, paths[0])
    return paths
