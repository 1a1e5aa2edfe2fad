"""Caffe's snapshots as HDF5: weights in ``.caffemodel.h5``, the solver in ``.solverstate.h5``.

=======================================  ===================================================
``/data/LAYER/0``, ``/data/LAYER/1``     weights, in a ``.caffemodel.h5``
``/iter``, ``/current_step``             whole numbers, in a ``.solverstate.h5``
``/learned_net``                         the file of the weights
``/history/0``, ``/history/1`` ...       the solver's buffers
=======================================  ===================================================
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import WeightsError
from minissl.formats import hdf5
from minissl.formats.atomic import atomic_write
from minissl.formats.solverstate import SolverState

DATA, HISTORY, MASKS = "data", "history", "minissl_masks"
#: no layer of Caffe has as many; a number beyond it is damage, the others are not shared
MOST_BLOBS = 16


def read_weights(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read a ``.caffemodel.h5``: layer name to its blobs in order.

    Caffe writes a blob that several layers share with the first of them only. Where another of them
    has a later blob of its own, the one that it lacks is an empty array here;
    :func:`minissl.net_weights.whole` puts the shared values there.

    Raises
    ------
    WeightsError
        If the file is missing or damaged.
    DependencyError
        If h5py is missing.
    """
    with hdf5.opened(path, "weight file") as file:
        numbered: dict[str, dict[int, np.ndarray]] = {}
        for name in file.names(DATA):
            layer, _, index = name.removeprefix(f"{DATA}/").rpartition("/")
            if not (layer and _is_number(index)):
                raise WeightsError(f"{path}: {name} is not named /{DATA}/LAYER/NUMBER.")
            numbered.setdefault(layer, {})[int(index)] = _floats(file.array(name))
        if not numbered:
            raise WeightsError(f"{path} holds no weights; is it a snapshot of Caffe's?")
        for blobs in numbered.values():
            for place in range(max(blobs) if max(blobs) < MOST_BLOBS else 0):
                blobs.setdefault(place, np.empty(0, np.float32))
        return {layer: _in_order(blobs, path, layer) for layer, blobs in numbered.items()}


def write_weights(path: str | Path, weights: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Write a ``.caffemodel.h5``, atomically.

    Raises
    ------
    MinisslError
        If the file cannot be written.
    DependencyError
        If h5py is missing.
    """
    with _Writing(path) as file:
        group = file.create_group(DATA)
        for layer, blobs in weights.items():
            for index, blob in enumerate(blobs):
                group.create_dataset(f"{layer}/{index}", data=np.asarray(blob))


def read_state(path: str | Path) -> SolverState:
    """Read a ``.solverstate.h5``; see :func:`minissl.formats.solverstate.read_solverstate`."""
    with hdf5.opened(path, "solver state") as file:
        state = SolverState(
            iteration=file.integer("iter"),
            learned_net=file.text("learned_net") if "learned_net" in file else "",
            current_step=file.integer("current_step") if "current_step" in file else 0,
            own=file.text("minissl_state") if "minissl_state" in file else "",
        )
        state.history = _numbered(file, HISTORY, path)
        state.masks = [mask.astype(np.uint8).tobytes() for mask in _numbered(file, MASKS, path)]
        return state


def write_state(path: str | Path, state: SolverState) -> None:
    """Write a ``.solverstate.h5``, atomically."""
    with _Writing(path) as file:
        for name, number in (("iter", state.iteration), ("current_step", state.current_step)):
            file.create_dataset(name, data=np.array([number], np.int32))
        net = state.learned_net.encode() + b"\0"  # Caffe relies on the end mark
        file.create_dataset("learned_net", data=np.array(net, f"S{len(net)}"))
        group = file.create_group(HISTORY)
        for index, blob in enumerate(state.history):
            group.create_dataset(str(index), data=blob)
        if state.own:
            file.create_dataset("minissl_state", data=np.bytes_(state.own.encode()))
            masks = file.create_group(MASKS)
            for index, mask in enumerate(state.masks):
                masks.create_dataset(str(index), data=np.frombuffer(mask, np.uint8))


class _Writing:
    """An HDF5 file that takes its place when it is complete."""

    def __init__(self, path: str | Path):
        self._library = hdf5.library()
        self._writer = atomic_write(path)

    def __enter__(self) -> Any:
        self._stream = self._writer.__enter__()
        # the library wants to read what it wrote, so the file is made in memory
        self._memory = io.BytesIO()
        self._file = self._library.File(self._memory, "w")
        return self._file

    def __exit__(self, *exception: Any) -> None:
        self._file.close()
        if exception[0] is None:
            self._stream.write(self._memory.getbuffer())
        self._writer.__exit__(*exception)


def _numbered(file: hdf5.File, group: str, path: str | Path) -> list[np.ndarray]:
    found = {}
    for name in file.names(group):
        index = name.removeprefix(f"{group}/")
        if not _is_number(index):
            raise WeightsError(f"{path}: {name} is not numbered; the file is damaged.")
        found[int(index)] = file.array(name)
    return _in_order(found, path, group)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _floats(array: np.ndarray) -> np.ndarray:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _in_order(blobs: dict[int, np.ndarray], path: str | Path, where: str) -> list[np.ndarray]:
    if sorted(blobs) != list(range(len(blobs))):
        raise WeightsError(
            f"{path}: the blobs of {where} are {sorted(blobs)[:8]}, but they must be numbered from "
            f"0 to {len(blobs) - 1}."
        )
    return [blobs[index] for index in range(len(blobs))]
