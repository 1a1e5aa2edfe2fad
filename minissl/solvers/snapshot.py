"""Snapshots: one file that holds everything training needs to go on, bitwise.

A safetensors file. Weights are named ``layer.index``, so it also serves wherever weights are
loaded; what only the solver needs is named ``solver/...``:

=============================  =====================================================
``conv1.0``, ``conv1.1``       weights
``solver/history/conv1.0.0``   momentum buffers, numbered
``solver/mask/conv1.0``        frozen connectivity (uint8)
=============================  =====================================================

The metadata hold the iteration, the random state, the position in the data, and which solver and
network the snapshot belongs to. Caffe's own formats: :mod:`minissl.solvers.caffe_snapshot`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.backend import to_host
from minissl.errors import WeightsError
from minissl.formats.safetensors_file import read_tensors, write_tensors
from minissl.formats.solverstate import is_solverstate
from minissl.formats.weights import by_tensor
from minissl.solvers import caffe_snapshot
from minissl.solvers.collapse import zero_parameters

if TYPE_CHECKING:
    from minissl.solvers.solver import Solver

log = logging.getLogger("minissl")

#: version of the layout above
VERSION = "1"
PREFIX = "solver/"


def save(solver: Solver, path: Path) -> None:
    """Write a snapshot, atomically.

    Raises
    ------
    MinisslError
        When the file cannot be written; an older one stays untouched.
    """
    if is_solverstate(path):
        caffe_snapshot.save(solver, path, _state_of(solver))
        return
    tensors: dict[str, np.ndarray] = {}
    for parameter, history in zip(solver.net.parameters, solver.history, strict=True):
        tensors[parameter.name] = to_host(parameter.data)
        for i, buffer in enumerate(history):
            tensors[f"{PREFIX}history/{parameter.name}.{i}"] = to_host(buffer)
        if parameter.mask is not None:
            tensors[f"{PREFIX}mask/{parameter.name}"] = to_host(parameter.mask).astype(np.uint8)
    metadata = {"minissl_snapshot": VERSION, "state": json.dumps(_state_of(solver))}
    write_tensors(path, tensors, metadata)


def _state_of(solver: Solver) -> dict[str, Any]:
    """Return what training needs beyond weights, history and masks."""
    return {
        "iteration": solver.iteration,
        "steps_passed": solver.steps_passed,
        "losses": [float(loss) for loss in solver.losses],
        "type": solver.param.type,
        "dtype": solver.net.dtype.name,
        "net": solver.net.state(),
        "test_nets": [net.state() for net in solver.test_nets],
        "zero_from_the_start": sorted(solver.zero_from_the_start),
    }


def restore(solver: Solver, path: str | Path) -> None:
    """Put a solver where another one stood when it saved ``path``.

    Everything is checked before anything is changed.

    Raises
    ------
    WeightsError
        When the file is damaged, is no snapshot, or belongs to another network or solver.
    """
    if is_solverstate(path):
        _restore_from_caffe(solver, path)
        return
    tensors, metadata = read_tensors(path)
    if metadata.get("minissl_snapshot") != VERSION:
        raise WeightsError(
            f"{path} is not a snapshot of this version; start from it as weights instead"
        )
    state = _read_state(metadata.get("state", ""), path)
    _check_belongs(solver, state, path)
    taken = [
        _take_parameter(solver, tensors, parameter, len(history), path)
        for parameter, history in zip(solver.net.parameters, solver.history, strict=True)
    ]
    _go_on(solver, state, taken, path)


def _restore_from_caffe(solver: Solver, path: str | Path) -> None:
    """Go on from a ``.solverstate``, of Caffe or of minissl."""
    found, weights, source = caffe_snapshot.read(solver, path)
    history = caffe_snapshot.history_of(solver, found)
    if not found.own:
        solver.net.load(weights)
        solver.history = history
        solver.iteration, solver.steps_passed = found.iteration, found.current_step
        solver.losses.clear()
        solver.last_snapshot = Path(path)
        # what is zero now may have been from the start, which Caffe does not tell
        solver.zero_from_the_start = zero_parameters(solver.net.parameters)
        log.info("%s is of Caffe: data and random numbers begin anew", path)
        return
    state = _read_state(found.own, path)
    _check_belongs(solver, state, path)
    masks = caffe_snapshot.masks_of(solver, found, path)
    tensors = by_tensor(weights)
    values = [
        _take(solver, tensors, parameter.name, parameter.shape, parameter.dtype, source)
        for parameter in solver.net.parameters
    ]
    _go_on(solver, state, list(zip(values, history, masks, strict=True)), path)


def _check_belongs(solver: Solver, state: dict[str, Any], path: str | Path) -> None:
    for key, own in (("type", solver.param.type), ("dtype", solver.net.dtype.name)):
        if state[key] != own:
            raise WeightsError(
                f"{path} was saved with {key} {state[key]}, this solver has {own}; "
                f"resume with the same {key}"
            )


def _go_on(solver: Solver, state: dict[str, Any], taken: list[Any], path: str | Path) -> None:
    """Take weights, history and masks, and stand where the other solver stood."""
    nets = [solver.net, *solver.test_nets]
    before = [net.state() for net in nets]
    try:
        for net, net_state in zip(nets, [state["net"], *state["test_nets"]], strict=False):
            net.set_state(net_state)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        for net, own in zip(nets, before, strict=True):
            net.set_state(own)
        raise _damaged(path) from error
    solver.zero_from_the_start = set(state["zero_from_the_start"])
    for number, (weights, buffers, mask) in enumerate(taken):
        parameter = solver.net.parameters[number]
        parameter.data, parameter.mask = weights, mask
        solver.history[number] = buffers
    solver.iteration = state["iteration"]
    solver.steps_passed = state["steps_passed"]
    solver.losses.clear()
    solver.losses.extend(state["losses"])
    solver.last_snapshot = Path(path)


#: what the metadata hold, and of which type
STATE_FIELDS = {
    "iteration": int,
    "steps_passed": int,
    "losses": list,
    "type": str,
    "dtype": str,
    "net": dict,
    "test_nets": list,
}


def _read_state(text: str, path: str | Path) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error
    whole = isinstance(state, dict) and all(
        isinstance(state.get(name), kind) for name, kind in STATE_FIELDS.items()
    )
    if not (
        whole
        and min(state["iteration"], state["steps_passed"]) >= 0
        and all(isinstance(loss, (int, float)) for loss in state["losses"])
        and all(isinstance(name, str) for name in state.setdefault("zero_from_the_start", []))
    ):
        raise _damaged(path)
    return state


def _damaged(path: str | Path) -> WeightsError:
    return WeightsError(
        f"{path}: the state of the solver is damaged; resume from another snapshot, or start from "
        "this one as weights"
    )


def _take_parameter(
    solver: Solver, tensors: dict[str, np.ndarray], parameter: Any, buffers: int, path: str | Path
) -> tuple[Any, list[Any], Any]:
    """Return weights, momentum buffers and mask (or None) of a parameter."""

    def take(name: str, dtype: np.dtype) -> Any:
        return _take(solver, tensors, name, parameter.shape, dtype, path)

    weights = take(parameter.name, parameter.dtype)
    history = [
        take(f"{PREFIX}history/{parameter.name}.{i}", parameter.dtype) for i in range(buffers)
    ]
    mask = None
    name = f"{PREFIX}mask/{parameter.name}"
    if name in tensors:
        mask = take(name, np.dtype(np.uint8)).astype(parameter.dtype)
    return weights, history, mask


def _take(
    solver: Solver, tensors: dict, name: str, shape: tuple, dtype: np.dtype, path: str | Path
) -> Any:
    values = tensors.get(name)
    if values is None or values.shape != shape:
        found = "is missing" if values is None else f"has shape {values.shape}"
        raise WeightsError(
            f"{path}: '{name}' {found} where the net has shape {shape}; resume with the net the "
            "snapshot was made from"
        )
    if values.dtype != dtype or not np.isfinite(values).all():
        raise WeightsError(
            f"{path}: '{name}' does not hold finite numbers of type {dtype}; resume from another "
            "snapshot"
        )
    return solver.kernels.xp.array(np.asarray(values, order="C"))
