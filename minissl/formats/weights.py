"""Weights in any of the formats that minissl knows, chosen by the file's suffix.

=====================================  ====================================================
``.caffemodel``, ``.caffemodel.gz``    Caffe's own; layers keep their order and type
``.caffemodel.h5``                     Caffe's own as HDF5 (needs h5py)
``.safetensors``                       tensors named ``layer.index``, such as ``conv1.0``
``.npz``                               the same names, NumPy's zip of arrays (no pickles)
=====================================  ====================================================
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import WeightsError
from minissl.formats import caffemodel
from minissl.formats.atomic import atomic_write
from minissl.formats.caffemodel import read_caffemodel, write_caffemodel
from minissl.formats.reading import explain
from minissl.formats.safetensors_file import read_tensors, write_tensors

SUFFIXES = (".caffemodel", ".caffemodel.gz", ".caffemodel.h5", ".safetensors", ".npz")

Weights = dict[str, list[np.ndarray]]


def read_weights(path: str | Path) -> Weights:
    """Read a weight file.

    Returns
    -------
    dict
        Layer name to its blobs in order.

    Raises
    ------
    WeightsError
        If the suffix is unknown, or the file is missing, damaged or not what its suffix says.
    """
    if Path(path).is_dir():
        raise explain(path, "weight file", WeightsError, IsADirectoryError())
    suffix = _suffix_of(path)
    if suffix.endswith(".h5"):
        from minissl.formats import caffe_hdf5

        return caffe_hdf5.read_weights(path)
    if suffix.startswith(".caffemodel"):
        return read_caffemodel(path)
    if suffix == ".npz":
        return by_layer(read_npz(path), path)
    tensors, metadata = read_tensors(path)
    if "minissl_snapshot" in metadata:
        # what only the solver needs is not weights
        tensors = {name: t for name, t in tensors.items() if not name.startswith("solver/")}
    return by_layer(tensors, path)


def write_weights(
    path: str | Path,
    weights: Mapping[str, Sequence[np.ndarray]],
    net_name: str = "",
    layer_types: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    definitions: Mapping[str, Any] | None = None,
) -> None:
    """Write a weight file atomically.

    Parameters
    ----------
    path
        The file; its suffix chooses the format.
    weights
        Layer name to its blobs in order.
    net_name, layer_types
        Name of the net and type of each layer; kept by ``.caffemodel`` only.
    metadata
        Strings to store beside the tensors; kept by ``.safetensors`` only.
    definitions
        The LayerParameter of each layer of the net, by name and in order; kept by ``.caffemodel``
        only, which then describes the whole net, as Caffe's own files do.

    Raises
    ------
    WeightsError
        If the suffix is unknown.
    MinisslError
        If the file cannot be written.
    """
    suffix = _suffix_of(path)
    if suffix.endswith(".h5"):
        from minissl.formats import caffe_hdf5

        caffe_hdf5.write_weights(path, weights)
    elif suffix.startswith(".caffemodel"):
        types = layer_types or {}
        names = {**dict.fromkeys(definitions or ()), **dict.fromkeys(weights)}
        layers = [(name, types.get(name, ""), weights.get(name, ())) for name in names]
        is_double = any(np.asarray(b).dtype == np.float64 for bs in weights.values() for b in bs)
        dtype = np.float64 if is_double else np.float32
        write_caffemodel(path, net_name, layers, dtype, definitions)
    elif suffix == ".safetensors":
        write_tensors(path, by_tensor(weights), metadata)
    else:
        with atomic_write(path) as file:
            np.savez(file, **by_tensor(weights))  # type: ignore[arg-type]


def by_tensor(weights: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Name each blob ``layer.index``."""
    return {
        f"{layer}.{index}": np.asarray(blob)
        for layer, blobs in weights.items()
        for index, blob in enumerate(blobs)
    }


def by_layer(tensors: Mapping[str, np.ndarray], path: str | Path) -> Weights:
    """Collect tensors named ``layer.index`` into lists; the inverse of :func:`by_tensor`.

    Raises
    ------
    WeightsError
        If a name has another form, or an index is missing.
    """
    numbered: dict[str, dict[int, np.ndarray]] = {}
    for name, tensor in tensors.items():
        layer, dot, index = name.rpartition(".")
        if not dot or not (index.isascii() and index.isdigit()) or len(index) > 4:
            raise WeightsError(
                f"{path}: tensor {name!r} is not named layer.index, such as conv1.0; "
                "rename it or convert the file with minissl convert."
            )
        numbered.setdefault(layer, {})[int(index)] = tensor
    for layer, blobs in numbered.items():
        if sorted(blobs) != list(range(len(blobs))):
            raise WeightsError(
                f"{path}: layer {layer!r} has the tensors {sorted(blobs)}, "
                f"but they must be numbered from 0 to {len(blobs) - 1}."
            )
    return {
        layer: [blobs[index] for index in range(len(blobs))] for layer, blobs in numbered.items()
    }


def _suffix_of(path: str | Path) -> str:
    for suffix in SUFFIXES:
        if str(path).endswith(suffix):
            return suffix
    raise WeightsError(
        f"The format of the weight file {path} is unknown; its name must end in "
        f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}."
    )


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file; objects, and sizes that do not agree, are refused.

    Raises
    ------
    WeightsError
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > caffemodel.MAX_UNPACKED_BYTES:
                raise WeightsError(
                    f"{path} unpacks to more than {caffemodel.MAX_UNPACKED_BYTES} bytes "
                    "and was refused."
                )
            return {
                entry.filename.removesuffix(".npy"): _read_npy(archive, entry)
                for entry in archive.infolist()
            }
    except WeightsError:
        raise
    except Exception as reason:
        if isinstance(reason, OSError) and reason.filename is not None:
            raise explain(path, "weight file", WeightsError, reason) from None
        # zipfile, zlib and NumPy's header reader (which tokenizes and evaluates a Python literal)
        # answer damaged bytes with a dozen kinds of exceptions.
        raise WeightsError(
            f"{path} is not a complete npz file of numbers; copy or save it again."
        ) from None


def _read_npy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Read one array; the size its header claims must fit before memory is taken."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        claimed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + claimed != entry.file_size:
            raise ValueError("shape and size disagree")
        if dtype.kind not in "biuf":
            raise ValueError("not an array of numbers")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
