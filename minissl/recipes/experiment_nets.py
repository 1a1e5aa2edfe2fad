"""Can the solvers of an experiment train what its rows ask for? Asked before hours of work.

Every solver is set up with its nets, and seen to fit the dense network in phase TEST: each row's
weights are measured and compacted in that one. Shapes tell; no data are read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from minissl.channels import WITH_WEIGHTS
from minissl.errors import ConfigError, DataError, MinisslError
from minissl.formats.prototxt import read_solver, read_solver_net
from minissl.net import Net
from minissl.recipes.experiments import WIDTH, Experiment
from minissl.solvers import Solver
from minissl.solvers.rescaling import before_batch_norm

#: the output that errors are taken from
ACCURACY = "accuracy"

_Made = TypeVar("_Made", Net, Solver)


def check(experiment: Experiment) -> None:
    """Refuse solvers that cannot train a row, or whose results could not be told.

    Raises
    ------
    ConfigError
        Names the experiment's file, the row and the solver.
    """
    places = _solvers(experiment)
    dense = _net_of(experiment.path(experiment.solver))
    _check_layers(experiment, dense)
    where = places[experiment.solver]
    measured = _set_up(partial(Net, dense, "TEST"), experiment.data, where)
    if measured is not None:
        _check_accuracy(measured, where)
        _check_rescaling(experiment, measured)
    # what is told of the error after SSL is that of the last stage's tests
    last_of_ssl = {row.ssl[-1] for row in experiment.rows if row.ssl}
    for name, where in places.items():
        solver = _set_up(partial(Solver, experiment.path(name)), experiment.data, where)
        _check_log(experiment.path(name), where)
        if solver is None:
            continue
        if measured is not None:
            _check_fit(solver.net, measured, where)
        if name in last_of_ssl and solver.test_nets:
            _check_accuracy(solver.test_nets[0], where)


def _solvers(experiment: Experiment) -> dict[str, str]:
    """Return every solver with the place that names it first, as messages begin."""
    places: dict[str, str] = {}
    for row in (experiment.baseline, *experiment.rows):
        where = f"{experiment.file}, row '{row.key}'"
        for name in experiment.trainings(row.key).values():
            if not experiment.path(name).is_file():
                raise ConfigError(
                    f"{where}: there is no solver '{name}', neither in the folder "
                    f"{experiment.file.parent} nor among those that come with minissl"
                )
            places.setdefault(name, f"{where}, {name}")
    return places


def _net_of(path: Path) -> Any:
    return read_solver_net(read_solver(path), path)


def _set_up(make: Callable[..., _Made], data: str, where: str) -> _Made | None:
    """Make a solver or a net for its shapes; None where they depend on data that are not here.

    One image is enough, if the net takes any number of them. A net that is made for another data
    set than the experiment's is no mistake: ``--data`` may name that one.
    """
    refused = []
    for options in ({"source": data, "batch_size": 1}, {"source": data}, {}):
        try:
            return make(backend="numpy", data=options)
        except DataError:
            return None
        except MinisslError as error:
            refused.append(error)
    raise ConfigError(f"{where}: {refused[1]}")


def _check_layers(experiment: Experiment, net: Any) -> None:
    """Refuse layers of the table that the dense network does not have, or that are not shown."""
    types = {one.name: one.type for one in net.layer if one.type in WITH_WEIGHTS}
    there = list(types)
    for name in experiment.layers:
        if name not in there:
            raise ConfigError(
                f"{experiment.file}: 'layers' names '{name}', but the layers with weights of "
                f"{experiment.solver} are {', '.join(there)}"
            )
        if experiment.shown == WIDTH and types[name] != "Convolution":
            raise ConfigError(
                f"{experiment.file}: 'layers' names '{name}', but shown = \"width\" tells of "
                "convolutions; leave it out"
            )


def _check_accuracy(net: Net, where: str) -> None:
    if ACCURACY not in net.outputs or net.blobs[ACCURACY].size != 1:
        raise ConfigError(
            f"{where}: its net has no output '{ACCURACY}' of one number in phase TEST to take the "
            "error from; add an Accuracy layer with this top"
        )


def _check_rescaling(experiment: Experiment, measured: Net) -> None:
    rescaled = [row.key for row in experiment.rows if row.rescale]
    if rescaled and not before_batch_norm(measured):
        raise ConfigError(
            f"{experiment.file}, row '{rescaled[0]}': 'rescale' changes nothing, since BatchNorm "
            "follows no layer that has weights of its own; leave it out"
        )


def _check_log(path: Path, where: str) -> None:
    """Refuse a training that leaves nothing to draw."""
    solver = read_solver(path)
    displays = solver.display and solver.max_iter
    tests = solver.test_iter and solver.test_interval
    if not displays and not tests:
        raise ConfigError(
            f"{where}: it neither displays nor tests, and nothing of it could be drawn; give it "
            "test_iter and test_interval, or max_iter and display"
        )


def _check_fit(net: Net, measured: Net, where: str) -> None:
    """Refuse weights that the dense network could not hold."""
    wanted = _shapes(measured)
    alike = {name: shapes for name, shapes in _shapes(net).items() if name in wanted}
    if not alike:
        raise ConfigError(
            f"{where}: its net has no layer with weights of the dense network's, which are "
            f"{', '.join(wanted)}; give its layers these names"
        )
    for name, shapes in alike.items():
        if list(map(_squeezed, shapes)) != list(map(_squeezed, wanted[name])):
            raise ConfigError(
                f"{where}: its layer '{name}' has weights of shape {_in_words(shapes)}, and that "
                f"of the dense network {_in_words(wanted[name])}; make them alike"
            )


def _shapes(net: Net) -> dict[str, list[tuple[int, ...]]]:
    return {name: [one.shape for one in parameters] for name, parameters in net.params.items()}


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drop dimensions of length 1, as loading does."""
    return tuple(length for length in shape if length != 1)


def _in_words(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))
