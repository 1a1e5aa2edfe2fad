"""The state of a Caffe solver: a binary ``SolverState`` (``.solverstate``).

It holds the iteration, the name of the file with the weights, and the solver's history: one blob
for each parameter in the order of the net; for AdaDelta and Adam, whose buffers are two, first one
of each parameter, then the other of each. What minissl needs beyond that to go on bitwise stands in
fields of its own, which Caffe passes over.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minissl.errors import WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.blobs import blob_parts, read_blob
from minissl.formats.reading import explain
from minissl.formats.wire import BYTES, VARINT, Reader, WireError, header, signed, varint

SUFFIXES = (".solverstate", ".solverstate.h5")
_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP, _OWN, _MASK = 1, 2, 3, 4, 2001, 2002


@dataclass
class SolverState:
    """What the file holds.

    Attributes
    ----------
    iteration, current_step : int
        Updates made, and steps of the learning rate passed (``multistep``).
    learned_net : str
        The file of the weights, as the writer named it.
    history : list of ndarray
        In Caffe's order.
    own : str
        minissl's own state as JSON; empty in Caffe's files.
    masks : list of bytes
        One for each parameter: the bits of its connectivity mask, empty where it has none.
    """

    iteration: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list[np.ndarray] = field(default_factory=list)
    own: str = ""
    masks: list[bytes] = field(default_factory=list)


def is_solverstate(path: str | Path) -> bool:
    """Tell by its name whether a file is a Caffe solver's state."""
    return str(path).endswith(SUFFIXES)


def read_solverstate(path: str | Path) -> SolverState:
    """Read a ``.solverstate`` or ``.solverstate.h5``.

    Raises
    ------
    WeightsError
        If the file is missing, truncated, or not a solver's state.
    """
    if str(path).endswith(".h5"):
        from minissl.formats.caffe_hdf5 import read_state

        return read_state(path)
    state = SolverState()
    try:
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            reader = Reader(file, size)
            for number, kind, value in reader.fields():
                _take_field(state, reader, number, kind, value, path)
    except (OSError, ValueError) as reason:
        raise explain(path, "solver state", WeightsError, reason) from None
    except WireError:
        raise WeightsError(
            f"{path} is not a solver state, or it is truncated; resume from another one."
        ) from None
    if state.iteration < 0 or state.current_step < 0:
        raise WeightsError(f"{path} is damaged: its iteration is {state.iteration}.")
    return state


def write_solverstate(path: str | Path, state: SolverState) -> None:
    """Write a ``.solverstate`` or ``.solverstate.h5``, atomically.

    Raises
    ------
    MinisslError
        If the file cannot be written.
    """
    if str(path).endswith(".h5"):
        from minissl.formats.caffe_hdf5 import write_state

        write_state(path, state)
        return
    with atomic_write(path) as file:
        file.write(varint(_ITER << 3) + varint(state.iteration))
        _write_bytes(file, _LEARNED_NET, state.learned_net.encode())
        for blob in state.history:
            length, pieces = blob_parts(blob, blob.dtype)
            file.write(header(_HISTORY, length))
            file.writelines(pieces)
        file.write(varint(_CURRENT_STEP << 3) + varint(state.current_step))
        if state.own:
            _write_bytes(file, _OWN, state.own.encode())
            for mask in state.masks:
                _write_bytes(file, _MASK, mask)


def _write_bytes(file: BinaryIO, number: int, content: bytes) -> None:
    file.write(header(number, len(content)) + content)


def _take_field(
    state: SolverState, reader: Reader, number: int, kind: int, value: int, path: str | Path
) -> None:
    if kind == VARINT and number == _ITER:
        state.iteration = signed(value, 32)
    elif kind == VARINT and number == _CURRENT_STEP:
        state.current_step = signed(value, 32)
    elif kind != BYTES:
        return
    elif number == _LEARNED_NET:
        state.learned_net = reader.text(value)
    elif number == _HISTORY:
        where = f"{path}: history {len(state.history)}"
        state.history.append(read_blob(reader, value, where))
    elif number == _OWN:
        state.own = reader.text(value)
    elif number == _MASK:
        state.masks.append(reader.small(value))
