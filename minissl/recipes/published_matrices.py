"""The sparse weights that the authors published, and matrices with zeros at random in their place.

They are not part of minissl. A folder that was copied from upstream holds sets such as
``alexnet/0.54214_1.0e-3``, each with a Matrix Market file for every layer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minissl.errors import ConfigError
from minissl.formats.matrix_market import read_matrix
from minissl.recipes.stages import digest
from minissl.timing.known_layers import KnownLayer
from minissl.timing.matrices import file_of

#: the environment variable that names the folder
VARIABLE = "MINISSL_MATRICES"
#: where they were published
UPSTREAM = (
    "experiments/sparsity/matrixmarket of https://github.com/wenwei202/caffe, branch scnn "
    "(the same files are in https://github.com/IntelLabs/SkimCaffe)"
)
#: SHA-256 of the files as they were published, by set and layer
PUBLISHED = {
    "alexnet/0.56256_l1_9.0e-5": {
        "conv1": "f8b8b95616730d7b895ae2418b8fadf3d9d22da5da95e8cee8ab0e323ddbb952",
        "conv2": "0998187acfd37ad92476460cb05a0166f4b2110d0e9eb5081b551b6ed553bf40",
        "conv3": "a1a83fa80ca1e88617b3965ef598548d773511bc7749f2bc101240ac856e2d05",
        "conv4": "d1d0e8f59585497efa0f96a31bf9e9d21b9d06d07769ea0d103814d720fd2f81",
        "conv5": "cbade0cc8482bdb1164ef504b32e4a8ecd2693259d1f81124971295b873a725a",
    },
    "alexnet/0.54214_1.0e-3": {
        "conv1": "47db03d646eb173156e07fbf2acab43cd19f089ed1ee67ed30b147f6cf5adc0f",
        "conv2": "17c8e13c0afe31d5918eff520ebd1b96afb99d21a6d380c93bda77694998d50d",
        "conv3": "17158e3c0edee230c3d958718007edc5b6fe2dd20fe17c6d0a94f2b7e801d089",
        "conv4": "2e6f55abac8d5ad2fd8ed5a827a502bba8dd88ebf7b5b991340678ac71fac793",
        "conv5": "c330c359e2c3db2fa3d1bddc2c7465288c65590cddb6c896dda81d5dfdb65523",
    },
}


def folder_of(given: Path | None = None) -> Path | None:
    """Return the folder of all sets: as given, or as the environment variable says, or None."""
    named = os.environ.get(VARIABLE)
    return given or (Path(named) if named else None)


def paths_of(name: str, layers: Sequence[KnownLayer], folder: Path | None) -> dict[str, Path]:
    """Return the file of every layer of a set.

    Raises
    ------
    ConfigError
        When there is no folder, or a file is missing; says where the files come from.
    """
    if folder is None:
        raise ConfigError(
            f"the matrices '{name}' are not part of minissl; copy them from {UPSTREAM} and name "
            f"the folder with --matrices or {VARIABLE}"
        )
    paths = {layer.name: file_of(layer.name, folder / name) for layer in layers}
    missing = [layer for layer, path in paths.items() if path is None]
    if missing:
        raise ConfigError(
            f"{folder / name} holds no matrix of {', '.join(missing)}; copy the set from {UPSTREAM}"
        )
    return {layer: path for layer, path in paths.items() if path is not None}


def read_set(
    name: str, layers: Sequence[KnownLayer], folder: Path | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the matrices (F, K) of a set by layer, and the SHA-256 of their files.

    Raises
    ------
    ConfigError
        When one is missing, or has another shape than its layer.
    WeightsError
        When one is damaged.
    """
    paths = paths_of(name, layers, folder)
    matrices = {}
    for layer in layers:
        matrix = read_matrix(paths[layer.name])
        if matrix.shape != layer.matrix_shape:
            raise ConfigError(
                f"{paths[layer.name]} holds a {matrix.shape[0]} x {matrix.shape[1]} matrix, but "
                f"{layer.net}'s {layer.name} has {layer.matrix_shape[0]} x {layer.matrix_shape[1]}"
            )
        matrices[layer.name] = matrix
    return matrices, {layer: digest(path) for layer, path in paths.items()}


def as_published(name: str, digests: Mapping[str, str]) -> bool | None:
    """Whether files are those of the authors; None where these are not known."""
    known = PUBLISHED.get(name)
    return None if known is None else all(known[one] == value for one, value in digests.items())


def random_matrix(layer: KnownLayer, percent: float, seed: int) -> np.ndarray:
    """Return a matrix (F, K) with this percentage of zeros, rounded to whole weights, anywhere.

    The others are between 0.5 and 1.5.
    """
    rng = np.random.default_rng([seed, *layer.name.encode()])
    values = rng.random(layer.matrix_shape, np.float32) + np.float32(0.5)
    zeros = rng.permutation(values.size)[: round(values.size * percent / 100)]
    values.reshape(-1)[zeros] = 0
    return values
