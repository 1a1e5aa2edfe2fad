"""Snapshots in Caffe's formats: a ``.solverstate`` beside a ``.caffemodel``, or both as HDF5.

They are written where the solver's ``snapshot_format`` says so, and those of Caffe are read. Their
weights and history are Caffe's; the rest of what minissl keeps is stored beside them, so that
training goes on bitwise from a file of its own. From one of Caffe's, the data begin at their first
record, and connectivity is frozen anew from the weights, as there.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.backend import to_host
from minissl.errors import WeightsError
from minissl.formats import hdf5
from minissl.formats.solverstate import SolverState, read_solverstate, write_solverstate
from minissl.formats.weights import read_weights

if TYPE_CHECKING:
    from minissl.solvers.solver import Solver

log = logging.getLogger("minissl")


def suffix_for(param: Any) -> str:
    """Return the suffix of the snapshots that a solver's ``snapshot_format`` asks for.

    Without that field it is ``.safetensors``, and also for HDF5 where h5py is missing.
    """
    if not param.HasField("snapshot_format"):
        return ".safetensors"
    if param.snapshot_format == param.BINARYPROTO:
        return ".solverstate"
    if hdf5.is_there():
        return ".solverstate.h5"
    log.warning(
        "snapshot_format is HDF5, but h5py is missing: snapshots become .safetensors; "
        "pip install 'minissl[hdf5]' for HDF5"
    )
    return ".safetensors"


def weights_path(path: Path) -> Path:
    """Return where the weights lie that belong to a snapshot: ``x.solverstate``, ``x.caffemodel``.

    Of a ``.safetensors`` snapshot, which holds its weights itself, the place of a copy for Caffe.
    """
    name = path.name
    if name.endswith(".solverstate.h5"):
        return path.with_name(name.removesuffix(".solverstate.h5") + ".caffemodel.h5")
    return path.with_suffix(".caffemodel")


def save(solver: Solver, path: Path, own: dict[str, Any]) -> None:
    """Write weights, then the state that names them, each atomically.

    Parameters
    ----------
    own : dict
        minissl's own state, which JSON can hold.

    Raises
    ------
    MinisslError
        When a file cannot be written; older ones stay untouched.
    """
    weights = weights_path(path)
    solver.net.save(weights)
    buffers = solver.rule.buffers
    state = SolverState(
        iteration=solver.iteration,
        learned_net=str(weights),
        current_step=solver.steps_passed,
        history=[to_host(blobs[b]) for b in range(buffers) for blobs in solver.history],
        own=json.dumps(own),
        masks=[_packed(parameter.mask) for parameter in solver.net.parameters],
    )
    write_solverstate(path, state)


def read(solver: Solver, path: str | Path) -> tuple[SolverState, dict[str, list[np.ndarray]], Path]:
    """Read a state and its weights, and see that the history belongs to this solver and net.

    Raises
    ------
    WeightsError
        When a file is missing or damaged, or belongs to another net or solver.
    """
    state = read_solverstate(path)
    parameters, buffers = solver.net.parameters, solver.rule.buffers
    if len(state.history) != len(parameters) * buffers:
        raise WeightsError(
            f"{path} holds {len(state.history)} history blobs where this net has "
            f"{len(parameters) * buffers} with solver type {solver.param.type}; resume with the "
            "net and the type it was saved with"
        )
    for number, blob in enumerate(state.history):
        parameter = parameters[number % len(parameters)]
        if blob.size != parameter.size:
            raise WeightsError(
                f"{path}: history {number} has shape {blob.shape} where '{parameter.name}' has "
                f"{parameter.shape}; resume with the net it was saved with"
            )
        if not np.isfinite(blob).all():
            raise WeightsError(
                f"{path}: history {number} holds NaN or infinity; resume from another snapshot"
            )
    weights = _find_weights(state.learned_net, Path(path))
    return state, read_weights(weights), weights


def history_of(solver: Solver, state: SolverState) -> list[list[Any]]:
    """Return a state's history by parameter, in the solver's type."""
    count = len(solver.net.parameters)
    xp = solver.kernels.xp
    return [
        [
            xp.asarray(np.array(blob.reshape(parameter.shape), parameter.dtype))
            for blob in state.history[number::count]
        ]
        for number, parameter in enumerate(solver.net.parameters)
    ]


def masks_of(solver: Solver, state: SolverState, path: str | Path) -> list[Any]:
    """Return the connectivity masks that minissl stored, one for each parameter or None."""
    parameters = solver.net.parameters
    if len(state.masks) != len(parameters):
        raise WeightsError(
            f"{path}: it has {len(state.masks)} masks for {len(parameters)} "
            "parameters; the file is damaged"
        )
    masks: list[Any] = []
    for parameter, packed in zip(parameters, state.masks, strict=True):
        if packed and len(packed) != (parameter.size + 7) // 8:
            raise WeightsError(f"{path}: the mask of '{parameter.name}' is damaged")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8))[: parameter.size]
        mask = bits.reshape(parameter.shape).astype(parameter.dtype) if packed else None
        masks.append(None if mask is None else solver.kernels.xp.asarray(mask))
    return masks


def _packed(mask: Any) -> bytes:
    return b"" if mask is None else np.packbits(to_host(mask) != 0).tobytes()


def _find_weights(learned_net: str, path: Path) -> Path:
    """Find the weights beside the state, or where it says that they are.

    Those beside it come first: a folder may have been renamed, and another run stand in its place.
    """
    places = [weights_path(path)]
    if learned_net and "\0" not in learned_net:
        places = [path.parent / Path(learned_net).name, *places, Path(learned_net)]
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError:  # a name too long
            continue
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise WeightsError(f"The weights that belong to {path} are missing; looked at {looked[:400]}.")
